"""A pod and the cache it gets → JSON Patch (RFC 6902). Pure.

Nothing that the pod says itself is taken back: a RuntimeClass stays, an image by digest stays, a preference
is added to those that are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from imagecached.imagecache import annotations as keys

_WEIGHT: Final = 50  # of 100: the pod's own preferences may outweigh it
_CONTAINERS: Final = ("containers", "initContainers")

Operation = dict[str, Any]


def pod_patch(
    pod: Mapping[str, Any],
    *,
    pinned: Mapping[str, str],
    annotations: Mapping[str, str],
    runtime_class: str = "",
    cache_id: str = "",
) -> list[Operation]:
    """What to change in ``pod``: images by digest, RuntimeClass, where it should run, what we decided.

    ``runtime_class`` and ``cache_id`` empty: the pod gets no cache.
    """
    spec = pod.get("spec") or {}
    return [
        *_annotated(pod, annotations),
        *_runtime_class(spec, runtime_class),
        *_images(spec, pinned),
        *(_preferred(spec, cache_id) if cache_id else ()),
    ]


def _annotated(pod: Mapping[str, Any], annotations: Mapping[str, str]) -> Iterator[Operation]:
    metadata = pod.get("metadata") or {}
    if annotations and not metadata.get("annotations"):
        yield _add("/metadata/annotations", {})
    for key, value in annotations.items():
        yield _add(f"/metadata/annotations/{_escaped(key)}", value)


def _runtime_class(spec: Mapping[str, Any], runtime_class: str) -> Iterator[Operation]:
    if runtime_class and not spec.get("runtimeClassName"):
        yield _add("/spec/runtimeClassName", runtime_class)


def _images(spec: Mapping[str, Any], pinned: Mapping[str, str]) -> Iterator[Operation]:
    for field in _CONTAINERS:
        for index, container in enumerate(spec.get(field) or ()):
            image = pinned.get(container.get("image", ""))
            if image is not None:
                yield {"op": "replace", "path": f"/spec/{field}/{index}/image", "value": image}


def _preferred(spec: Mapping[str, Any], cache_id: str) -> Iterator[Operation]:
    """A preference for nodes that hold the cache, after those there are; each missing level is made."""
    path = "/spec/affinity"
    affinity = spec.get("affinity")
    if not affinity:
        yield _add(path, {})
    node_affinity = (affinity or {}).get("nodeAffinity")
    if not node_affinity:
        yield _add(f"{path}/nodeAffinity", {})
    field = "preferredDuringSchedulingIgnoredDuringExecution"
    if not (node_affinity or {}).get(field):
        yield _add(f"{path}/nodeAffinity/{field}", [])
    label = {"key": keys.OURS + cache_id, "operator": "In", "values": ["ready"]}
    term = {"weight": _WEIGHT, "preference": {"matchExpressions": [label]}}
    yield _add(f"{path}/nodeAffinity/{field}/-", term)


def _add(path: str, value: Any) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _escaped(key: str) -> str:
    """As a step of a JSON Pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
