"""Quota, free floor and watermarks as numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.store.budget import Budget, Totals
from imagecached.store.records import StorePolicy, Usage


@dataclass(eq=False)
class Unfinished:
    """A file under way."""

    written: int


def budget(monkeypatch: pytest.MonkeyPatch, policy: StorePolicy, *, used: int, free: int) -> Budget:
    """A budget on a pretended file system."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))
    made = Budget(Path("/"), policy)
    made.totals = Totals(disk_bytes=used)
    return made


def test_the_quota_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Free space beyond it does not help."""
    made = budget(monkeypatch, StorePolicy(quota_bytes=100, free_bytes=0), used=60, free=1000)
    assert made.limit() == 100
    assert [made.shortage(more) for more in (0, 40, 41)] == [0, 0, 1]


def test_the_free_floor_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quota beyond the disk does not help either."""
    made = budget(monkeypatch, StorePolicy(quota_bytes=1000, free_bytes=30), used=60, free=50)
    assert made.limit() == 80
    assert [made.shortage(more) for more in (0, 20, 21)] == [0, 0, 1]


def test_others_may_have_eaten_into_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then we are short without writing anything, but never below zero."""
    assert budget(monkeypatch, StorePolicy(free_bytes=30), used=60, free=10).shortage() == 20
    assert budget(monkeypatch, StorePolicy(free_bytes=90), used=60, free=10).limit() == 0


def test_unfinished_files_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is being written is used already."""
    made = budget(monkeypatch, StorePolicy(quota_bytes=100, free_bytes=0), used=60, free=1000)
    made.writing.add(Unfinished(30))
    assert made.used() == 90


def test_excess_counts_from_the_high_to_the_low_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the high one there is none."""
    policy = StorePolicy(quota_bytes=100, free_bytes=0, gc_high=0.9, gc_low=0.5)
    assert budget(monkeypatch, policy, used=90, free=1000).excess() == 0
    assert budget(monkeypatch, policy, used=91, free=1000).excess() == 41
    assert budget(monkeypatch, policy, used=80, free=1000).excess(11) == 41


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_fits_breaks_no_bound(used: int, free: int, quota: int, floor: int) -> None:
    """After writing as much as is not short, quota and floor both hold, if they held before."""
    with pytest.MonkeyPatch.context() as patch:
        made = budget(patch, StorePolicy(quota_bytes=quota, free_bytes=floor), used=used, free=free)
        more = max(0, made.limit() - used)
        assert made.shortage(more) == made.shortage()
        assert made.shortage(more + 1) > 0
        if made.shortage() == 0:
            assert free - more >= min(floor, free)
            assert not quota or used + more <= max(quota, used)


@pytest.mark.parametrize(
    "wrong",
    [{"quota_bytes": -1}, {"free_bytes": -1}, {"gc_low": 0.95}, {"gc_low": 0}, {"gc_high": 1.1}],
)
def test_refuses_a_policy_that_makes_no_sense(wrong: dict[str, Any]) -> None:
    """The configuration's mistake, told at once."""
    with pytest.raises(InvalidInput):
        StorePolicy(**wrong)


def test_the_dedup_ratio_of_an_empty_store_is_one() -> None:
    """No division by zero in a metric."""
    usage = Usage(0, 0, 0, 0, 0, 0, 0, over_high=False)
    assert usage.dedup_ratio == 1.0
