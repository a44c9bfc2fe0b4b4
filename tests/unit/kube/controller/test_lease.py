"""Who may lead, as the record says it."""

from __future__ import annotations

from typing import Any

import pytest

from imagecached.kube.controller.lease import Record, Terms, may_take, observe, released, taken

TERMS = Terms(believed=15, renew=10, retry=2)
WALL = 1_700_000_000.25


def test_an_empty_lease_may_be_taken() -> None:
    """The first controller of a cluster leads at once."""
    record = taken(None, "a", TERMS, WALL)
    assert record == Record("a", 15, "2023-11-14T22:13:20.250000Z", "2023-11-14T22:13:20.250000Z", 0)
    assert Record.of({"spec": record.spec()}) == record


def test_a_leader_is_believed_from_when_we_saw_it_not_from_what_its_clock_said() -> None:
    """A clock that is hours off must neither make a second leader nor keep a dead one."""
    skewed = Record("a", 15, "1999-01-01T00:00:00.000000Z", "1999-01-01T00:00:00.000000Z")
    seen = observe(None, skewed, 100.0)
    assert not may_take(seen, "b", 114.9)
    assert may_take(seen, "b", 115.0)


def test_a_renewal_is_believed_anew() -> None:
    """The same record keeps its time, another one begins again."""
    first = observe(None, Record("a", 15, renewed="1"), 100.0)
    assert observe(first, Record("a", 15, renewed="1"), 110.0) == first
    assert not may_take(observe(first, Record("a", 15, renewed="2"), 110.0), "b", 120.0)


def test_a_released_lease_is_taken_at_once() -> None:
    """A controller that stops in order costs no waiting."""
    free = released(taken(None, "a", TERMS, WALL), WALL + 1)
    assert may_take(observe(None, free, 0.0), "b", 0.0)
    assert taken(free, "b", TERMS, WALL + 2).transitions == 1


def test_renewing_keeps_what_taking_wrote() -> None:
    """Transitions count leaders, and the time of taking is the leader's first."""
    first = taken(Record("a", 15, transitions=6), "b", TERMS, WALL)
    again = taken(first, "b", TERMS, WALL + 5)
    assert (first.transitions, again.transitions) == (7, 7)
    assert again.acquired == first.acquired
    assert again.renewed > first.renewed


@pytest.mark.parametrize(
    "lease",
    [
        {},
        {"spec": None},
        {"spec": []},
        {"spec": {"holderIdentity": 3, "leaseDurationSeconds": "15", "leaseTransitions": True}},
        {"spec": {"leaseDurationSeconds": -5}},
    ],
)
def test_a_lease_that_makes_no_sense_counts_as_free(lease: dict[str, Any]) -> None:
    """Objects can bypass every schema; a broken record must not stop the cluster's controllers for ever."""
    assert may_take(observe(None, Record.of(lease), 0.0), "b", 0.0)


def test_a_record_is_not_believed_for_ever() -> None:
    """Whoever writes a duration of a century does not switch the controllers off."""
    seen = observe(None, Record.of({"spec": {"holderIdentity": "x", "leaseDurationSeconds": 1 << 40}}), 0.0)
    assert not may_take(seen, "b", 3599.0)
    assert may_take(seen, "b", 3600.0)
