"""How many nodes fetch one cache at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import EVERYBODY, rollout_rank
from imagecached.kube.controller.rollout import at_once, widened


@pytest.mark.parametrize(("nodes", "bound"), [(0, 20), (10, 20), (400, 20), (1000, 50), (5000, 250)])
def test_the_bound_is_a_number_or_a_share_whichever_is_greater(nodes: int, bound: int) -> None:
    """A fixed number alone would make rollouts longer, and their traffic greater, than the cluster."""
    assert at_once(nodes, least=20, percent=5) == bound


def test_a_small_cluster_may_fetch_at_once() -> None:
    """Nobody waits where there is nothing to protect."""
    assert widened(0, [5, 60_000], bound=20) == EVERYBODY


@given(st.lists(st.integers(0, EVERYBODY - 1), max_size=300), st.integers(1, 50), st.integers(0, EVERYBODY))
def test_a_window_never_narrows_and_lets_in_no_more_than_the_bound(
    ranks: list[int], bound: int, window: int
) -> None:
    """Nodes with one rank go together: that is all by which the bound may be exceeded."""
    wider = widened(window, ranks, bound)
    assert wider >= window
    if window < wider < EVERYBODY:
        assert sum(1 for rank in set(ranks) if rank < wider) <= bound


@pytest.mark.parametrize("nodes", [200, 1000, 5000])
def test_a_rollout_takes_as_many_steps_in_a_cluster_of_any_size(nodes: int) -> None:
    """Each step is written to every node: were there more steps in a larger cluster, traffic would grow with
    the square of the nodes.
    """
    left = sorted(rollout_rank("uid", 1, f"n{number}") for number in range(nodes))
    bound, window, steps = at_once(nodes, least=1, percent=5), 0, 0
    while window < EVERYBODY:
        wider = widened(window, left, bound)
        steps += wider != window
        window = wider
        inside = [rank for rank in left if rank < window]
        del left[: max(1, len(inside) // 4)]  # a quarter of those that fetch come to an end
    assert 15 <= steps <= 45
