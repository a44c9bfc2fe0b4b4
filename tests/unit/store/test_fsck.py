"""fsck finds every kind of damage, changes nothing by itself, and repairs what can be repaired."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, snapshots
from imagecached.store.fsck import Check, Reading
from imagecached.store.points import arm
from imagecached.store.records import Finding
from imagecached.store.repair import put_right
from imagecached.store.state import State
from tests.unit.store.building import (
    base_with_modes,
    check,
    files,
    layer,
    opened,
    publish,
    pull,
    pulled,
    without_parents,
)


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def kinds(findings: Sequence[Finding]) -> list[tuple[str, str, bool]]:
    return sorted((finding.kind, finding.subject, finding.repaired) for finding in findings)


def damaged(state: State) -> list[str]:
    return [image.name for image in images.every(state) if image.damaged]


def test_a_sound_store_is_clean(state: State) -> None:
    """Every layer and seam is read, and counted in bytes."""
    pulled(state, "app", base_with_modes(), without_parents())
    run = Check(state)
    readings = run.survey()
    assert [reading.kind for reading in readings] == ["layer", "layer", "seam"]
    for reading in readings:
        run.verify(reading)
    assert run.findings == []
    assert run.files == 3
    assert run.bytes == sum(reading.bytes for reading in readings) > 0


@pytest.mark.parametrize("place", ["header", "superblock", "tar", "metadata"])
def test_one_flipped_bit_of_a_layer_is_found(state: State, place: str) -> None:
    """Wherever it is; without repair nothing changes."""
    made = publish(state, layer(1))
    offset = {"header": 5, "superblock": 1030, "tar": 5000, "metadata": made.file_bytes - 4096}[place]
    flip(made.path, offset)
    assert kinds(check(state)) == [("layer_corrupt", made.diff_id, False)]
    assert layers.find(state, made.diff_id) == made


def test_repair_drops_a_corrupt_layer_and_marks_its_images(state: State) -> None:
    """Other images stay whole; the next pull brings the layer back and the damage is over."""
    built = [layer(1), layer(2)]
    record = pulled(state, "app", *built)
    other = pulled(state, "other", layer(1))
    flip(state.layout.layer(built[1].diff_id), 5000)
    found = put_right(state, check(state))
    assert kinds(found) == [
        ("image_damaged", record.name, False),
        ("layer_corrupt", built[1].diff_id, True),
    ]
    assert layers.find(state, built[1].diff_id) is None
    assert damaged(state) == [record.name]
    assert files(state) == {built[0].diff_id}
    assert kinds(check(state)) == [("image_damaged", record.name, False)]
    pull(state, record, built)
    assert check(state) == []
    assert {image.name for image in images.every(state)} == {record.name, other.name}


def test_a_layer_under_many_images_damages_all_of_them(state: State) -> None:
    """Each is named once."""
    names = [pulled(state, f"app{number}", layer(0), layer(number)).name for number in (1, 2, 3)]
    flip(state.layout.layer(layer(0).diff_id), 5000)
    put_right(state, check(state))
    assert damaged(state) == names


def test_a_missing_layer_is_found_and_dropped(state: State) -> None:
    """Somebody deleted the file while the daemon ran."""
    record = pulled(state, "app", layer(1))
    state.layout.layer(layer(1).diff_id).unlink()
    found = check(state)
    assert kinds(found) == [("layer_missing", layer(1).diff_id, False)]
    put_right(state, found)
    assert damaged(state) == [record.name]


@pytest.mark.parametrize("missing", [False, True])
def test_a_bad_seam_is_rebuilt(state: State, missing: bool) -> None:
    """From the layers that are there; no image stays damaged, the snapshots above come back too."""
    built = [base_with_modes(), without_parents(1), without_parents(2)]
    record = pulled(state, "app", *built)
    middle, top = chain_ids(record.diff_ids)[1:]
    seam = state.layout.seam(middle)
    before = {path: path.read_bytes() for path in (seam, state.layout.seam(top))}
    if missing:
        seam.unlink()
    else:
        flip(seam, seam.stat().st_size // 2)
    found = put_right(state, check(state))
    assert kinds(found) == [("seam_missing" if missing else "seam_corrupt", middle, True)]
    assert check(state) == []
    assert damaged(state) == []
    assert {path: path.read_bytes() for path in before} == before


def test_files_without_row_are_found_and_removed(state: State) -> None:
    """Under a name of ours or any other, in both folders."""
    made = publish(state, layer(1))
    strays = [
        state.layout.layer(Digest.of(b"stray")),
        state.layout.seam(Digest.of(b"stray")),
        made.path.with_suffix(".bak"),
    ]
    for path in strays:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("stray")
    found = put_right(state, check(state))
    expected = [(str(path.relative_to(state.layout.root)), True) for path in strays]
    assert sorted((finding.subject, finding.repaired) for finding in found) == sorted(expected)
    assert {finding.kind for finding in found} == {"layer_orphan", "seam_orphan"}
    assert not any(path.exists() for path in strays)
    assert check(state) == []


def test_a_changed_document_is_found(state: State) -> None:
    """The image is damaged until it is pulled again."""
    record = pulled(state, "app", layer(1))
    digest = Digest.of(record.manifest)
    state.db.transact(
        lambda c: c.execute("UPDATE documents SET data = x'00' WHERE digest = ?", (str(digest),))
    )
    found = check(state)
    assert kinds(found) == [("document_corrupt", digest, False)]
    put_right(state, found)
    assert damaged(state) == [record.name]
    pull(state, record, [layer(1)])
    assert check(state) == []


def test_a_snapshot_that_contradicts_itself_is_rebuilt(state: State) -> None:
    """A ChainID follows from parent and layer; a row that says otherwise would mount the wrong tree."""
    built = [layer(1), layer(2)]
    record = pulled(state, "app", *built)
    publish(state, layer(3))
    state.db.transact(
        lambda c: c.execute(
            "UPDATE snapshots SET diff_id = ? WHERE chain_id = ?",
            (str(layer(3).diff_id), str(record.chain_id)),
        )
    )
    found = check(state)
    assert kinds(found) == [("snapshot_invalid", record.chain_id, False)]
    put_right(state, found)
    assert check(state) == []
    chain = snapshots.chain(state, record.chain_id)
    assert chain.diff_ids == (layer(2).diff_id, layer(1).diff_id)


def test_a_layer_removed_while_it_is_read_is_no_fault(state: State) -> None:
    """The store stays in use during a check."""
    record = pulled(state, "app", layer(1))
    run = Check(state)
    readings = run.survey()
    images.remove(state, record.name)
    collect.collect(state)
    for reading in readings:
        run.verify(reading)
    assert run.findings == []


def test_an_unreadable_disk_counts_as_corrupt(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO says that the bytes are lost."""
    publish(state, layer(1))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("imagecached.store.fsck.verify_layer", fail)
    assert kinds(check(state)) == [("layer_corrupt", layer(1).diff_id, False)]


