"""The ledger: rows as they were written, changes all or nothing, blocks while others write."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from imagecached.errors import Corrupt
from imagecached.oci.digest import Digest
from imagecached.store.ledger import REF, Book, Ledger, Record
from imagecached.store.state import State
from tests.unit.store.building import opened

CHAIN = Digest.of(b"chain")


def record(number: int, **changes: object) -> Record:
    """An active record; every number has a name of its own."""
    made = Record(
        snapshotter="s",
        name=f"name-{number}",
        number=number,
        kind="active",
        parent="",
        labels={},
        created=1_700_000_000_123_456_789,
        updated=1_700_000_000_123_456_789,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def put(ledger: Ledger, *records: Record) -> None:
    """Write them in one change."""

    def body(book: Book) -> None:
        for one in records:
            book.put(one)

    ledger.change(body)


def test_a_record_comes_back_as_it_went(state: State) -> None:
    """Every field, whatever text it holds, also after a restart of the database."""
    ledger = Ledger(state)
    odd = record(
        1,
        name='a/1/"\U0001f600\n',
        kind="committed",
        parent="p",
        labels={REF: "x", "k\x00": "é'"},
        chain_id=CHAIN,
        size=1 << 50,
        inodes=3,
    )
    put(ledger, odd, record(2))
    assert ledger.find("s", odd.name) == odd
    assert ledger.find("t", odd.name) is None
    assert ledger.by_ref("s", "x") == [odd]
    assert ledger.numbers() == {1, 2}
    state.db.prepare()  # checks the seals


def test_a_change_is_all_or_nothing(state: State) -> None:
    """An error in the middle leaves nothing."""
    ledger = Ledger(state)

    def body(book: Book) -> None:
        book.put(record(1))
        raise Corrupt("no")

    with pytest.raises(Corrupt):
        ledger.change(body)
    assert ledger.numbers() == frozenset()


def test_a_number_is_given_once(state: State) -> None:
    """Two snapshots in one directory would mix their files."""
    put(Ledger(state), record(1))
    with pytest.raises(AssertionError, match="number"):
        put(Ledger(state), record(1, name="other"))


def test_a_walk_while_others_write(state: State) -> None:
    """It ends, shows everything that was there all the time, and nothing twice."""
    ledger = Ledger(state)
    put(ledger, *[record(number) for number in range(250)])
    seen = []
    for turn, block in enumerate(ledger.walk("s")):
        seen += [one.number for one in block]
        put(ledger, record(1000 + turn), record(turn, labels={"changed": "1"}))
    assert seen == list(range(250))


def test_a_line_ends_at_what_is_prepared(state: State) -> None:
    """Ordinary layers down to the first prepared chain, which stands for all below it."""
    ledger = Ledger(state)
    put(
        ledger,
        record(1, kind="committed", chain_id=CHAIN, parent="lost"),
        record(2, kind="committed", parent="name-1"),
        record(3, kind="committed", parent="name-2"),
        record(4, parent="name-3"),
        record(5, parent="missing"),
    )
    assert [one.number for one in ledger.line("s", "name-3")] == [3, 2, 1]
    assert ledger.line("s", "missing") == []
    assert ledger.needed_chains() == {CHAIN}


def test_a_row_that_changed_on_disk_is_found(tmp_path: Path) -> None:
    """The database is then no good, as with every other row."""
    with opened(tmp_path / "root") as (state, _):
        put(Ledger(state), record(1))
    connection = sqlite3.connect(tmp_path / "root/metadata.db")
    connection.execute("UPDATE records SET parent = 'else'")
    connection.commit()
    connection.close()
    with opened(tmp_path / "root") as (state, recovery):
        assert recovery.corrupt_database is not None
        assert Ledger(state).numbers() == frozenset()


def test_no_query_reads_all_records(state: State) -> None:
    """Each finds its rows by an index that tells them apart; a snapshotter's name does not."""
    ledger, asked = Ledger(state), list[str]()
    put(ledger, record(1), record(2, chain_id=CHAIN))
    for connection in (state.db._reader, state.db._writer):
        connection.set_trace_callback(asked.append)

    def body(book: Book) -> None:
        book.find("s", "x")
        book.prepared("s", CHAIN, "")
        book.children("s", "x")
        book.drop(record(1))

    ledger.change(body)
    ledger.find("s", "x")
    ledger.line("s", "x")
    ledger.by_ref("s", "x")
    ledger.pays(record(2, chain_id=CHAIN))
    list(ledger.walk("s"))
    for connection in (state.db._reader, state.db._writer):
        connection.set_trace_callback(None)
    statements = [sql for sql in asked if "records" in sql]
    assert len(statements) >= 10
    for sql in statements:
        for *_, step in state.db._reader.execute(f"EXPLAIN QUERY PLAN {sql}"):
            assert "SCAN records" not in step, sql
            assert "SCAN r" not in step, sql
            assert not step.endswith("PRIMARY KEY (snapshotter=?)"), sql
