"""Snapshots and their seams: built once, published with their rows, found by ChainID."""

from __future__ import annotations

import pytest

from imagecached.errors import NotFound, OutOfSpace
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import images, snapshots
from imagecached.store.points import arm
from imagecached.store.state import State
from tests.unit.store.building import (
    base_with_modes,
    check,
    files,
    image,
    layer,
    publish,
    pull,
    pulled,
    without_parents,
)


def test_a_chain_lists_its_layers_top_first(state: State) -> None:
    """The order overlayfs wants; no seam where none is needed."""
    built = [layer(1), layer(2), layer(3)]
    record = pulled(state, "app", *built)
    chain = snapshots.chain(state, record.chain_id)
    assert chain.seam is None
    assert chain.diff_ids == tuple(one.diff_id for one in reversed(built))
    assert chain.layers == tuple(state.layout.layer(diff_id) for diff_id in chain.diff_ids)


def test_an_unknown_chain_is_not_found(state: State) -> None:
    """The ChainID is named."""
    unknown = Digest.of(b"unknown")
    assert snapshots.find(state, unknown) is None
    with pytest.raises(NotFound, match=unknown):
        snapshots.chain(state, unknown)


def test_a_chain_that_needs_a_seam_has_one(state: State) -> None:
    """A tar without entries for its parent directories must not hide the lower layers' attributes."""
    record = pulled(state, "app", base_with_modes(), without_parents())
    snapshot = snapshots.find(state, record.chain_id)
    chain = snapshots.chain(state, record.chain_id)
    assert snapshot is not None
    assert snapshot.seam
    assert chain.seam == state.layout.seam(record.chain_id)
    assert chain.seam.stat().st_size > 0
    assert snapshots.chain(state, base_with_modes().diff_id).seam is None
    assert snapshot.disk_bytes == sum(path.stat().st_blocks * 512 for path in (chain.seam, *chain.layers))


def test_every_prefix_that_needs_a_seam_has_its_own(state: State) -> None:
    """A snapshot in the middle can be mounted by itself."""
    built = [base_with_modes(), without_parents(1), without_parents(2)]
    pulled(state, "app", *built)
    middle, top = chain_ids([one.diff_id for one in built])[1:]
    seams = [snapshots.chain(state, chain_id).seam for chain_id in (middle, top)]
    assert seams == [state.layout.seam(middle), state.layout.seam(top)]
    assert check(state) == []


def test_a_seam_is_built_once(state: State) -> None:
    """A second image over the same layers builds nothing."""
    built: list[str] = []
    arm(built.append)
    pulled(state, "app", base_with_modes(), without_parents())
    pulled(state, "same", base_with_modes(), without_parents())
    assert built.count("seam.built") == 1


def test_a_shared_prefix_is_not_built_again(state: State) -> None:
    """Only what is new above known snapshots gets rows and seams, upon the parent's seam."""
    pulled(state, "app", base_with_modes(), without_parents(1))
    built: list[str] = []
    arm(built.append)
    pulled(state, "more", base_with_modes(), without_parents(1), without_parents(2))
    assert built.count("seam.built") == 1
    assert len(snapshots.every(state)) == 3


def test_a_failed_record_takes_its_seams_back(state: State) -> None:
    """No seam stays without a row, and nothing unfinished either."""

    def fail(name: str) -> None:
        if name == "image.inserted":
            raise OutOfSpace("database full")

    arm(fail)
    with pytest.raises(OutOfSpace):
        pulled(state, "app", base_with_modes(), without_parents())
    assert files(state) == {base_with_modes().diff_id, without_parents().diff_id}
    assert list(state.layout.ingest.iterdir()) == []
    assert snapshots.every(state) == ()


def test_an_image_recorded_meanwhile_is_left_as_it_is(state: State) -> None:
    """Someone who records the same chain between our building and our recording wins; we add the name."""
    built = [base_with_modes(), without_parents()]
    for one in built:
        publish(state, one)
    first, second = image("first", *built), image("second", *built)
    seen: list[str] = []

    def interfere(name: str) -> None:
        seen.append(name)
        if seen.count("seam.built") == 1 and name == "seam.built":
            images.put(state, second)

    arm(interfere)
    images.put(state, first)
    assert seen.count("seam.built") == 2
    assert seen.count("seam.renamed") == 1
    assert [one.name for one in images.every(state)] == [first.name, second.name]
    assert check(state) == []


def test_deleting_a_layer_row_deletes_what_stands_on_it(state: State) -> None:
    """Snapshots above a lost layer go with it, those below stay."""
    built = [layer(1), layer(2), layer(3)]
    record = image("app", *built)
    pull(state, record, built)
    lowest, middle, top = chain_ids(record.diff_ids)
    dropped = state.db.transact(lambda connection: snapshots.drop(connection, diff_ids=[built[1].diff_id]))
    assert dropped == {middle, top}
    assert [one.chain_id for one in snapshots.every(state)] == [lowest]
    found = images.find(state, record.name)
    assert found is not None
    assert found.damaged
