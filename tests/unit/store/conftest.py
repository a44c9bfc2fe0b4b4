"""A fresh store per test, with a clock that ticks one second per look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagecached.store.points import disarm
from imagecached.store.state import State
from tests.unit.store.building import Clock, opened


@pytest.fixture(autouse=True)
def no_point_stays_armed() -> Iterator[None]:
    """What a test arms ends with it."""
    yield
    disarm()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store of a test is; not there yet."""
    return tmp_path / "root"


@pytest.fixture
def clock() -> Clock:
    """The clock of ``state``."""
    return Clock()


@pytest.fixture
def state(root: Path, clock: Clock) -> Iterator[State]:
    """An open, empty store without bounds."""
    with opened(root, clock=clock) as (state, _):
        yield state
