"""How many nodes fetch one cache at once: the window that the controller widens. Pure.

A node may begin when its rank in this rollout is below the window, so one small number in the object says
who, and no node is named. The bound is a share of the cluster as well as a number, and a window is widened
only when half of it is used up: a rollout takes the same number of steps in a cluster of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

from imagecached.imagecache import EVERYBODY


def at_once(nodes: int, *, least: int, percent: int) -> int:
    """How many of ``nodes`` may fetch at the same time."""
    return max(1, least, nodes * percent // 100)


def widened(window: int, ranks: Sequence[int], bound: int) -> int:
    """The next window, given the ``ranks`` of the nodes that have neither finished nor failed.

    Never narrower. Everybody, once no more than ``bound`` are left: who joins later need not wait.
    """
    if len(ranks) <= bound:
        return EVERYBODY
    fetching = sum(1 for rank in ranks if rank < window)
    if fetching * 2 > bound:
        return window
    return max(window, sorted(ranks)[bound - 1] + 1)
