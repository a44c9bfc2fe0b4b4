"""The ledger: what the container runtime knows as snapshots, a record per snapshotter and backend name.

A record is a row and nothing else: which transitions are allowed is decided by the caller, inside
:meth:`Ledger.change`, which is atomic. A record of a prepared chain carries its ChainID; that alone keeps
the chain from gc, so there is nothing that could fall out of step. Invariants: a record is replaced as a
whole, never edited; ``number`` is unique over all snapshotters and is not given twice while this store is
open. (In the queries, ``+snapshotter`` keeps SQLite from taking that for an index: nearly all records share
it.)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import msgspec

from imagecached.oci.digest import Digest
from imagecached.store import schema
from imagecached.store.db import Row
from imagecached.store.state import State

T = TypeVar("T")
Kind = Literal["active", "view", "committed"]

REF: Final = "containerd.io/snapshot.ref"
"""The label that says which ChainID a snapshot is to be, or is."""

_COLUMNS: Final = (
    "snapshotter, name, number, kind, parent, chain_id, ref, labels, created, updated, bytes, inodes"
)
_SELECT: Final = f"SELECT {_COLUMNS} FROM records"  # noqa: S608 our own columns
_LINE: Final = f"""
    WITH RECURSIVE line (depth, snapshotter, name) AS (
      SELECT 0, ?, ?
      UNION ALL
      SELECT depth + 1, r.snapshotter, r.parent FROM line JOIN records r USING (snapshotter, name)
      WHERE r.chain_id IS NULL AND r.parent <> ''
    )
    SELECT {_COLUMNS} FROM line JOIN records USING (snapshotter, name) ORDER BY depth
"""  # noqa: S608 our own columns
_NEEDED: Final = """
    WITH RECURSIVE line (snapshotter, name) AS (
      SELECT snapshotter, parent FROM records WHERE kind <> 'committed' AND parent <> ''
      UNION
      SELECT r.snapshotter, r.parent FROM line JOIN records r USING (snapshotter, name)
      WHERE r.chain_id IS NULL AND r.parent <> ''
    )
    SELECT DISTINCT chain_id FROM line JOIN records USING (snapshotter, name) WHERE chain_id IS NOT NULL
"""
_LOWEST: Final = """
    SELECT min(r.number) FROM snapshots s JOIN records r ON r.chain_id = s.chain_id
    WHERE s.diff_id = (SELECT diff_id FROM snapshots WHERE chain_id = ?)
"""
_PAGE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One snapshot of the runtime: ``name`` is the key of an active one or a view.

    ``number`` names its directory; ``chain_id`` is set where the content is a prepared chain of ours instead;
    ``parent`` is "" for none; times are nanoseconds since the epoch; ``size`` (bytes) and ``inodes`` are
    frozen once the content can no longer change.
    """

    snapshotter: str
    name: str
    number: int
    kind: Kind
    parent: str
    labels: Mapping[str, str]
    created: int
    updated: int
    chain_id: Digest | None = None
    size: int | None = None
    inodes: int | None = None


