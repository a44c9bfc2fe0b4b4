"""Many reports as one value, and what they come to."""

from __future__ import annotations

import pytest

from imagecached.imagecache import EVERYBODY, Bytes, rollout_rank
from imagecached.kube.controller.reports import CacheReport
from imagecached.kube.controller.tally import Tally, count
from imagecached.kube.nodes import Node
from tests.unit.kube.controller.building import node, ranked, report

DOWN = object()


def tally(*reports: CacheReport | None, down: int = 0, window: int = EVERYBODY, generation: int = 1) -> Tally:
    """One node for each report; the first ``down`` of them are down."""
    pairs: list[tuple[Node, CacheReport | None]] = [
        (node(f"n{number}", up=number >= down), each) for number, each in enumerate(reports)
    ]
    return count(pairs, uid="uid-web", generation=generation, window=window)


@pytest.mark.parametrize(
    ("reports", "down", "outcome"),
    [
        ([report(), report()], 0, "done"),
        ([report(), report("Creating")], 0, None),
        ([report(), None], 0, None),
        ([None, report()], 1, "done"),  # the one that is down catches up later
        ([None, None], 2, None),  # nobody is there to hold it
        ([], 0, None),
        ([report("Failed"), report()], 0, "done"),  # one bad node does not keep the others from serving
        ([report("Failed"), report("Failed")], 0, "failed"),
        ([report("Failed"), report("Creating")], 0, None),
        ([report(generation=2), report(generation=1)], 0, None),  # an older build does not count
    ],
)
def test_what_the_nodes_come_to(reports: list[CacheReport | None], down: int, outcome: str | None) -> None:
    """Ready when every node that is up holds it; down nodes never stand in the way."""
    generation = max((each.generation for each in reports if each), default=1)
    assert tally(*reports, down=down, generation=generation).outcome == outcome


def test_a_build_that_only_fails_is_given_up_before_every_node_tried() -> None:
    """A broken image must not be fetched by thousands of nodes one window after the other."""
    names = ranked(10)
    window = rollout_rank("uid-web", 1, names[3])
    pairs = [(node(name), report("Failed") if number < 3 else None) for number, name in enumerate(names)]
    found = count(pairs, uid="uid-web", generation=1, window=window)
    assert (found.failed, found.open, found.fetching) == (3, 7, 0)
    assert found.outcome == "failed"


def test_one_success_keeps_a_build_going() -> None:
    """The failures are those nodes' own then."""
    names = ranked(10)
    window = rollout_rank("uid-web", 1, names[4])
    states = [report(), *[report("Failed")] * 3, *[None] * 6]
    pairs = list(zip(map(node, names), states, strict=True))
    assert count(pairs, uid="uid-web", generation=1, window=window).outcome is None


def test_nodes_that_are_down_hold_what_they_held() -> None:
    """A cache does not lose its nodes with every reboot."""
    found = tally(report(), report(), down=1)
    assert (found.ready, found.total) == (2, 2)


def test_silent_nodes_are_not_waited_for() -> None:
    """A daemon that hangs on one node must not keep a cache from the others."""
    pairs = [(node("a"), report()), (node("b"), report("Creating"))]
    found = count(pairs, uid="uid-web", generation=1, window=EVERYBODY, silent={"b"})
    assert (found.ready, found.silent, found.open) == (1, 1, 0)
    assert found.outcome == "done"


def test_who_fetches_is_who_the_window_lets_in() -> None:
    """The others wait for their turn and are not counted as fetching."""
    names = ranked(100)
    window = rollout_rank("uid-web", 1, names[20])
    found = count([(node(name), None) for name in names], uid="uid-web", generation=1, window=window)
    assert (found.fetching, found.open) == (20, 100)


def test_bytes_are_summed_and_the_silent_majority_needs_as_much_as_the_others() -> None:
    """Progress must not jump to 100 % because the first node is done before the second has begun."""
    found = tally(
        report(done=100, fetched=70, reused=30), report("Creating", done=50, fetched=50), None, None
    )
    assert found.moved == Bytes(total=400, done=150, reused=30, fetched=120)


def test_a_report_that_claims_more_than_all_counts_as_all() -> None:
    """Numbers from outside cannot push progress beyond its end."""
    assert tally(report("Creating", done=10_000), None).moved == Bytes(total=200, done=100)


def test_the_most_common_failure_is_the_one_that_is_told() -> None:
    """A thousand nodes' messages do not fit a status."""
    full = report("Failed", reason="OutOfSpace", message="disk is full")
    odd = report("Failed", reason="Corrupt", message="digest differs")
    assert tally(full, odd, full).failure == ("OutOfSpace", "disk is full")
