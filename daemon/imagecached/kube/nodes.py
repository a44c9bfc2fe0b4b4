"""Nodes as the controller and the agents see them, and which of them a cache is for. Pure.

A Node is cut down to what is asked of it, so that thousands cost little. Objects may bypass every schema:
what has a wrong type counts as not there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import Options, is_cache_id
from imagecached.kube.shared import Shared
from imagecached.oci.platform import Platform

PLACEMENT_PREFIX: Final = "imagecached.dev/"
HANDLER_LABEL: Final = f"{PLACEMENT_PREFIX}handler"
READY: Final = "ready"
_CORDONED: Final = "node.kubernetes.io/unschedulable"
_HARD_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})
_PASSING: Final = frozenset(
    {
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.kubernetes.io/memory-pressure",
        "node.kubernetes.io/disk-pressure",
        "node.kubernetes.io/pid-pressure",
        "node.kubernetes.io/network-unavailable",
    }
)
"""Taints of a passing state: a node that is not ready is *down*, not out of the cache's reach."""


_SETS: Final[Shared[frozenset[str]]] = Shared(most=4096)


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Node:
    """``up``: the kubelet says so. ``labels`` are those we do not write; ``placed`` are ours that say ready,
    ``odd`` ours that say something else.
    """

    name: str
    uid: str
    up: bool
    schedulable: bool
    platform: Platform | None
    labels: Mapping[str, str] = field(hash=False)
    taints: tuple[Taint, ...] = ()
    placed: frozenset[str] = frozenset()
    odd: frozenset[str] = frozenset()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Node:
        """The node in an API object. InvalidInput: it has no name."""
        metadata, spec, status = (_mapping(document.get(part)) for part in ("metadata", "spec", "status"))
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidInput("a Node without metadata.name")
        labels = _texts(metadata.get("labels"))
        ours = frozenset(key for key in labels if is_ours(key))
        return cls(
            name=sys.intern(name),
            uid=_text(metadata.get("uid")),
            up=_is_ready(status),
            schedulable=spec.get("unschedulable") is not True,
            platform=_platform(_mapping(status.get("nodeInfo")), labels),
            labels={sys.intern(key): sys.intern(labels[key]) for key in labels if key not in ours},
            taints=tuple(_taints(spec.get("taints"))),
            placed=_SETS.of(frozenset(sys.intern(key) for key in ours if labels[key] == READY)),
            odd=frozenset(key for key in ours if labels[key] != READY),
        )


def is_ours(label: str) -> bool:
    """Is it a label that the controller writes?"""
    return label == HANDLER_LABEL or (
        label.startswith(PLACEMENT_PREFIX) and is_cache_id(label.removeprefix(PLACEMENT_PREFIX))
    )


def selects(options: Options, node: Node) -> bool:
    """Is ``node``, up or down, one that the cache is for? Without options: every schedulable Linux node."""
    if not _fits(options, node.platform):
        return False
    if not all(node.labels.get(key) == value for key, value in options.node_selector.items()):
        return False
    if not node.schedulable and not _tolerated(options, Taint(_CORDONED, "", "NoSchedule")):
        return False
    return all(_tolerated(options, taint) for taint in node.taints if taint.key not in _PASSING)


def selection(options: Options) -> tuple[object, ...]:
    """What :func:`selects` asks of the options: equal for caches that are for the same nodes."""
    return options.platform, tuple(sorted(options.node_selector.items())), options.tolerations


def platforms(nodes: Iterable[Node]) -> tuple[Platform, ...]:
    """The platforms among ``nodes``, in a fixed order."""
    return tuple(sorted({node.platform for node in nodes if node.platform}, key=str))


def _fits(options: Options, offered: Platform | None) -> bool:
    if offered is None or offered.os != "linux":
        return False
    return options.platform is None or offered.rank(options.platform) is not None


def _tolerated(options: Options, taint: Taint) -> bool:
    if taint.effect not in _HARD_EFFECTS:
        return True
    return any(each.tolerates(taint.key, taint.value, taint.effect) for each in options.tolerations)


def _is_ready(status: Mapping[str, Any]) -> bool:
    found = status.get("conditions")
    conditions = found if isinstance(found, list) else []
    return any(
        isinstance(each, Mapping) and each.get("type") == "Ready" and each.get("status") == "True"
        for each in conditions
    )


def _platform(info: Mapping[str, Any], labels: Mapping[str, str]) -> Platform | None:
    os = _text(info.get("operatingSystem")) or labels.get("kubernetes.io/os", "")
    architecture = _text(info.get("architecture")) or labels.get("kubernetes.io/arch", "")
    return Platform.of(os, architecture) if os and architecture else None


def _taints(found: Any) -> Iterable[Taint]:
    for each in found if isinstance(found, list) else []:
        if isinstance(each, Mapping) and isinstance(each.get("key"), str):
            yield Taint(each["key"], _text(each.get("value")), _text(each.get("effect")))


def _texts(found: Any) -> dict[str, str]:
    items = found.items() if isinstance(found, Mapping) else ()
    return {key: value for key, value in items if isinstance(key, str) and isinstance(value, str)}


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _text(found: Any) -> str:
    return found if isinstance(found, str) else ""
