"""Pins: an owner names what gc must keep. Rows, so they outlive the process; leases (holds) do not."""

from __future__ import annotations

import sqlite3

from imagecached.errors import InvalidInput
from imagecached.oci.digest import Digest
from imagecached.oci.reference import Reference
from imagecached.store import schema
from imagecached.store.points import point
from imagecached.store.records import Pin, PinKind
from imagecached.store.state import State


def add(state: State, owner: str, kind: PinKind, value: str) -> None:
    """``owner`` wants an image name, ChainID or DiffID kept; it need not exist yet. Twice is the same as
    once.
    """
    if not owner:
        raise InvalidInput("a pin needs an owner")
    if kind == "image" and str(Reference.parse(value)) != value:
        raise InvalidInput(f"not a canonical reference: {value!r}")
    sealed = (owner, kind, value if kind == "image" else str(Digest.parse(value)))
    state.db.transact(lambda connection: schema.insert(connection, "pins", sealed))
    point("pin.recorded")


def remove(state: State, owner: str) -> None:
    """``owner`` wants nothing kept any more; nor did it matter whether it did."""
    state.db.shrink(lambda connection: connection.execute("DELETE FROM pins WHERE owner = ?", (owner,)))


def every(state: State, owner: str | None = None) -> tuple[Pin, ...]:
    """All pins, or those of one owner."""
    where, values = ("", ()) if owner is None else (" WHERE owner = ?", (owner,))
    return tuple(Pin(*row) for row in state.db.read(f"SELECT owner, kind, value FROM pins{where}", *values))  # noqa: S608


def owners_of_image(connection: sqlite3.Connection, name: str) -> list[str]:
    """Who has pinned an image name."""
    rows = connection.execute(
        "SELECT owner FROM pins WHERE kind = 'image' AND value = ? ORDER BY owner", (name,)
    )
    return [owner for (owner,) in rows]
