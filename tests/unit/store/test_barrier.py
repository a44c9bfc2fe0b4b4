"""One sync for many commits: nobody returns before his own is durable."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagecached.errors import ImagecachedError, OutOfSpace
from imagecached.store.barrier import Barrier
from imagecached.store.state import State


class Disk:
    """``fdatasync`` that waits for the test, and says how often it was called."""

    def __init__(self) -> None:
        self.syncs = 0
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: OSError | None = None

    def fdatasync(self, fd: int) -> None:
        self.syncs += 1
        self.begun.release()
        assert self.go.acquire(timeout=10)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """In place of the real one."""
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk.fdatasync)
    return disk


@pytest.fixture
def barrier(tmp_path: Path) -> Iterator[Barrier]:
    """Over an empty log."""
    (tmp_path / "log").touch()
    barrier = Barrier(tmp_path / "log")
    yield barrier
    barrier.close()


def test_who_comes_during_a_sync_waits_for_the_next(barrier: Barrier, disk: Disk) -> None:
    """The one under way may have begun before his commit; the next one serves all who came meanwhile."""
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(barrier.wait, barrier.committed())
        assert disk.begun.acquire(timeout=10)
        others = [pool.submit(barrier.wait, barrier.committed()) for _ in range(8)]
        disk.go.release()
        first.result(10)
        assert disk.begun.acquire(timeout=10)
        assert not any(other.done() for other in others)
        disk.go.release()
        for other in others:
            other.result(10)
    assert disk.syncs == 2


def test_what_is_durable_already_costs_nothing(barrier: Barrier, disk: Disk) -> None:
    """A later commit's sync was his, too."""
    first, second = barrier.committed(), barrier.committed()
    disk.go.release()
    barrier.wait(second)
    barrier.wait(first)
    assert disk.syncs == 1


def test_a_sync_that_fails_is_everybodys_failure(barrier: Barrier, disk: Disk) -> None:
    """Each tries it himself and hears it; nobody is told that it went well."""
    disk.error = OSError(errno.EIO, "Input/output error")
    number = barrier.committed()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(barrier.wait, number) for _ in range(3)]
        for _ in waiting:
            disk.go.release()
        assert all(isinstance(each.exception(10), OSError) for each in waiting)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, OutOfSpace), (errno.EIO, ImagecachedError)])
def test_a_change_that_may_not_be_durable_is_an_error(
    state: State, disk: Disk, number: int, kind: type[Exception]
) -> None:
    """The caller of the database hears it in our words."""
    disk.error = OSError(number, os.strerror(number))
    disk.go.release()
    with pytest.raises(kind, match="database"):
        state.db.transact(lambda connection: connection.execute("DELETE FROM pins"))
