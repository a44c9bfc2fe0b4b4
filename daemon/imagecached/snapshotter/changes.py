"""Changes to records, each with what belongs to it on disk: the acting half of ``rules``. Synchronous.

Each is one transaction. A directory is made before its record and put aside after it, so that whatever is
interrupted leaves at worst a directory without record, which the next start puts aside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from imagecached.errors import AlreadyExists, NotFound
from imagecached.oci.digest import Digest
from imagecached.snapshotter import rules
from imagecached.snapshotter.places import Places
from imagecached.snapshotter.rules import Caller, Moment
from imagecached.snapshotter.stacks import Mount, Stacks
from imagecached.store import Book, Kind, Record, Store

IsStale = Callable[[Caller, Record], bool]
"""Whether a record is left from a lost database. Unavailable: not known now."""

log = logging.getLogger(__name__)


class Changes:
    """What the methods of the door do in a thread; see there for their promises."""

    def __init__(
        self, store: Store, places: Places, stacks: Stacks, is_stale: IsStale, clock: Callable[[], int]
    ) -> None:
        self._store = store
        self._ledger = store.ledger
        self._places = places
        self._stacks = stacks
        self._is_stale = is_stale
        self._clock = clock

    def prepare(self, caller: Caller, key: str, parent: str, labels: Mapping[str, str]) -> tuple[Mount, ...]:
        """A new active snapshot, unless the store holds what it is to become."""
        rules.check_labels(labels)
        chain_id = rules.named_chain(labels)
        if chain_id is not None and self._adopt(caller, chain_id, parent, labels):
            raise AlreadyExists(f"snapshot {chain_id} is prepared")
        return self.open(caller, key, "active", parent, labels)

    def _adopt(self, caller: Caller, chain_id: Digest, parent: str, labels: Mapping[str, str]) -> bool:
        """Whether the store holds the chain; if so it has a record afterwards."""
        with self._store.hold(f"adopt {chain_id}", [chain_id]):  # until its record keeps it
            snapshot = self._store.snapshot(chain_id)
            if snapshot is None:
                return False
            moment = self._moment()

            def body(book: Book) -> bool:
                if book.prepared(caller.snapshotter, chain_id, parent) is not None:
                    return True
                below = book.find(caller.snapshotter, parent) if parent else None
                if (parent and below is None) or not rules.stands_on(below, snapshot.parent):
                    return False
                book.put(rules.adopted(caller, chain_id, below, labels, moment))
                return True

            return self._ledger.change(body)

    def open(
        self, caller: Caller, key: str, kind: Kind, parent: str, labels: Mapping[str, str]
    ) -> tuple[Mount, ...]:
        """A new active snapshot or view, and how to mount it."""
        rules.check_name(key, "key")
        rules.check_labels(labels)
        moment = self._moment()

        def body(book: Book) -> tuple[Record, list[Record]]:
            stale = self._make_way(book, caller, key)
            below = _found(book, caller, parent) if parent else None
            record = rules.opened(caller, key, kind, below, labels, moment)
            book.put(record)
            return record, stale

        if kind == "active" or not parent:
            self._places.make(moment.number)
        try:
            record, stale = self._ledger.change(body)
        except BaseException:
            self._places.discard(moment.number)
            raise
        self._discard(stale)
        try:
            return self._stacks.mounts(record, fresh=True)
        except BaseException as error:
            if not self._withdraw(record):
                raise NotFound(f"snapshot {key} was removed meanwhile") from error
            raise

    def _withdraw(self, record: Record) -> bool:
        """Forget what was just made; False if somebody else did, and another may have the name now."""

        def body(book: Book) -> bool:
            found = book.find(record.snapshotter, record.name)
            if found is None or found.number != record.number:
                return False
            book.drop(record)
            return True

        withdrawn = self._ledger.shrink(body)
        if withdrawn:
            self._discard([record])
        return withdrawn

    def commit(self, caller: Caller, name: str, key: str, labels: Mapping[str, str], given: str) -> None:
        """An active snapshot becomes a committed one; ``given`` is the parent of the request."""
        rules.check_name(name, "name")
        rules.check_labels(labels)
        now = self._clock()

        def body(book: Book) -> list[Record]:
            active = book.find(caller.snapshotter, key)
            if active is not None and name == key:
                raise AlreadyExists(f"snapshot {name} already exists")
            stale = self._make_way(book, caller, name)
            parent = book.find(caller.snapshotter, given) if given else None
            done = rules.committed(name, active, parent, labels, key=key, given_name=given, now=now)
            book.drop(_found(book, caller, key))
            book.put(done)
            return stale

        self._discard(self._ledger.change(body))

    def remove(self, caller: Caller, key: str) -> Record:
        """Forget a snapshot and put its directory aside; the record it had."""

        def body(book: Book) -> Record:
            record = book.find(caller.snapshotter, key)
            record = rules.check_removal(key, record, book.children(caller.snapshotter, key))
            book.drop(record)
            return record

        record = self._ledger.shrink(body)
        self._discard([record])
        return record

    def update(self, caller: Caller, name: str, labels: Mapping[str, str], mask: Sequence[str]) -> Record:
        """Change labels."""
        now = self._clock()

        def body(book: Book) -> Record:
            record = rules.relabelled(_found(book, caller, name), labels, mask, now)
            book.put(record)
            return record

        return self._ledger.change(body)

    def _make_way(self, book: Book, caller: Caller, name: str) -> list[Record]:
        """See that ``name`` is free: AlreadyExists, unless who has it is stale. What was dropped with it."""
        existing = book.find(caller.snapshotter, name)
        if existing is not None and not self._is_stale(caller, existing):
            raise AlreadyExists(f"snapshot {name} already exists")
        dropped, pending = [], [existing] if existing else []
        while pending:
            record = pending.pop()
            children = book.children(caller.snapshotter, record.name)
            pending += [child for child in (book.find(caller.snapshotter, one) for one in children) if child]
            book.drop(record)
            dropped.append(record)
        if dropped:
            log.warning("stale snapshots replaced", extra={"snapshot": name, "records": len(dropped)})
        return dropped

    def _discard(self, records: Sequence[Record]) -> None:
        for record in records:
            self._places.discard(record.number)

    def _moment(self) -> Moment:
        return Moment(self._clock(), self._places.next_number())


def _found(book: Book, caller: Caller, name: str) -> Record:
    record = book.find(caller.snapshotter, name)
    if record is None:
        raise NotFound(f"no snapshot {name}")
    return record
