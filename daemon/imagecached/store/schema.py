"""Tables of the metadata database, and the check that they say what was once written.

SQLite has no page checksums, so every row of ours carries a **seal**: the CRC-32 of its other columns
(``last_used`` excepted, which changes often and decides nothing but the order of eviction). Documents need
none: their key is their digest. A snapshot without row has no files; a row without file is dropped at open
(see recovery). The chain of a record need not exist: what the runtime knows outlives a lost layer.

A database of an earlier schema is brought to this one step by step, each in one transaction; what it holds
stays. Every version's tables are known, so one that was tampered with is still found before it is changed.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final

from imagecached.errors import Corrupt, FailedPrecondition

_FIRST: Final = """
CREATE TABLE layers (
  diff_id TEXT PRIMARY KEY,
  tar_bytes INTEGER NOT NULL,
  file_bytes INTEGER NOT NULL,
  disk_bytes INTEGER NOT NULL,
  entries INTEGER NOT NULL,
  created REAL NOT NULL,
  last_used REAL NOT NULL,
  seal INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
  chain_id TEXT PRIMARY KEY,
  parent TEXT REFERENCES snapshots,
  diff_id TEXT NOT NULL REFERENCES layers,
  seam_digest TEXT,
  seam_bytes INTEGER NOT NULL,
  disk_bytes INTEGER NOT NULL,
  created REAL NOT NULL,
  seal INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_by_parent ON snapshots (parent);
CREATE INDEX snapshots_by_layer ON snapshots (diff_id);
CREATE TABLE documents (
  digest TEXT PRIMARY KEY,
  data BLOB NOT NULL
) STRICT;
CREATE TABLE images (
  name TEXT PRIMARY KEY,
  target_type TEXT NOT NULL,
  target_digest TEXT NOT NULL,
  target_size INTEGER NOT NULL,
  manifest_digest TEXT NOT NULL,
  platform TEXT NOT NULL,
  diff_ids TEXT NOT NULL,
  chain_id TEXT NOT NULL,
  manifest_document TEXT NOT NULL,
  config_document TEXT NOT NULL,
  index_document TEXT,
  created REAL NOT NULL,
  last_used REAL NOT NULL,
  seal INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE pins (
  owner TEXT NOT NULL,
  kind TEXT NOT NULL,
  value TEXT NOT NULL,
  seal INTEGER NOT NULL,
  PRIMARY KEY (owner, kind, value)
) STRICT, WITHOUT ROWID;
CREATE TABLE records (
  snapshotter TEXT NOT NULL,
  name TEXT NOT NULL,
  number INTEGER NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  parent TEXT NOT NULL,
  chain_id TEXT,
  ref TEXT NOT NULL,
  labels TEXT NOT NULL,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  bytes INTEGER,
  inodes INTEGER,
  seal INTEGER NOT NULL,
  PRIMARY KEY (snapshotter, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_by_parent ON records (parent);
CREATE INDEX records_by_chain ON records (chain_id);
CREATE INDEX records_by_ref ON records (ref);
"""
_SHELF: Final = """
CREATE TABLE shelf (
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  document TEXT NOT NULL,
  seal INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
"""
_STEPS: Final = (_FIRST, _SHELF)  # what each version adds; a step that was released is never edited

SCHEMA_VERSION: Final = len(_STEPS)

_SEALED: Final = {
    "layers": ("diff_id", "tar_bytes", "file_bytes", "disk_bytes", "entries", "created"),
    "snapshots": ("chain_id", "parent", "diff_id", "seam_digest", "seam_bytes", "disk_bytes", "created"),
    "images": (
        "name", "target_type", "target_digest", "target_size", "manifest_digest", "platform", "diff_ids",
        "chain_id", "manifest_document", "config_document", "index_document", "created",
    ),
    "pins": ("owner", "kind", "value"),
    "records": (
        "snapshotter", "name", "number", "kind", "parent", "chain_id", "ref", "labels", "created", "updated",
        "bytes", "inodes",
    ),
    "shelf": ("kind", "key", "document"),
}  # fmt: skip
_UNSEALED: Final = {
    "layers": ("last_used",),
    "snapshots": (),
    "images": ("last_used",),
    "pins": (),
    "records": (),
    "shelf": (),
}

Value = str | int | float | None


def create(connection: sqlite3.Connection, version: int = SCHEMA_VERSION) -> None:
    """Make the tables of an empty database, all or none."""
    _take(connection, _STEPS[:version], version)


def _take(connection: sqlite3.Connection, steps: Sequence[str], version: int) -> None:
    """Go ``steps`` on to ``version``."""
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {''.join(steps)} PRAGMA user_version = {version}; COMMIT;"
        )
    except BaseException:
        connection.rollback()
        raise


def insert(connection: sqlite3.Connection, table: str, sealed: Sequence[Value], *unsealed: Value) -> None:
    """Add a row: the sealed columns in the order of the table, then the others. One with this key stays as it
    is.
    """
    connection.execute(_insertion(table), (*sealed, *unsealed, _seal(sealed)))


def check(connection: sqlite3.Connection) -> None:
    """Raise Corrupt if the database is not whole, FailedPrecondition if a newer program made it; bring one of
    an older program up to date.
    """
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise FailedPrecondition(
            f"the database has schema {version}, this program knows up to {SCHEMA_VERSION}"
        )
    for pragma in ("integrity_check(1)", "foreign_key_check"):
        answer = connection.execute(f"PRAGMA {pragma}").fetchone()
        if answer not in (None, ("ok",)):
            raise Corrupt(f"{pragma}: {answer}")
    if version < 1 or _definitions(connection) != _expected(version):
        raise Corrupt(f"the tables are not those of schema {version}")
    if version < SCHEMA_VERSION:
        _take(connection, _STEPS[version:], SCHEMA_VERSION)
    for table, columns in _SEALED.items():
        _check_seals(table, connection.execute(f"SELECT seal, {', '.join(columns)} FROM {table}"))  # noqa: S608 our own names


def _check_seals(table: str, rows: Iterable[Sequence[Value]]) -> None:
    for seal, *values in rows:
        if seal != _seal(values):
            raise Corrupt(f"a row of {table} has changed: {values[0]!r}")


def _seal(values: Sequence[Value]) -> int:
    return zlib.crc32(repr(tuple(values)).encode())


@cache
def _insertion(table: str) -> str:
    columns = (*_SEALED[table], *_UNSEALED[table], "seal")
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608 our own names


@cache
def _expected(version: int) -> frozenset[tuple[str, ...]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        create(connection, version)
        return _definitions(connection)
    finally:
        connection.close()


def _definitions(connection: sqlite3.Connection) -> frozenset[tuple[str, ...]]:
    return frozenset(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))
