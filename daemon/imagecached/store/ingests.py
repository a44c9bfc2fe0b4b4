"""Unfinished layer files in ``ingest/``: created empty, filled by the layer writer, published or removed.

Invariants: an ingest's file is gone when it is closed unless it was published; while it is open its bytes
count against the budget and its DiffID is held.
"""

from __future__ import annotations

import os
from pathlib import Path

from imagecached.oci.digest import Digest
from imagecached.store.files import no_space
from imagecached.store.points import point
from imagecached.store.state import State


class Ingest:
    """A layer (or seam) being written. ``fd`` is open for reading and writing between :meth:`open` and
    :meth:`close`.
    """

    def __init__(self, state: State, digest: Digest) -> None:
        self.digest = digest
        self.path: Path = state.layout.new_ingest()
        self.fd = -1
        self.written = 0
        self.published = False
        self._state = state
        self._hold = state.hold(f"ingest {digest}")

    def open(self) -> None:
        """Create the file; nobody else has it."""
        self._hold.add((self.digest,))
        self._state.budget.writing.add(self)
        with no_space(f"layer {self.digest}"):
            self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        point("ingest.created")

    def check_space(self, written: int) -> None:
        """``written`` bytes are in the file so far: evict what may go if they are too many, else OutOfSpace.
        From any thread.
        """
        self.written = written
        if self._state.budget.shortage() > 0:
            self._state.make_room(0)

    def close(self) -> None:
        """Close the file, remove it unless it was published, and free its claim on the budget; harmless
        twice.
        """
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            if not self.published:
                self.path.unlink(missing_ok=True)
        self._state.budget.writing.discard(self)
        self._hold.release()
