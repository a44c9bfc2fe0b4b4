"""What a report says, and when it may be written: the figures that a cluster of thousands depends on."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import Bytes, Status
from imagecached.kube.agent.report import (
    MOST_CACHES,
    Entry,
    Report,
    Writing,
    bounded,
    entry_of,
    failed_entry,
    urgency,
)

EMPTY = Report("1", "linux/amd64", handler=True, disk_bytes=0, disk_budget_bytes=3200, caches={})


def _entry(uid: str = "u", **fields: Any) -> Entry:
    return {"name": uid, "uid": uid, "generation": 1, "phase": "Creating", **fields}


def _with(*entries: Entry) -> Report:
    return replace(EMPTY, caches=bounded(entries))


_READY = _entry(phase="Ready", servingGeneration=1)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (EMPTY, EMPTY, "none"),
        (EMPTY, _with(_entry()), "soon"),
        (_with(_entry()), _with(_entry(bytesDone=5)), "soon"),
        (_with(_entry()), _with(_READY), "now"),
        (_with(_entry()), _with(_entry(phase="Failed")), "now"),
        (_with(_READY), _with({**_READY, "message": "more"}), "soon"),
        (_with(_READY), _with({**_READY, "phase": "Updating", "generation": 2}), "soon"),
        (_with(_READY), EMPTY, "now"),
        (EMPTY, replace(EMPTY, handler=False), "now"),
        (EMPTY, replace(EMPTY, version="2"), "now"),
        (EMPTY, replace(EMPTY, disk_bytes=99), "none"),
        (EMPTY, replace(EMPTY, disk_budget_bytes=3110), "none"),
        (EMPTY, replace(EMPTY, disk_budget_bytes=3000), "whenever"),
        (EMPTY, replace(EMPTY, disk_bytes=100), "whenever"),
    ],
)
def test_who_waits_for_a_change(before: Report, after: Report, expected: str) -> None:
    """What others act on is urgent; how far it is is not; a disk that breathes is nothing."""
    assert urgency(before, after) == expected


def _writing(written: Report | None = EMPTY, at: float = 0.0) -> Writing:
    writing = Writing(random.Random(1))
    writing.wrote(written, at)
    return writing


def test_the_first_report_is_written_at_once() -> None:
    """Nobody knows what the object says."""
    assert Writing(random.Random(1)).wait(EMPTY, 5.0, 10) == 0.0


def test_urgent_changes_wait_a_second_after_the_last_write_at_most() -> None:
    """At once when it was quiet; in a large cluster, all nodes together write 250 times a second at most."""
    writing = _writing(at=100.0)
    assert writing.wait(_with(_READY), 100.25, 100) == 0.75
    assert writing.wait(_with(_READY), 100.25, 5000) == 19.75
    assert writing.wait(_with(_READY), 300.0, 5000) == 0.0


@pytest.mark.parametrize(("nodes", "pause"), [(10, 5), (500, 5), (5000, 50)])
def test_progress_waits_the_longer_the_larger_the_cluster(nodes: int, pause: float) -> None:
    """Each write goes to every controller: five seconds, a hundred nodes a second."""
    writing = _writing(at=0.0)
    found = writing.wait(_with(_entry()), 0.0, nodes)
    assert found is not None
    assert 0.75 * pause <= found <= 1.25 * pause


def test_a_build_that_is_quick_is_one_write() -> None:
    """Creating is not told when Ready follows within seconds."""
    writing = _writing(at=-1000.0)
    waits = writing.wait(_with(_entry()), 0.0, 10)
    assert waits is not None
    assert waits >= 3
    assert writing.wait(_with(_READY), 2.0, 10) == 0.0


def test_the_wait_for_progress_does_not_begin_anew_with_each_byte() -> None:
    """It counts from the first change that was not told."""
    writing = _writing(at=-1000.0)
    first = writing.wait(_with(_entry(bytesDone=1)), 0.0, 10)
    later = writing.wait(_with(_entry(bytesDone=2)), 3.0, 10)
    assert first is not None
    assert later == pytest.approx(first - 3.0)


def test_the_disk_alone_is_told_rarely() -> None:
    """Minutes apart."""
    writing = _writing(at=0.0)
    found = writing.wait(replace(EMPTY, disk_bytes=3000), 1.0, 10)
    assert found is not None
    assert found > 400


def test_what_is_taken_back_is_not_written() -> None:
    """A change that was undone before its time."""
    writing = _writing()
    assert writing.wait(_with(_entry()), 1.0, 10) is not None
    assert writing.wait(EMPTY, 2.0, 10) is None


@given(st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["Ready", "Failed", "Creating"])), max_size=60))
def test_never_more_than_one_write_a_second(steps: list[tuple[float, str]]) -> None:
    """However fast things change."""
    writing, now, writes = _writing(at=-10.0), 0.0, [-10.0]
    for number, (seconds, phase) in enumerate(steps):
        now += seconds
        wanted = _with(_entry(phase=phase, servingGeneration=number))
        if writing.wait(wanted, now, 100) == 0.0:
            writing.wrote(wanted, now)
            writes.append(now)
    assert all(later - earlier > 0.999999 for earlier, later in itertools.pairwise(writes))


def test_a_report_is_read_back_as_it_was_written() -> None:
    """So that a restart that changes nothing writes nothing."""
    report = _with(_entry("b", bytesDone=3), _entry("a"))
    assert Report.of(report.document("2026-01-01T00:00:00Z")) == report


@pytest.mark.parametrize(
    "said",
    [None, [], "x", {"caches": 3}, {"caches": [1, {"name": "x"}]}, {"diskBytes": "a", "handlerReady": 1}],
)
def test_a_report_that_makes_no_sense_says_nothing(said: Any) -> None:
    """Somebody else may have written it."""
    assert Report.of(said) == Report("", "", handler=False, disk_bytes=0, disk_budget_bytes=0, caches={})


def test_entries_leave_out_what_is_zero() -> None:
    """Thousands of nodes times hundreds of caches: each byte counts."""
    status = Status(phase="Ready", generation=2, serving_generation=2, bytes=Bytes(10, 10, 0, 10))
    assert entry_of("one", "u", status) == {
        "name": "one", "uid": "u", "generation": 2, "phase": "Ready", "servingGeneration": 2,
        "bytesTotal": 10, "bytesDone": 10, "bytesFetched": 10,
    }  # fmt: skip


def test_a_build_that_has_not_begun_is_not_mentioned() -> None:
    """Unless it says why."""
    assert entry_of("one", "u", Status(generation=1)) is None
    waiting = entry_of("one", "u", Status(generation=1, reason="RegistryUnavailable"))
    assert waiting is not None
    assert waiting["reason"] == "RegistryUnavailable"


def test_a_build_that_cannot_begin_beside_one_that_serves() -> None:
    """UpdateFailed keeps what serves; without anything it is Failed."""
    failed = failed_entry("one", "u", 2, _READY, "SecretNotFound", "x" * 5000)
    assert (failed["phase"], failed["generation"], failed["servingGeneration"]) == ("UpdateFailed", 2, 1)
    assert len(failed["message"]) == 1024
    assert failed_entry("one", "u", 1, None, "SecretNotFound", "")["phase"] == "Failed"


def test_a_report_is_bounded() -> None:
    """In a fixed order, so that the same caches are left out each time."""
    entries = [_entry(f"u{number:05}") for number in range(MOST_CACHES + 10)]
    kept = bounded(reversed(entries))
    assert len(kept) == MOST_CACHES
    assert next(iter(kept)) == "u00000"
