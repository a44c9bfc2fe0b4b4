"""How much disk a directory takes: a walk with an end, remembered for a while.

The container runtime asks for every active snapshot every ten seconds, and a container may hold millions of
files. So a figure is reused as long as it is young compared with what it cost, and a walk that exceeds its
time gives what it has counted so far, or the last whole figure if that is more.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = 512  # unit of st_blocks, whatever the file system's block size
_LIMIT_SECONDS: Final = 2.0
_FRESH_SECONDS: Final = 5.0
_FRESH_COSTS: Final = 50  # never spend more than a fiftieth of the time on walking


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes allocated and inodes of one snapshot alone."""

    size: int = 0
    inodes: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """``whole``: the walk came to its end."""

    usage: Usage
    whole: bool
    at: float
    seconds: float


class Gauge:
    """Figures of directories, by a number of the caller's. From any thread, one walk at a time."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, limit_seconds: float = _LIMIT_SECONDS
    ) -> None:
        self._clock = clock
        self._limit = limit_seconds
        self._known: dict[int, Measured] = {}

    def recent(self, number: int) -> Usage | None:
        """The figure, if it is still young enough."""
        known = self._known.get(number)
        if known is None or self._clock() - known.at > max(_FRESH_SECONDS, known.seconds * _FRESH_COSTS):
            return None
        return known.usage

    def measure(self, number: int, directory: Path) -> Measured:
        """Walk ``directory`` now."""
        measured = measure(directory, self._clock, self._limit)
        known = self._known.get(number)
        if not measured.whole and known is not None and known.usage.size > measured.usage.size:
            measured = Measured(known.usage, whole=False, at=measured.at, seconds=measured.seconds)
        self._known[number] = measured
        return measured

    def forget(self, number: int) -> None:
        """The directory is gone, or its figure frozen."""
        self._known.pop(number, None)


def measure(directory: Path, clock: Callable[[], float], limit_seconds: float) -> Measured:
    """Bytes and inodes at and below ``directory``; a file with several names counts once."""
    begun = clock()
    size, inodes, seen = 0, 0, set[tuple[int, int]]()
    pending = [str(directory)]
    whole = True
    while pending:
        if clock() - begun > limit_seconds:
            whole = False
            break
        found, subdirectories = _look(pending.pop())
        pending += subdirectories
        for status in found:
            identity = status.st_dev, status.st_ino
            if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                if identity in seen:
                    continue
                seen.add(identity)
            size += status.st_blocks * _BLOCK
            inodes += 1
    now = clock()
    return Measured(Usage(size, inodes), whole, now, now - begun)


def _look(directory: str) -> tuple[list[os.stat_result], list[str]]:
    """What the directory itself and its files take, and its subdirectories. What vanishes takes nothing."""
    found: list[os.stat_result] = []
    subdirectories: list[str] = []
    with suppress(OSError):
        found.append(os.lstat(directory))
        with os.scandir(directory) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        subdirectories.append(entry.path)
                    else:
                        found.append(entry.stat(follow_symlinks=False))
    return found, subdirectories
