"""Which labels of ours a node should have: the handler's, and one for each cache it holds. Pure.

Labels of others, also those under our prefix that we do not write, are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagecached.imagecache import cache_id
from imagecached.kube.controller.reports import NodeReport
from imagecached.kube.nodes import HANDLER_LABEL, PLACEMENT_PREFIX, READY, Node


def wanted(report: NodeReport | None, caches: Mapping[str, str]) -> set[str]:
    """The labels for a node that reports this; ``caches``: uid by name of the caches that there are.

    Where pods of our RuntimeClass cannot run a cache is of no use: no labels then.
    """
    if report is None or not report.handler:
        return set()
    held = (each for name, each in report.caches.items() if each.serving and caches.get(name) == each.uid)
    return {HANDLER_LABEL, *(PLACEMENT_PREFIX + cache_id(each.uid) for each in held)}


def patch(node: Node, labels: set[str]) -> dict[str, Any]:
    """The merge patch that gives the node exactly these labels of ours; empty when it has them."""
    changes: dict[str, str | None] = dict.fromkeys(sorted(labels - node.placed), READY)
    changes |= dict.fromkeys(sorted((node.placed | node.odd) - labels))
    return {"metadata": {"labels": changes}} if changes else {}
