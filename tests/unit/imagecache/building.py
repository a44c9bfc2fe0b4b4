"""Caches, statuses and manifests for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from imagecached.imagecache import Candidate, ImageCache, ImageStatus, Options, Status, phases, uid_of_name
from imagecached.imagecache.status import Bytes
from imagecached.oci.digest import Digest

NOW = 1_790_000_000.0
GIB = 1 << 30


def cache(name: str = "c", *images: str, **fields: Any) -> ImageCache:
    """A declared cache, made at NOW."""
    fields.setdefault("created", NOW)
    return ImageCache(name=name, uid=uid_of_name(name), images=images or ("nginx:1",), **fields)


def automatic(name: str = "auto-create-for-x", *images: str, **fields: Any) -> ImageCache:
    """An automatic one."""
    return cache(name, *images, options=Options(automatic=True), **fields)


def digest(text: str) -> Digest:
    """Some digest."""
    return Digest.of(text.encode())


def built(declared: ImageCache, now: float = NOW, size: int = 1000) -> tuple[ImageStatus, ...]:
    """The images of a cache, resolved: the digest of ``text`` is that of ``index of text``."""
    return tuple(
        ImageStatus(image, digest(f"index of {image}"), (digest(f"manifest of {image}"),), size)
        for image in declared.images
    )


def status(declared: ImageCache, phase: str, now: float = NOW) -> Status:
    """The status of ``declared`` in ``phase``, reached by the shortest way."""
    pending = phases.begin(declared, Status(), now)
    if phase == "Pending":
        return pending
    if phase == "Failed":
        return phases.fail(declared, pending, now, reason="AccessDenied", message="registry refuses")
    creating = phases.resolve(declared, pending, built(declared), now)
    if phase == "Creating":
        return creating
    ready = phases.finish(declared, creating, now, moved=Bytes(10, 10, 4, 6))
    if phase == "Ready":
        return ready
    updating = phases.begin(edited(declared), ready, now)
    if phase == "Updating":
        return updating
    return phases.fail(edited(declared), updating, now, reason="Unavailable", message="no answer")


def edited(declared: ImageCache, refresh: str = "again") -> ImageCache:
    """The same cache with its refresh annotation changed."""
    return replace(declared, options=replace(declared.options, refresh=refresh))


def manifest(**changes: Any) -> dict[str, Any]:
    """A valid document; ``changes`` replace top-level fields."""
    document: dict[str, Any] = {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": {
            "name": "c",
            "uid": "0c4f1f4e-8f5d-4d6b-9a53-4b1b7e0f3a11",
            "generation": 3,
            "creationTimestamp": "2026-11-25T10:00:00Z",
        },
        "spec": {"images": ["nginx:1"]},
    }
    return {**document, **changes}


def pod(*images: str, annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A Pod with a container for each image."""
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default", "annotations": annotations or {}},
        "spec": {"containers": containers, **spec},
    }


def candidate(declared: ImageCache, phase: str = "Ready", size: int = GIB, now: float = NOW) -> Candidate:
    """A cache to choose; its images are of ``size`` bytes."""
    found = status(declared, phase, now)
    serving = tuple(replace(image, bytes=size) for image in found.serving)
    return Candidate.of(declared, replace(found, serving=serving))
