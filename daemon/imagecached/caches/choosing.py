"""A cache for a pod, or for a container of this machine: the pure decision, made with what serves now.

A container that is run here may carry a pod's annotations and is treated like a pod with one image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from imagecached.errors import FailedPrecondition, InvalidInput, NotFound
from imagecached.imagecache import Candidate, Decision, ImageCache, Limits, PodImages, match, parse_manifests
from imagecached.oci.reference import Reference

if TYPE_CHECKING:
    from imagecached.caches.views import View


@dataclass(frozen=True, slots=True)
class Choice:
    """``name``: the image to take, in the store or to be pulled. ``decision`` None: nothing was asked for."""

    name: str
    decision: Decision | None = None


def container(image: str, annotations: Mapping[str, str]) -> PodImages:
    """The pod that a container of ``image`` with these annotations would be."""
    return PodImages.of(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"annotations": dict(annotations)},
            "spec": {"containers": [{"name": "container", "image": image}]},
        }
    )


def decide(pod: PodImages, views: Iterable[View], *, automatic: bool = True) -> Decision:
    """Which of the caches the pod gets; ``automatic``: one may be made if it finds none."""
    candidates = [
        Candidate.of(replace(view.cache, created=view.created), view.status)
        for view in views
        if view.cache is not None
    ]
    return match(pod, candidates, Limits(automatic=automatic))


def refuse(decision: Decision) -> None:
    """Raise why the pod may not start: NotFound, FailedPrecondition."""
    if decision.outcome == "not-found":
        raise NotFound(decision.reason)
    if decision.refused:
        raise FailedPrecondition(decision.reason)


def image_of(decision: Decision, image: str) -> str:
    """The image by the digest that the chosen cache holds; as it was asked for if it holds none."""
    reference = Reference.parse(decision.pinned.get(image, image))
    return str(reference.at(reference.digest)) if reference.digest else str(reference)


def only_image(view: View) -> str:
    """The image of a cache that is named instead of one. FailedPrecondition: it serves nothing; InvalidInput:
    it holds several.
    """
    if not view.status.usable:
        raise FailedPrecondition(f"ImageCache {view.name} ({view.id}) is {view.status.phase}, not Ready")
    if len(view.names) != 1:
        images = ", ".join(view.names)
        raise InvalidInput(
            f"ImageCache {view.name} holds {len(view.names)} images: name one of {images},"
            f" with --annotation k8s.aliyun.com/eci-imc-id={view.id} for exactly what the cache holds"
        )
    return next(iter(view.names.values()))


def made_for(decision: Decision) -> ImageCache | None:
    """The cache to make for the next pod, declared as if a file had said it."""
    if decision.create is None:
        return None
    return parse_manifests(msgspec.json.encode(decision.create.document()), "automatic").caches[0]
