"""Opening after a crash, a loss or a corruption: what can be kept is kept, what cannot is named."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from imagecached.errors import Corrupt, FailedPrecondition
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, pins, shelf, snapshots
from imagecached.store.records import Recovery
from imagecached.store.schema import SCHEMA_VERSION, create
from imagecached.store.shelf import Shelf
from tests.unit.store.building import (
    base_with_modes,
    check,
    files,
    image,
    layer,
    opened,
    publish,
    pull,
    pulled,
    without_parents,
)

FIRST_SCHEMA = "sha256:7341917ed4edc2ab9b85ec4e4cb7d74f1135e90bc87dca0a70d6f4f2af032643"


def database(root: Path) -> sqlite3.Connection:
    return sqlite3.connect(root / "metadata.db", isolation_level=None)


def test_a_fresh_root_is_empty_and_clean(root: Path) -> None:
    """Nothing to recover, nothing to find."""
    with opened(root) as (state, recovery):
        assert recovery == Recovery()
        assert check(state) == []


def test_unfinished_files_go(root: Path) -> None:
    """Whatever is in ingest/: files, folders, links; what a link points to stays."""
    with opened(root) as (state, _):
        precious = root.parent / "precious"
        precious.mkdir()
        (precious / "file").write_text("data")
        (state.layout.ingest / "a.erofs").write_text("x")
        (state.layout.ingest / "folder").mkdir()
        (state.layout.ingest / "folder" / "b").write_text("x")
        (state.layout.ingest / "link").symlink_to(precious)
    with opened(root) as (state, recovery):
        assert recovery == Recovery(unfinished=3)
        assert list(state.layout.ingest.iterdir()) == []
    assert (precious / "file").exists()


def test_a_layer_file_without_row_is_adopted(root: Path) -> None:
    """Its own header says all that the row says; a power loss may take a row that was not synced."""
    with opened(root) as (state, _):
        made = publish(state, layer(1))
    with database(root) as connection:
        connection.execute("DELETE FROM layers")
    connection.close()
    with opened(root) as (state, recovery):
        assert recovery == Recovery(adopted=(made.diff_id,))
        found = layers.find(state, made.diff_id)
        assert found is not None
        assert (found.path, found.tar_bytes, found.file_bytes, found.entries) == (
            made.path,
            made.tar_bytes,
            made.file_bytes,
            made.entries,
        )
        assert state.budget.used() == found.disk_bytes
        assert check(state) == []


@pytest.mark.parametrize(
    "fault", ["truncated", "other", "no superblock", "garbage", "empty", "directory link"]
)
def test_a_file_that_is_no_whole_layer_is_removed(root: Path, fault: str) -> None:
    """Only a finished file under its own name is adopted."""
    content = layer(1).content
    contents = {
        "truncated": content[:-1],
        "other": layer(2).content,
        "no superblock": content[:1024] + bytes(3072) + content[4096:],
        "garbage": b"garbage" * 1000,
        "empty": b"",
    }
    with opened(root) as (state, _):
        path = state.layout.layer(layer(1).diff_id)
    path.parent.mkdir(parents=True)
    if fault == "directory link":
        path.symlink_to("/etc/passwd")
    else:
        path.write_bytes(contents[fault])
    with opened(root) as (state, recovery):
        assert recovery == Recovery(removed=(str(path.relative_to(root)),))
        assert check(state) == []
    assert not path.exists()


def test_a_file_that_cannot_be_read_now_is_left(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad moment of the disk is no reason to delete; nothing uses the file meanwhile."""
    with opened(root) as (state, _):
        made = publish(state, layer(1))
    with database(root) as connection:
        connection.execute("DELETE FROM layers")
    connection.close()

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("imagecached.store.recovery.read_header", fail)
    with opened(root) as (state, recovery):
        assert recovery == Recovery()
        assert layers.find(state, made.diff_id) is None
    monkeypatch.undo()
    with opened(root) as (_, recovery):
        assert recovery.adopted == (made.diff_id,)


def test_rows_without_file_damage_their_images(root: Path) -> None:
    """The images stay known, so that they can be pulled again."""
    with opened(root) as (state, _):
        record = pulled(state, "app", layer(1), layer(2))
        other = pulled(state, "other", layer(1))
        state.layout.layer(layer(2).diff_id).unlink()
    with opened(root) as (state, recovery):
        assert recovery == Recovery(lost_layers=(layer(2).diff_id,), damaged=(record.name,))
        found = images.find(state, record.name)
        assert found is not None
        assert found.damaged
        whole = images.find(state, other.name)
        assert whole is not None
        assert not whole.damaged
        pull(state, record, [layer(1), layer(2)])
        assert check(state) == []


