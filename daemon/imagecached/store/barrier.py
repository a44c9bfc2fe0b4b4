"""Making commits durable after they were made: one sync of the write-ahead log for all that wait.

A commit is appended to the log and not synced by SQLite; who promised that it survives a power loss waits
here, without the store's lock. Invariant: :meth:`Barrier.wait` returns once everything that was committed
before its number was drawn is on the disk, that of others too, which the caller may have read.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from imagecached.store.files import sync_directory


class Barrier:
    """The write-ahead log of an open database. Any thread."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._fd = -1
        self._changed = threading.Condition()
        self._committed = 0
        self._durable = 0
        self._syncing = False

    def open(self) -> None:
        """Open the log, which is there once a database was read; harmless twice. OSError."""
        if self._fd < 0:
            # Locks of SQLite are on its other two files: closing this one drops none.
            self._fd = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
            sync_directory(self._log.parent)

    def committed(self) -> int:
        """Count a commit; to be called before another one can be made. Its number."""
        with self._changed:
            self._committed += 1
            return self._committed

    def wait(self, number: int) -> None:
        """Until that commit is durable. OSError: it may not be."""
        while (upto := self._turn(number)) is not None:
            try:
                self._sync()
            except BaseException:
                self._done(0)
                raise
            self._done(upto)

    def close(self) -> None:
        """The log is about to go; nobody may wait any more."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _turn(self, number: int) -> int | None:
        """Wait while another syncs; what the caller is to sync up to, None when ``number`` is durable."""
        with self._changed:
            while self._syncing and self._durable < number:
                self._changed.wait()
            if self._durable >= number:
                return None
            self._syncing = True
            return self._committed

    def _done(self, upto: int) -> None:
        with self._changed:
            self._syncing = False
            self._durable = max(self._durable, upto)
            self._changed.notify_all()

    def _sync(self) -> None:
        self.open()
        os.fdatasync(self._fd)
