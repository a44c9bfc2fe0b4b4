"""Caches, nodes and reports for the controller's tests, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from imagecached.imagecache import (
    ImageCache,
    ImageStatus,
    Phase,
    Status,
    parse_object,
    phases,
    rollout_rank,
    status_document,
)
from imagecached.kube.controller.known import Known
from imagecached.kube.controller.reports import CacheReport
from imagecached.kube.nodes import Node
from imagecached.oci.digest import Digest

NOW = 1_700_000_000.0
DIGEST = Digest.of(b"an image")


def cache_document(name: str = "web", *images: str, **parts: Any) -> dict[str, Any]:
    """An ImageCache object as a user writes it; ``parts``: annotations, labels, further fields
    of the spec.
    """
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "generation": parts.pop("generation", 1),
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "annotations": parts.pop("annotations", {}),
        "labels": parts.pop("labels", {}),
    }
    return {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": metadata,
        "spec": {"images": list(images) or ["registry.example/web:1"], **parts},
    }


def cache(name: str = "web", *images: str, **parts: Any) -> ImageCache:
    return parse_object(cache_document(name, *images, **parts))


def known(
    made: ImageCache | None = None, status: Status | None = None, *, version: str = "7", **parts: Any
) -> Known:
    """The object of ``made`` with this status, as the controller keeps it."""
    document = cache_document(**parts) if made is None else cache_document(made.name, *made.images)
    document["metadata"]["resourceVersion"] = version
    if status is not None:
        document["status"] = status_document(status)
    found = Known.of(document)
    return found if made is None else replace(found, cache=made)


def begun(made: ImageCache, now: float = NOW) -> Status:
    return phases.begin(made, Status(), now)


def creating(made: ImageCache, now: float = NOW) -> Status:
    """The digests are known, the nodes are at it."""
    images = [ImageStatus(image, DIGEST, (DIGEST,), 1000) for image in made.images]
    return phases.resolve(made, begun(made, now), images, now)


def ready(made: ImageCache, now: float = NOW) -> Status:
    return phases.finish(made, creating(made, now), now)


def node(name: str, *, up: bool = True, **parts: Any) -> Node:
    """An amd64 node."""
    conditions = [{"type": "Ready", "status": "True" if up else "Unknown"}]
    return Node.of(
        {
            "metadata": {"name": name, "uid": f"uid-{name}", "labels": parts.get("labels", {})},
            "status": {
                "conditions": conditions,
                "nodeInfo": {"operatingSystem": "linux", "architecture": parts.get("arch", "amd64")},
            },
        }
    )


def report(
    phase: Phase = "Ready", generation: int = 1, serving: int | None = None, **parts: Any
) -> CacheReport:
    """What a node says of the cache ``web``."""
    held = generation if phase == "Ready" else 0
    values: Mapping[str, Any] = {"uid": "uid-web", "total": 100, **parts}
    return CacheReport(
        generation=generation, phase=phase, serving=held if serving is None else serving, **values
    )


def ranked(count: int, uid: str = "uid-web", generation: int = 1) -> list[str]:
    """Names of nodes, the first in a rollout first."""
    names = [f"n{number}" for number in range(count)]
    return sorted(names, key=lambda name: rollout_rank(uid, generation, name))
