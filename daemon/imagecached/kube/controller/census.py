"""All nodes and what they report, and which of them each cache is for. Holds values, does no I/O.

Invariant: what is remembered of a selection is dropped when any node changes in a way that could matter to
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from imagecached.imagecache import Options
from imagecached.kube.controller.reports import CacheReport, NodeReport
from imagecached.kube.nodes import Node, selection, selects


class Census:
    """``nodes`` and ``reports`` by node name."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.reports: dict[str, NodeReport] = {}
        self._selected: dict[tuple[object, ...], tuple[Node, ...]] = {}

    def see_node(self, name: str, node: Node | None) -> bool:
        """Take in the node called ``name`` as it is now, None if it is gone: may it matter to caches?"""
        before = self.nodes.pop(name, None)
        if node is not None:
            self.nodes[name] = node
        matters = _matter(before) != _matter(node)
        if matters:
            self._selected.clear()
        return matters

    def see_report(self, name: str, report: NodeReport | None) -> set[str]:
        """Take in what the node called ``name`` reports now; the caches that are reported otherwise."""
        before = self.reports.pop(name, None)
        if report is None:
            return set() if before is None else set(before.caches)
        self.reports[name] = report
        return report.changed(before)

    def targets(self, options: Options) -> tuple[Node, ...]:
        """The nodes that a cache with these options is for, whether or not a daemon runs there."""
        key = selection(options)
        if key not in self._selected:
            self._selected[key] = tuple(node for node in self.nodes.values() if selects(options, node))
        return self._selected[key]

    def reported(self, name: str, uid: str, options: Options) -> Iterator[tuple[Node, CacheReport | None]]:
        """The nodes that the cache is for and that have a daemon, with what each says of the cache."""
        for node in self.targets(options):
            report = self.reports.get(node.name)
            if report is not None:
                found = report.caches.get(name)
                yield node, found if found is not None and found.uid == uid else None

    def strays(self) -> list[NodeReport]:
        """Reports of nodes that are not there."""
        return [report for name, report in self.reports.items() if name not in self.nodes]

    def holders(self, name: str) -> Iterator[str]:
        """Names of the nodes that report the cache called ``name``."""
        return (node for node, report in self.reports.items() if name in report.caches)


def _matter(node: Node | None) -> tuple[object, ...] | None:
    """What caches ask of a node."""
    if node is None:
        return None
    labels: Mapping[str, str] = node.labels
    return node.up, node.schedulable, node.platform, node.taints, sorted(labels.items())
