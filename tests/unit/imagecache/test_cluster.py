"""What many nodes report → one status."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import PHASES, NodeReport, Options, Status, aggregate
from imagecached.imagecache.status import Bytes
from tests.unit.imagecache.building import NOW, cache, edited, status

CACHE = cache("c", "nginx:1")
FLASH = replace(CACHE, options=Options(flash=True))
UP = {"a": True, "b": True}


def holds(generation: int = 1) -> NodeReport:
    return NodeReport("Ready", generation, generation, Bytes(100, 100, 40, 60))


def builds(done: int = 0, generation: int = 1) -> NodeReport:
    return NodeReport("Creating", generation, 0, Bytes(100, done, 0, done))


def failed(reason: str = "OutOfSpace", generation: int = 1) -> NodeReport:
    return NodeReport("Failed", generation, 0, Bytes(100, 10, 0, 10), reason, f"{reason} here")


def after(targets: dict[str, bool], reports: dict[str, NodeReport], before: Status | None = None) -> Status:
    return aggregate(CACHE, before or status(CACHE, "Creating"), targets, reports, NOW + 5)


@pytest.mark.parametrize(
    ("targets", "reports", "phase", "progress", "ready", "total"),
    [
        (UP, {}, "Creating", "0%", 0, 2),
        (UP, {"a": builds(50)}, "Creating", "25%", 0, 2),
        (UP, {"a": builds(50), "b": builds(100)}, "Creating", "75%", 0, 2),
        (UP, {"a": holds(), "b": builds(50)}, "Creating", "75%", 1, 2),
        (UP, {"a": holds(), "b": holds()}, "Ready", "100%", 2, 2),
        ({"a": True, "b": False}, {"a": holds()}, "Ready", "100%", 1, 2),
        ({"a": False, "b": False}, {"a": holds()}, "Creating", "0%", 1, 2),
        ({}, {"a": holds()}, "Creating", "0%", 0, 0),
        (UP, {"a": failed(), "b": builds(50)}, "Creating", "30%", 0, 2),
        (UP, {"a": failed(), "b": holds()}, "Ready", "100%", 1, 2),
        (UP, {"a": failed(), "b": failed()}, "Failed", "0%", 0, 2),
        ({"a": True, "b": False}, {"a": failed()}, "Failed", "0%", 0, 2),
        (UP, {"a": holds(7), "b": holds(7)}, "Creating", "0%", 0, 2),
        (UP, {"a": failed(generation=7), "b": failed(generation=7)}, "Creating", "0%", 0, 2),
        (UP, {"x": holds(), "y": holds()}, "Creating", "0%", 0, 2),
    ],
)
def test_a_build(
    targets: dict[str, bool],
    reports: dict[str, NodeReport],
    phase: str,
    progress: str,
    ready: int,
    total: int,
) -> None:
    """Ready when every target node that is up holds it; one that failed for good holds nobody up."""
    now = after(targets, reports)
    assert (now.phase, now.progress, now.nodes_ready, now.nodes_total) == (phase, progress, ready, total)


def test_bytes() -> None:
    """The nodes' bytes together, with a guess for those that have not begun."""
    assert after(UP, {"a": holds()}).bytes == Bytes(200, 100, 40, 60)
    assert after({**UP, "c": False}, {"a": holds(), "b": builds(5), "c": builds(5)}).bytes == Bytes(
        200, 105, 40, 65
    )


def test_flash() -> None:
    """With flash the first node that holds it is enough."""
    now = aggregate(FLASH, status(FLASH, "Creating"), UP, {"a": holds()}, NOW)
    assert (now.phase, now.nodes_ready, now.nodes_total) == ("Ready", 1, 2)
    everywhere = now.condition("AllNodes")
    assert everywhere is not None
    assert (everywhere.status, everywhere.message) == ("False", "1 of 2 nodes hold generation 1")


@pytest.mark.parametrize(
    "targets", [{"a": False, "b": True}, {"a": True, "b": True, "new": True}, {}, {"new": True}, UP]
)
@pytest.mark.parametrize("reports", [{}, {"a": holds()}, {"a": failed(), "b": failed(), "new": builds()}])
def test_ready_stays_ready(targets: dict[str, bool], reports: dict[str, NodeReport]) -> None:
    """Nodes that go down, join later, lose it or fail never make a Ready cache unready; they catch up."""
    now = after(targets, reports, status(CACHE, "Ready"))
    assert (now.phase, now.usable, now.progress) == ("Ready", True, "100%")


def test_messages() -> None:
    """Whoever waits reads why, with nodes by name."""
    many = {f"n{number}": True for number in range(6)}
    waiting = after(many, {"n0": failed()})
    assert waiting.message == "n0: OutOfSpace here; waiting for n1, n2, n3 and 2 more"
    assert after({"a": False}, {}).message == "none of its nodes is up"
    assert after({}, {}).message == "no node is chosen by its selector and platform"
    ready = after(UP, {"a": failed(), "b": holds()})
    assert ready.message == "a: OutOfSpace here"
    assert after(UP, {"a": holds(), "b": holds()}, ready).message == ""


def test_failure_says_why() -> None:
    """The most frequent reason, one node's own words, and how many more there are."""
    three = {"a": True, "b": True, "c": True}
    now = after(three, {"a": failed("AccessDenied"), "b": failed(), "c": failed("AccessDenied")})
    assert (now.phase, now.reason) == ("Failed", "AccessDenied")
    assert now.message == "a: AccessDenied here (and 2 more nodes)"


def test_an_update() -> None:
    """Nodes that hold the old generation count again only when they hold the new one."""
    updating = replace(status(CACHE, "Updating"))
    declared = edited(CACHE)
    now = aggregate(declared, updating, UP, {"a": holds(1), "b": holds(1)}, NOW)
    assert (now.phase, now.nodes_ready, now.serving_generation) == ("Updating", 0, 1)
    lost = aggregate(declared, updating, UP, {"a": failed(generation=2), "b": failed(generation=2)}, NOW)
    assert (lost.phase, lost.serving_generation, lost.usable) == ("UpdateFailed", 1, True)
    done = aggregate(declared, updating, UP, {"a": holds(2), "b": holds(2)}, NOW)
    assert (done.phase, done.serving_generation) == ("Ready", 2)


def test_nothing_new_is_the_same_object() -> None:
    """A report that changes nothing causes no write."""
    for reports in ({"a": builds(50)}, {"a": failed()}, {"a": holds(), "b": holds()}):
        once = after(UP, dict(reports))
        assert after(UP, dict(reports), once) is once


REPORT = st.builds(
    NodeReport,
    st.sampled_from(PHASES),
    st.integers(0, 2),
    st.integers(0, 2),
    st.builds(Bytes, *[st.integers(0, 100)] * 4),
)


@given(
    st.sampled_from(PHASES),
    st.dictionaries(st.sampled_from("abcd"), st.booleans()),
    st.dictionaries(st.sampled_from("abcd"), REPORT),
)
def test_any_reports(phase: str, targets: dict[str, bool], reports: dict[str, NodeReport]) -> None:
    """Whatever nodes say, what served serves, counts are right, and a second look changes nothing."""
    before = status(CACHE, phase)
    declared = edited(CACHE) if before.generation == 2 else CACHE
    now = aggregate(declared, before, targets, reports, NOW + 1)
    assert now.usable or not before.usable
    assert 0 <= now.nodes_ready <= now.nodes_total == len(targets)
    assert aggregate(declared, now, targets, reports, NOW + 2) is now
