"""The shelf: documents by kind and key, whole, durable, bounded."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from imagecached.errors import InvalidInput
from imagecached.store import Store, StorePolicy
from imagecached.store.shelf import DOCUMENT_BYTES, Shelf, put, remove
from imagecached.store.state import State
from tests.unit.store.building import opened

ODD = '{"name": "\U0001f600", "x": "\'\\n"}'.encode()


def test_documents_come_back_as_they_went(state: State) -> None:
    """By kind and key, byte by byte; a second put takes the place of the first."""
    shelf = Shelf(state)
    put(state, "note", "b", b"{}")
    put(state, "note", "a", b"1")
    put(state, "note", "a", ODD)
    put(state, "other", "a", b"2")
    assert shelf.find("note", "a") == ODD
    assert shelf.find("note", "c") is None
    assert shelf.every("note") == {"a": ODD, "b": b"{}"}
    assert shelf.every("nothing") == {}


def test_removal_never_minds(state: State) -> None:
    """Once, twice; others stay."""
    put(state, "note", "a", b"1")
    put(state, "note", "b", b"2")
    remove(state, "note", "a")
    remove(state, "note", "a")
    assert Shelf(state).every("note") == {"b": b"2"}


def test_a_document_has_a_bound(state: State) -> None:
    """The database holds small things."""
    put(state, "note", "a", b" " * DOCUMENT_BYTES)
    with pytest.raises(InvalidInput, match="'b': 262145 bytes, at most 262144"):
        put(state, "note", "b", b" " * (DOCUMENT_BYTES + 1))


async def test_documents_outlive_the_store(root: Path) -> None:
    """They are rows; the door's methods are the same."""
    store = await Store.open(root, StorePolicy(free_bytes=0))
    await store.shelf.put("note", "a", b"1")
    await store.shelf.put("note", "b", b"2")
    await store.shelf.remove("note", "b")
    await store.close()
    with opened(root) as (state, _):
        assert Shelf(state).every("note") == {"a": b"1"}


def test_a_changed_document_is_found(root: Path) -> None:
    """Its seal no longer fits: the database is moved aside."""
    with opened(root) as (state, _):
        put(state, "note", "a", b"1")
    connection = sqlite3.connect(root / "metadata.db")
    connection.execute("UPDATE shelf SET document = '2'")
    connection.commit()
    connection.close()
    with opened(root) as (state, recovery):
        assert recovery.corrupt_database is not None
        assert Shelf(state).every("note") == {}
