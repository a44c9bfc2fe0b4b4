"""Leases in memory: what a running pull, mount or publish needs is not collected meanwhile.

A lease ends with its user, at the latest with the process. Adding to one never waits for gc to think, only
for its commit: gc calls :meth:`Holds.observe`, plans with what is held, and commits inside
:meth:`Holds.settled`, which fails if a lease has come to need what is about to go. So whoever adds first and
looks second never sees a file that is then removed, not even one who is done before gc is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager

from imagecached.oci.digest import Digest


class Contested(Exception):
    """A lease needs what was to be removed: plan again."""


class Hold:
    """What one ``owner`` needs for a while: DiffIDs, and ChainIDs with all below them. A context manager."""

    __slots__ = ("_holds", "owner")

    def __init__(self, holds: Holds, owner: str, digests: Iterable[Digest] = ()) -> None:
        self.owner = owner
        self._holds = holds
        self.add(digests)

    def add(self, digests: Iterable[Digest]) -> None:
        """From now on protect these too, whether they exist yet or not. Add first, then look."""
        self._holds.grow(self, digests)

    def release(self) -> None:
        """Need nothing any more; harmless twice."""
        self._holds.drop(self)

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Holds:
    """All leases of an open store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Hold, frozenset[Digest]] = {}
        self._observed: set[Digest] | None = None  # what was added since gc began to plan

    def grow(self, hold: Hold, digests: Iterable[Digest]) -> None:
        """Add ``digests`` to what ``hold`` protects."""
        added = frozenset(digests)
        with self._lock:
            self._held[hold] = self._held.get(hold, frozenset()) | added
            if self._observed is not None:
                self._observed |= added

    def drop(self, hold: Hold) -> None:
        """End ``hold``."""
        with self._lock:
            self._held.pop(hold, None)

    def digests(self) -> frozenset[Digest]:
        """Everything held."""
        with self._lock:
            return frozenset().union(*self._held.values())

    def observe(self) -> None:
        """From now until :meth:`settled`, remember what is added, even if its lease ends meanwhile."""
        with self._lock:
            self._observed = set()

    @contextmanager
    def settled(self, doomed: Set[Digest]) -> Iterator[None]:
        """No lease grows during the body; Contested instead if one was added that needs a ``doomed``."""
        with self._lock:
            if self._observed is not None and not self._observed.isdisjoint(doomed):
                raise Contested
            yield
            self._observed = None