def test_a_seam_without_row_is_removed(root: Path) -> None:
    """It is built again when somebody needs it."""
    with opened(root) as (state, _):
        stray = state.layout.seam(Digest.of(b"stray"))
    stray.parent.mkdir(parents=True)
    stray.write_text("x")
    with opened(root) as (state, recovery):
        assert recovery == Recovery(removed=(str(stray.relative_to(root)),))
        assert check(state) == []


def test_a_lost_seam_is_rebuilt_at_open(root: Path) -> None:
    """All that it is made of is there; no registry is needed."""
    with opened(root) as (state, _):
        record = pulled(state, "app", base_with_modes(), without_parents())
        seam = state.layout.seam(record.chain_id)
        before = seam.read_bytes()
        seam.unlink()
    with opened(root) as (state, recovery):
        assert recovery == Recovery()
        assert seam.read_bytes() == before
        assert check(state) == []


def test_a_damaged_image_is_whole_again_once_its_layers_are(root: Path) -> None:
    """Another image may have brought the layer back."""
    with opened(root) as (state, _):
        record = pulled(state, "app", layer(1), layer(2))
        state.layout.layer(layer(2).diff_id).unlink()
    with opened(root) as (state, _):
        publish(state, layer(2))
        found = images.find(state, record.name)
        assert found is not None
        assert found.damaged
        with state.hold("test", [layer(2).diff_id]):
            collect.collect(state)
    with opened(root) as (state, recovery):
        assert recovery == Recovery()
        assert snapshots.find(state, record.chain_id) is not None
        assert check(state) == []


def test_a_lost_database_is_made_again_from_the_layer_files(root: Path) -> None:
    """Layers describe themselves; names are lost."""
    with opened(root) as (state, _):
        record = pulled(state, "app", layer(1), layer(2))
    (root / "metadata.db").unlink()
    with opened(root) as (state, recovery):
        assert set(recovery.adopted) == {layer(1).diff_id, layer(2).diff_id}
        assert images.every(state) == ()
        images.put(state, image("app", layer(1), layer(2)))
        assert snapshots.find(state, record.chain_id) is not None
        assert check(state) == []


CORRUPTIONS: dict[str, Callable[[bytes], bytes]] = {
    "not a database": lambda content: b"garbage" * 4096,
    "no magic": lambda content: b"x" * 16 + content[16:],
    "half": lambda content: content[: len(content) // 2],
    "one page": lambda content: content[:4096],
    "zeros": lambda content: content[:4096] + bytes(len(content) - 4096),
}


@pytest.mark.parametrize("how", sorted(CORRUPTIONS))
def test_a_corrupt_database_is_moved_aside(root: Path, how: str) -> None:
    """Kept for inspection, numbered; layers are adopted and the store works again."""
    with opened(root) as (state, _):
        pulled(state, "app", base_with_modes(), without_parents())
    path = root / "metadata.db"
    corrupt = CORRUPTIONS[how](path.read_bytes())
    for number in (1, 2):
        path.write_bytes(corrupt)
        with opened(root) as (state, recovery):
            assert recovery.corrupt_database == root / f"metadata.db.corrupt-{number}"
            assert recovery.corrupt_database.stat().st_size > 0
            assert set(recovery.adopted) == {base_with_modes().diff_id, without_parents().diff_id}
            assert check(state) == []
            pulled(state, "app", base_with_modes(), without_parents())


def test_an_emptied_database_is_filled_again(root: Path) -> None:
    """A file of no bytes is a database without tables to SQLite."""
    with opened(root) as (state, _):
        pulled(state, "app", layer(1))
    (root / "metadata.db").write_bytes(b"")
    with opened(root) as (state, recovery):
        assert recovery.adopted == (layer(1).diff_id,)
        assert check(state) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE layers SET disk_bytes = disk_bytes + 1",
        "UPDATE snapshots SET seam_digest = NULL",
        "UPDATE images SET target_size = 1",
        "UPDATE pins SET owner = 'x'",
        "PRAGMA foreign_keys = OFF; DELETE FROM layers",
        "DROP INDEX snapshots_by_layer",
        "DROP TABLE pins",
    ],
)
def test_a_row_that_changed_by_itself_is_noticed(root: Path, change: str) -> None:
    """SQLite has no checksums of its own; a wrong row could mount a wrong tree."""
    with opened(root) as (state, _):
        record = pulled(state, "app", base_with_modes(), without_parents())
        pins.add(state, "owner", "image", record.name)
    connection = database(root)
    connection.executescript(change)
    connection.close()
    with opened(root) as (state, recovery):
        assert recovery.corrupt_database is not None
        assert check(state) == []


