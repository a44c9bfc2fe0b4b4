"""How many bytes the store may use, and how many it does.

Two bounds, the tighter one counts: our own quota over layer files, seams and unfinished files; and the bytes
that are left free on the file system for everyone else. Reading it costs one statvfs.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagecached.store.records import StorePolicy


class Writing(Protocol):
    """A file under way: ``written`` bytes so far."""

    written: int


@dataclass(slots=True)
class Totals:
    """Sums over the rows, kept true by whoever changes them under the store's lock."""

    disk_bytes: int = 0
    logical_bytes: int = 0
    layers: int = 0
    images: int = 0
    snapshots: int = 0

    def add_layer(self, disk_bytes: int) -> None:
        """One more layer: summing all rows again for each would cost milliseconds in a large store."""
        self.disk_bytes += disk_bytes
        self.layers += 1


class Budget:
    """The bounds of one root. ``totals`` are the rows', ``writing`` the files that have none yet."""

    def __init__(self, root: Path, policy: StorePolicy) -> None:
        self.root = root
        self.policy = policy
        self.totals = Totals()
        self.writing: set[Writing] = set()

    def used(self) -> int:
        """Bytes of layer files, seams and unfinished files."""
        return self.totals.disk_bytes + sum(file.written for file in tuple(self.writing))

    def free(self) -> int:
        """Bytes an unprivileged writer could still use on the file system, before the floor."""
        facts = os.statvfs(self.root)
        return facts.f_bavail * facts.f_frsize

    def limit(self) -> int:
        """What :meth:`used` may grow to."""
        reachable = max(0, self.used() + self.free() - self.policy.free_bytes)
        return min(self.policy.quota_bytes, reachable) if self.policy.quota_bytes else reachable

    def shortage(self, more: int = 0) -> int:
        """Bytes that must be freed before ``more`` bytes fit; 0 if they do."""
        return max(0, self.used() + more - self.limit())

    def excess(self, more: int = 0) -> int:
        """Bytes to free down to the low watermark, once the high one would be passed with ``more`` bytes;
        else 0.
        """
        used, limit = self.used() + more, self.limit()
        if used <= self.policy.gc_high * limit:
            return 0
        return int(used - self.policy.gc_low * limit)
