"""Images: recorded with all their snapshots in one transaction, read back checked, removed by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from imagecached.errors import Corrupt, FailedPrecondition, InvalidInput, NotFound, Unsupported
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import images, layers, pins, snapshots
from imagecached.store.state import State
from tests.unit.store.building import check, image, layer, publish, pull, pulled


def test_reads_back_what_was_put(state: State) -> None:
    """An image is found by its name with its documents verbatim; the store sets times and size."""
    built = [layer(1), layer(2)]
    record = image("app", *built, index=b'{"index": 1}')
    pull(state, record, built)
    found = images.find(state, record.name)
    assert found is not None
    total = sum(one.disk_bytes for one in layers.every(state))
    assert found == replace(
        record, created=found.created, last_used=found.created, disk_bytes=total, damaged=False
    )
    assert found.created > 1_700_000_000


def test_knows_nothing_of_other_names(state: State) -> None:
    """A name that was never put is None."""
    assert images.find(state, "docker.io/library/app:latest") is None
    assert images.every(state) == ()


def test_records_every_prefix_of_the_chain(state: State) -> None:
    """Each prefix of the layers has a snapshot whose parent is the prefix below."""
    built = [layer(1), layer(2), layer(3)]
    pulled(state, "app", *built)
    chain = chain_ids([one.diff_id for one in built])
    found = {snapshot.chain_id: snapshot for snapshot in snapshots.every(state)}
    assert set(found) == set(chain)
    assert [found[one].parent for one in chain] == [None, *chain[:-1]]
    assert [found[one].diff_id for one in chain] == [one.diff_id for one in built]


def test_two_names_share_documents_and_snapshots(state: State) -> None:
    """A second name for the same manifest costs a row."""
    built = [layer(1)]
    first, second = pulled(state, "app", *built), pulled(state, "same", *built)
    assert {one.name for one in images.every(state)} == {first.name, second.name}
    assert len(snapshots.every(state)) == 1
    assert state.db.read("SELECT count(*) FROM documents") == [(2,)]


def test_a_name_moves_to_another_image(state: State) -> None:
    """Putting a name again replaces what it stood for, keeps its age and drops the old documents."""
    old = pulled(state, "app", layer(1))
    before = images.find(state, old.name)
    new = pulled(state, "app", layer(2))
    found = images.find(state, old.name)
    assert before is not None
    assert found is not None
    assert found.chain_id == new.chain_id
    assert found.created == before.created
    assert found.last_used > before.last_used
    assert state.db.read("SELECT count(*) FROM documents") == [(2,)]


def test_refuses_an_image_whose_layer_is_missing(state: State) -> None:
    """The missing layer is named and nothing is recorded."""
    publish(state, layer(1))
    record = image("app", layer(1), layer(2))
    with pytest.raises(FailedPrecondition, match=layer(2).diff_id):
        images.put(state, record)
    assert images.every(state) == ()
    assert snapshots.every(state) == ()


def test_refuses_documents_that_are_not_what_their_digest_says(state: State) -> None:
    """A manifest or index with another digest is Corrupt."""
    publish(state, layer(1))
    record = image("app", layer(1))
    with pytest.raises(Corrupt, match="manifest of docker"):
        images.put(state, replace(record, manifest=b"{}"))
    with pytest.raises(Corrupt, match="target of docker"):
        images.put(state, replace(record, index=b"{}"))


@pytest.mark.parametrize("name", ["app", "docker.io/app:latest", "docker.io/library/app"])
def test_refuses_names_that_are_not_canonical(state: State, name: str) -> None:
    """Two spellings of one image would be two rows."""
    publish(state, layer(1))
    with pytest.raises(InvalidInput, match="canonical"):
        images.put(state, replace(image("app", layer(1)), name=name))


def test_refuses_a_chain_that_is_not_that_of_the_layers(state: State) -> None:
    """The ChainID must follow from the diffIDs."""
    publish(state, layer(1))
    with pytest.raises(InvalidInput, match="ChainID"):
        images.put(state, replace(image("app", layer(1)), chain_id=Digest.of(b"other")))


def test_refuses_an_image_without_layers(state: State) -> None:
    """There would be nothing to mount."""
    with pytest.raises(Unsupported, match="no layers"):
        images.put(state, replace(image("app", layer(1)), diff_ids=()))


def test_an_image_may_have_the_same_layer_twice(state: State) -> None:
    """The chain lists it once, at its upper place; the snapshots know both."""
    one, two = layer(1), layer(2)
    record = image("app", one, two, one)
    pull(state, record, [one, two])
    chain = snapshots.chain(state, record.chain_id)
    assert chain.diff_ids == (one.diff_id, two.diff_id)
    assert len(snapshots.every(state)) == 3
    assert check(state) == []


def test_remove_forgets_the_name_only(state: State) -> None:
    """Layers and snapshots stay until gc; documents nobody else needs go."""
    record = pulled(state, "app", layer(1))
    images.remove(state, record.name)
    assert images.find(state, record.name) is None
    assert layers.find(state, layer(1).diff_id) is not None
    assert snapshots.find(state, record.chain_id) is not None
    assert state.db.read("SELECT count(*) FROM documents") == [(0,)]


def test_remove_of_an_unknown_name_says_so(state: State) -> None:
    """The caller decides whether that is an error."""
    with pytest.raises(NotFound):
        images.remove(state, "docker.io/library/app:latest")


def test_remove_refuses_what_is_pinned(state: State) -> None:
    """The message names every owner."""
    record = pulled(state, "app", layer(1))
    pins.add(state, "imc-1", "image", record.name)
    pins.add(state, "imc-2", "image", record.name)
    with pytest.raises(FailedPrecondition, match="imc-1, imc-2"):
        images.remove(state, record.name)
    pins.remove(state, "imc-1")
    pins.remove(state, "imc-2")
    images.remove(state, record.name)


def test_touch_is_seen_at_once_and_written_later(state: State) -> None:
    """A touch costs no transaction; the next flush writes it."""
    record = pulled(state, "app", layer(1))
    images.touch(state, record.name)
    touched = state.touched[record.name]
    found = images.find(state, record.name)
    assert found is not None
    assert found.last_used == touched
    assert state.db.read("SELECT last_used FROM images") != [(touched,)]
    state.db.transact(lambda connection: images.flush(state, connection))
    assert state.db.read("SELECT last_used FROM images") == [(touched,)]


def test_a_changed_document_reads_as_damage(state: State) -> None:
    """Wrong bytes are never given out as a manifest; pulling again mends it."""
    record = pulled(state, "app", layer(1))
    digest = str(Digest.of(record.config))
    state.db.transact(
        lambda connection: connection.execute("UPDATE documents SET data = x'00' WHERE digest = ?", (digest,))
    )
    found = images.find(state, record.name)
    assert found is not None
    assert found.damaged
    assert found.config == b""
    assert found.manifest == record.manifest
    pull(state, record, [layer(1)])
    found = images.find(state, record.name)
    assert found is not None
    assert not found.damaged
