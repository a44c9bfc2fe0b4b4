"""Which nodes have our runtime handler: a pod that cannot run on any of them must not be sent to it. Pure.

Only names and labels count; taints and the rest of a pod's wishes are the scheduler's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

READY: Final = "imagecached.dev/handler=ready"
"""The label that the controller gives to nodes whose containerd has our runtime handler."""

Nodes = Mapping[tuple[str, str], Mapping[str, Any]]


def bare(node: dict[str, Any]) -> dict[str, Any]:
    """What of a Node is kept."""
    metadata = node["metadata"]
    kept = {key: metadata.get(key, "") for key in ("name", "uid", "resourceVersion")}
    return {"metadata": {**kept, "labels": metadata.get("labels") or {}}}


def can_start(nodes: Nodes, selector: Mapping[str, Any], bound_to: str) -> bool:
    """Is there a node with the handler among ``nodes`` that the pod may run on?

    ``selector``: the pod's nodeSelector. ``bound_to``: the one node it can run on, empty for any.
    """
    if bound_to:
        found = [nodes[key] for key in (("", bound_to),) if key in nodes]
    else:
        found = list(nodes.values()) if selector else list(nodes.values())[:1]
    return any(selector.items() <= node["metadata"]["labels"].items() for node in found)