def test_damage_found_before_is_told_again(state: State) -> None:
    """An image that nobody pulled again stays a finding, and repair says that it could not help."""
    record = pulled(state, "app", layer(1))
    flip(state.layout.layer(layer(1).diff_id), 5000)
    put_right(state, check(state))
    assert kinds(put_right(state, check(state))) == [("image_damaged", record.name, False)]


@pytest.mark.parametrize("kind", ["layer_corrupt", "layer_missing"])
def test_a_layer_replaced_since_the_check_is_kept(state: State, kind: str) -> None:
    """The check read the old file; the new one under the same name is sound."""
    pulled(state, "app", layer(1))
    path = state.layout.layer(layer(1).diff_id)
    if kind == "layer_missing":
        path.unlink()
    else:
        flip(path, 5000)
    found = check(state)
    assert [finding.kind for finding in found] == [kind]
    if path.exists():
        path.rename(path.with_suffix(".old"))  # keeps its inode from being used again
    publish(state, layer(1))
    path.with_suffix(".old").unlink(missing_ok=True)
    put_right(state, found)
    assert path.exists()
    assert check(state) == []


def test_a_stray_file_published_since_the_check_is_kept(state: State) -> None:
    """What was an orphan is a layer now."""
    path = state.layout.layer(layer(1).diff_id)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"stray")
    found = check(state)
    publish(state, layer(1))
    put_right(state, found)
    assert path.exists()
    assert check(state) == []


def test_a_corrupt_file_leaves_its_name_before_its_row_goes(root: Path) -> None:
    """Stopped in between, the next open must not adopt it again."""
    with opened(root) as (state, _):
        record = pulled(state, "app", layer(1))
        flip(state.layout.layer(layer(1).diff_id), 5000)
        found = check(state)

        def stop(name: str) -> None:
            if name == "fsck.quarantined":
                raise KeyboardInterrupt

        arm(stop)
        with pytest.raises(KeyboardInterrupt):
            put_right(state, found)
    with opened(root) as (state, recovery):
        assert recovery.lost_layers == (layer(1).diff_id,)
        assert recovery.damaged == (record.name,)
        assert files(state) == set()


def test_readings_tell_how_long_they_are(state: State) -> None:
    """Progress is counted in bytes of the files."""
    made = publish(state, layer(1))
    assert Check(state).survey() == (Reading("layer", made.diff_id, made.path, made.file_bytes),)