def test_a_newer_schema_is_refused_and_left_alone(root: Path) -> None:
    """Both numbers are named; it is not taken for corruption."""
    with opened(root):
        pass
    connection = database(root)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with (
        pytest.raises(FailedPrecondition, match=f"schema {SCHEMA_VERSION + 1}.*up to {SCHEMA_VERSION}"),
        opened(root),
    ):
        pass
    assert list(root.glob("*.corrupt-*")) == []


def made_by_schema_1(root: Path) -> None:
    """Turn a store into what a daemon of the first schema left."""
    connection = database(root)
    connection.execute("DROP TABLE shelf")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def test_a_store_of_the_first_schema_is_brought_up_to_date(root: Path) -> None:
    """Everything it holds stays, nothing counts as corrupt, and the new table works."""
    with opened(root) as (state, _):
        name = pulled(state, "app", base_with_modes(), without_parents()).name
        pins.add(state, "owner", "image", name)
        before = images.find(state, name), layers.every(state), snapshots.every(state), pins.every(state)
    made_by_schema_1(root)
    with opened(root) as (state, recovery):
        assert recovery == Recovery()
        after = images.find(state, name), layers.every(state), snapshots.every(state), pins.every(state)
        assert after == before
        shelf.put(state, "note", "a", b"{}")
        assert check(state) == []
    with opened(root) as (state, _):
        assert Shelf(state).find("note", "a") == b"{}"


def test_the_first_schema_is_what_it_was() -> None:
    """The step of a released version is never edited: stores in the field are compared with it."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    create(connection, version=1)
    tables = connection.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name").fetchall()
    connection.close()
    assert Digest.of(repr(tables).encode()) == FIRST_SCHEMA


def test_a_first_schema_that_was_tampered_with_is_not_migrated(root: Path) -> None:
    """It is moved aside like any other corrupt database."""
    with opened(root):
        pass
    made_by_schema_1(root)
    connection = database(root)
    connection.execute("DROP INDEX records_by_ref")
    connection.close()
    with opened(root) as (_, recovery):
        assert recovery.corrupt_database is not None


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_never_gives_out_a_wrong_image(root: Path, seed: int) -> None:
    """Random bytes over random places: what is answered is what was put, or says that it is damaged."""
    dice = random.Random(seed)
    with opened(root) as (state, _):
        records = {
            record.name: record
            for record in (pulled(state, f"app{number}", layer(0), layer(number)) for number in range(1, 6))
        }
        pulled(state, "seamed", base_with_modes(), without_parents())
    path = root / "metadata.db"
    content = bytearray(path.read_bytes())
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(content))
        noise = dice.randbytes(dice.choice([1, 4, 64, 4096]))
        content[at : at + len(noise)] = noise
    path.write_bytes(content)
    with opened(root) as (state, _):
        for found in (images.find(state, name) for name in [*records, "docker.io/library/seamed:latest"]):
            if found is None or found.damaged:
                continue
            record = records.get(found.name) or image("seamed", base_with_modes(), without_parents())
            assert (found.manifest, found.config, found.diff_ids) == (
                record.manifest,
                record.config,
                record.diff_ids,
            )
            chain = snapshots.chain(state, found.chain_id)
            assert chain.diff_ids == record.diff_ids[::-1]
            assert (chain.seam is not None) == found.name.endswith("seamed:latest")
        assert {finding.kind for finding in check(state)} <= {"document_corrupt", "image_damaged"}
        for record in records.values():
            pull(
                state,
                record,
                [layer(0), next(layer(n) for n in range(1, 6) if layer(n).diff_id == record.diff_ids[1])],
            )
        assert {finding.kind for finding in check(state)} <= {"document_corrupt", "image_damaged"}


def test_a_failing_open_gives_the_root_free(root: Path) -> None:
    """The next try is not refused by our own lock."""
    with opened(root):
        pass
    (root / "version").write_text("broken")
    with pytest.raises(Corrupt), opened(root):
        pass
    (root / "version").write_text('{"format": 1}')
    with opened(root) as (state, _):
        assert files(state) == set()
