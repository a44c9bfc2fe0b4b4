"""What the parts of one open store share. No behaviour beyond keeping the sums."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from imagecached.errors import OutOfSpace
from imagecached.layers.limits import Limits
from imagecached.oci.digest import Digest
from imagecached.store.budget import Budget, Totals
from imagecached.store.db import Database
from imagecached.store.holds import Hold, Holds
from imagecached.store.layout import Layout
from imagecached.store.root import Root

InUse = Callable[[], frozenset[Digest]]
"""The DiffIDs and ChainIDs that are in use outside the store right now; asked each time gc decides."""

Yielding = Callable[[], Mapping[str, float]]
"""Owners whose pins give way when bytes are wanted, with their last use; asked each time gc decides."""

_TOTALS = """
    SELECT (SELECT coalesce(sum(disk_bytes), 0) FROM layers)
           + (SELECT coalesce(sum(seam_bytes), 0) FROM snapshots),
           (SELECT coalesce(sum(s.disk_bytes), 0) FROM images i JOIN snapshots s USING (chain_id)),
           (SELECT count(*) FROM layers), (SELECT count(*) FROM images), (SELECT count(*) FROM snapshots)
"""


def _no_room(more: int) -> None:
    raise OutOfSpace(f"{more} bytes more do not fit")


@dataclass(slots=True)
class State:
    """An open store: the claimed root, its database, and what lives in memory only."""

    root: Root
    db: Database
    budget: Budget
    holds: Holds
    limits: Limits = field(default_factory=Limits)
    clock: Callable[[], float] = time.time
    in_use: list[InUse] = field(default_factory=list)
    yielding: list[Yielding] = field(default_factory=list)
    touched: dict[str, float] = field(default_factory=dict)  # image name → last use, until it is written
    publishing: threading.Lock = field(
        default_factory=threading.Lock
    )  # one layer at a time, taken before the store's lock
    make_room: Callable[[int], object] = _no_room  # frees what so many more bytes need, or OutOfSpace

    @property
    def layout(self) -> Layout:
        return self.root.layout

    def hold(self, owner: str, digests: Iterable[Digest] = ()) -> Hold:
        """A lease that keeps ``digests`` from gc until it is released."""
        return Hold(self.holds, owner, digests)

    def refresh(self) -> None:
        """Sum the rows again after they changed."""
        with self.db.lock:
            self.budget.totals = Totals(*self.db.survey(_TOTALS)[0])

    def close(self) -> None:
        """Close the database and give up the root."""
        self.db.close()
        self.root.release()
