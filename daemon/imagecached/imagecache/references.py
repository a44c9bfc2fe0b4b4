"""References as matching compares them."""

from __future__ import annotations

from collections.abc import Iterable

from imagecached.errors import InvalidInput
from imagecached.oci.reference import Reference


def readable(images: Iterable[str]) -> dict[str, Reference]:
    """Image as written → its reference. What is no reference is left out: the kubelet will say so."""
    found: dict[str, Reference] = {}
    for image in images:
        try:
            found[image] = Reference.parse(image)
        except InvalidInput:
            continue
    return found


def key(reference: Reference) -> str:
    """What must agree for a full match: the digest if the reference has one, else the tag."""
    if reference.digest:
        return f"{reference.name}@{reference.digest}"
    return f"{reference.name}:{reference.tag}"
