"""The metadata database: SQLite in WAL mode, one writing connection behind a lock, one for reads.

Owns connections, transactions and the translation of SQLite's errors; knows no table. A transaction is a
function that may run twice, so it must do nothing but SQL. ``lock`` is the store's one lock: whoever decides
on rows and then acts on files holds it. SQLite itself syncs nothing but checkpoints; :mod:`barrier` does it
for all who wait at once.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from imagecached.errors import Corrupt, FailedPrecondition, ImagecachedError, OutOfSpace
from imagecached.store import schema
from imagecached.store.barrier import Barrier
from imagecached.store.files import NO_SPACE

T = TypeVar("T")
Row = tuple[Any, ...]
Gate = Callable[[], AbstractContextManager[None]]

_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
_FAILURES: Final = (sqlite3.Error, UnicodeDecodeError)  # the latter: an error message quotes the garbage
_LOG_PAGES: Final = 4000  # 16 MiB: fewer than one commit in a hundred waits for a checkpoint
_PRIMARY: Final = 0xFF  # extended result codes keep the class in the low byte


class Database:
    """An open database. ``give_back`` is asked for room when the disk is full; True if it gave any."""

    def __init__(self, path: Path, give_back: Callable[[], bool]) -> None:
        self.path = path
        self.lock = threading.RLock()
        self._give_back = give_back
        self._barrier = Barrier(path.with_name(f"{path.name}-wal"))
        self._read_lock = threading.Lock()
        self._writer = self._at_any_price(self._connect)
        try:
            self._reader = self._at_any_price(self._connect)
        except BaseException:
            self._writer.close()
            raise

    def prepare(self) -> None:
        """Make the tables of an empty database; check those of any other: Corrupt, FailedPrecondition."""
        with self.lock:
            self._at_any_price(self._prepare)
            self._barrier.open()

    def close(self) -> None:
        """Close both connections; the last one writes the WAL back."""
        self._barrier.close()
        self._reader.close()
        self._writer.close()

    def read(self, sql: str, *values: object) -> list[Row]:
        """All rows of one SELECT, as of the last commit; from any thread."""
        with self._read_lock:
            try:
                return self._reader.execute(sql, values).fetchall()
            except _FAILURES as error:
                raise translated(error, self.path) from error

    def survey(self, sql: str, *values: object) -> list[Row]:
        """The same for many rows, on the other connection: :meth:`read` must not wait for it."""
        with self.lock:
            try:
                return self._writer.execute(sql, values).fetchall()
            except _FAILURES as error:
                raise translated(error, self.path) from error

    def transact(self, body: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Run ``body`` in one transaction: all of it or nothing.

        ``durable``: it survives a power loss once this returns; otherwise it may be undone by one, never
        torn.
        """
        with self.lock:
            try:
                result, number = self._once(body)
            except _FAILURES as error:
                raise translated(error, self.path) from error
        if durable:
            self._await(number)
        return result

    def shrink(self, body: Callable[[sqlite3.Connection], T], gate: Gate = nullcontext) -> T:
        """A durable transaction that leads to freeing space, so it must succeed on a full disk: it may use
        the ballast. The commit happens inside ``gate()``; if that raises on entering, nothing is changed.
        """
        with self.lock:
            result, number = self._at_any_price(lambda: self._once(body, gate))
        self._await(number)
        return result

    def _prepare(self) -> None:
        empty = self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
        if empty:
            schema.create(self._writer)
        else:
            schema.check(self._writer)

    def _await(self, number: int) -> None:
        try:
            self._barrier.wait(number)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise OutOfSpace(f"no room for the database {self.path}: {error.strerror}") from error
            raise ImagecachedError(f"database {self.path} cannot be made durable: {error}") from error

    def _once(self, body: Callable[[sqlite3.Connection], T], gate: Gate = nullcontext) -> tuple[T, int]:
        """The result, and the number of the commit."""
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            result = body(writer)
            with gate():
                writer.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                writer.rollback()
            raise
        return result, self._barrier.committed()

    def _at_any_price(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except _FAILURES as error:
            failure = translated(error, self.path)
            if not isinstance(failure, OutOfSpace) or not self._give_back():
                raise failure from error
        try:
            return action()
        except _FAILURES as error:
            raise translated(error, self.path) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
        except BaseException:
            connection.close()
            raise
        return connection


def translated(error: Exception, path: Path) -> Exception:
    """The error of ours that says what to do about one of SQLite's; a mistake of this program stays what it
    is.
    """
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.InterfaceError):
        return error
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # none: text that is not UTF-8
    if code in _FULL:
        return OutOfSpace(f"no room for the database {path}: {error}")
    if code & _PRIMARY in _CORRUPT:
        return Corrupt(f"database {path}: {error}")
    if code & _PRIMARY == sqlite3.SQLITE_CONSTRAINT:
        return FailedPrecondition(f"a row this needs is gone: {error}")
    return ImagecachedError(f"database {path}: {error}")
