"""The shelf: small JSON documents of the use cases above, by kind and key, that outlive the process.

Knows no document: what it means, and whether it is still understood, is its owner's concern. Invariants: a
document is replaced as a whole; a put that returned survives a power loss; a removal succeeds on a full disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from imagecached.aio import finish
from imagecached.errors import InvalidInput
from imagecached.store import schema
from imagecached.store.points import point
from imagecached.store.state import State

DOCUMENT_BYTES: Final = 1 << 18


class Shelf:
    """The documents of one open store. Reads answer at once; what changes it is done or not at all."""

    def __init__(self, state: State) -> None:
        self._state = state

    def find(self, kind: str, key: str) -> bytes | None:
        """The document, or None."""
        rows = self._state.db.read("SELECT document FROM shelf WHERE kind = ? AND key = ?", kind, key)
        return str(rows[0][0]).encode() if rows else None

    def every(self, kind: str) -> Mapping[str, bytes]:
        """All documents of a kind, by key."""
        rows = self._state.db.read("SELECT key, document FROM shelf WHERE kind = ? ORDER BY key", kind)
        return {key: document.encode() for key, document in rows}

    async def put(self, kind: str, key: str, document: bytes) -> None:
        """Keep a JSON document under this key, in place of another. OutOfSpace; InvalidInput beyond
        :data:`DOCUMENT_BYTES`.
        """
        await finish(put, self._state, kind, key, document)

    async def remove(self, kind: str, key: str) -> None:
        """Forget the document, if there is one."""
        await finish(remove, self._state, kind, key)


def put(state: State, kind: str, key: str, document: bytes) -> None:
    """Write one document."""
    if len(document) > DOCUMENT_BYTES:
        raise InvalidInput(f"{kind} {key[:80]!r}: {len(document)} bytes, at most {DOCUMENT_BYTES} are kept")
    sealed = (kind, key, document.decode())

    def body(connection: sqlite3.Connection) -> None:
        _delete(connection, kind, key)
        schema.insert(connection, "shelf", sealed)
        point("shelf.inserted")

    state.db.transact(body)
    point("shelf.recorded")


def remove(state: State, kind: str, key: str) -> None:
    """Delete one document."""
    state.db.shrink(lambda connection: _delete(connection, kind, key))


def _delete(connection: sqlite3.Connection, kind: str, key: str) -> None:
    connection.execute("DELETE FROM shelf WHERE kind = ? AND key = ?", (kind, key))