class Book:
    """The ledger inside one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, snapshotter: str, name: str) -> Record | None:
        """The record, or None."""
        rows = self._read(f"{_SELECT} WHERE snapshotter = ? AND name = ?", snapshotter, name)
        return _record(rows[0]) if rows else None

    def prepared(self, snapshotter: str, chain_id: Digest, parent: str) -> Record | None:
        """The record of a prepared chain with exactly this parent text."""
        sql = f"{_SELECT} WHERE chain_id = ? AND +snapshotter = ? AND +parent = ?"
        rows = self._read(sql, str(chain_id), snapshotter, parent)
        return _record(rows[0]) if rows else None

    def children(self, snapshotter: str, name: str) -> list[str]:
        """Names of the records whose parent this is."""
        sql = "SELECT name FROM records WHERE +snapshotter = ? AND parent = ?"
        return [row[0] for row in self._read(sql, snapshotter, name)]

    def put(self, record: Record) -> None:
        """Write ``record``, in place of one with its name."""
        self.drop(record)
        before = self._connection.total_changes
        schema.insert(self._connection, "records", _sealed(record))
        assert self._connection.total_changes > before, "a number was given twice"

    def drop(self, record: Record) -> None:
        """Delete ``record``, if it is there."""
        self._connection.execute(
            "DELETE FROM records WHERE snapshotter = ? AND name = ?", (record.snapshotter, record.name)
        )

    def _read(self, sql: str, *values: object) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()


class Ledger:
    """The ledger of an open store. Reads answer at once; a change takes a sync of the disk and may come from
    any thread but the event loop's.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._db = state.db

    def find(self, snapshotter: str, name: str) -> Record | None:
        """The record, or None."""
        rows = self._db.read(f"{_SELECT} WHERE snapshotter = ? AND name = ?", snapshotter, name)
        return _record(rows[0]) if rows else None

    def line(self, snapshotter: str, name: str) -> list[Record]:
        """The record and those below it, down to the first that is a prepared chain; empty if none exists."""
        return [_record(row) for row in self._db.read(_LINE, snapshotter, name)]

    def by_ref(self, snapshotter: str, ref: str) -> list[Record]:
        """The records whose label :data:`REF` is ``ref``, prepared ones first."""
        sql = f"{_SELECT} WHERE +snapshotter = ? AND ref = ? ORDER BY chain_id IS NULL, number"
        return [_record(row) for row in self._db.read(sql, snapshotter, ref)]

    def walk(self, snapshotter: str) -> Iterator[list[Record]]:
        """All records of a snapshotter by age, in blocks; nothing is locked between them, and what is made
        meanwhile is not seen.
        """
        last, end = -1, self._db.read("SELECT coalesce(max(number), -1) FROM records")[0][0]
        sql = f"""
            {_SELECT} WHERE +snapshotter = ? AND number > ? AND number <= ? ORDER BY number LIMIT {_PAGE}
        """
        while rows := self._db.read(sql, snapshotter, last, end):
            block = [_record(row) for row in rows]
            yield block
            last = block[-1].number

    def numbers(self) -> frozenset[int]:
        """The numbers that are taken."""
        return frozenset(row[0] for row in self._db.read("SELECT number FROM records"))

    def needed_chains(self) -> frozenset[Digest]:
        """The prepared chains below active snapshots and views: they may be mounted at any moment."""
        return needed(self._state)

    def pays(self, record: Record) -> bool:
        """Whether ``record`` is the oldest of those whose topmost layer is the same file: it is charged."""
        return bool(self._db.read(_LOWEST, str(record.chain_id)) == [(record.number,)])

    def unmeasured(self) -> list[Record]:
        """Committed records with a directory of their own whose usage is not frozen yet."""
        condition = "kind = 'committed' AND chain_id IS NULL AND bytes IS NULL"
        return [_record(row) for row in self._db.read(f"{_SELECT} WHERE {condition}")]

    def change(self, body: Callable[[Book], T]) -> T:
        """Run ``body`` in one transaction, durably: all of it or nothing. It may do nothing but use the book.

        OutOfSpace.
        """
        return self._db.transact(lambda connection: body(Book(connection)))

    def shrink(self, body: Callable[[Book], T]) -> T:
        """The same for changes that delete: they succeed on a full disk too."""
        return self._db.shrink(lambda connection: body(Book(connection)))


def kept(state: State) -> frozenset[Digest]:
    """The chains that records stand for: the runtime may ask for them at any time, so gc keeps them."""
    rows = state.db.read("SELECT DISTINCT chain_id FROM records WHERE chain_id IS NOT NULL")
    return frozenset(Digest(row[0]) for row in rows)


def needed(state: State) -> frozenset[Digest]:
    """Of these the ones below active snapshots and views."""
    return frozenset(Digest(row[0]) for row in state.db.read(_NEEDED))


def _sealed(record: Record) -> tuple[schema.Value, ...]:
    labels = msgspec.json.encode(dict(record.labels), order="sorted").decode()
    chain_id = None if record.chain_id is None else str(record.chain_id)
    return (
        record.snapshotter, record.name, record.number, record.kind, record.parent, chain_id,
        record.labels.get(REF, ""), labels, record.created, record.updated, record.size, record.inodes,
    )  # fmt: skip


def _record(row: Row) -> Record:
    snapshotter, name, number, kind, parent, chain_id, _, labels, created, updated, size, inodes = row
    return Record(
        snapshotter=snapshotter,
        name=name,
        number=number,
        kind=kind,
        parent=parent,
        chain_id=None if chain_id is None else Digest(chain_id),
        labels=msgspec.json.decode(labels),
        created=created,
        updated=updated,
        size=size,
        inodes=inodes,
    )
