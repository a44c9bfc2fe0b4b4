"""registration.plan and registration.wanted: from any state of containerd to the one wanted, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.containerd.nouns import ImageRecord
from imagecached.errors import Corrupt, ImagecachedError
from imagecached.oci.reference import Reference
from imagecached.registration import plan
from imagecached.registration.plan import MakeChain, PutBlob
from imagecached.registration.wanted import (
    MADE,
    MANAGED,
    OWNER,
    PART,
    PINNED,
    Mode,
    Wanted,
    names_of_all,
    wanted_of,
    with_source,
)
from imagecached.store import ImageRecord as StoredImage
from tests.unit.registration import modelling
from tests.unit.registration.modelling import Model, stored

A, B = "docker.io/library/a:1", "docker.io/library/b:1"


def wanted(image: StoredImage, mode: Mode = "default") -> Wanted:
    """What is wanted of it by the snapshotter of these tests."""
    return wanted_of(image, mode, modelling.OWNER)


def undo(model: Model, *staying: StoredImage, mode: Mode = "default") -> None:
    """Forget all images but these."""
    manifests = {str(image.manifest_digest) for image in staying}
    todo = plan.undo(
        list(model.records.values()), modelling.OWNER, names=names_of_all(staying, mode), manifests=manifests
    )
    model.take(todo)


def config_of(image: Wanted) -> str:
    """The name of the record that CRI calls the image's id."""
    return next(iter(image.records))


def test_names_by_mode() -> None:
    """By tag in default mode only; by both digests always, and by the config's, which is the first."""
    image = stored(A)
    by_index, by_manifest = (
        f"docker.io/library/a@{it}" for it in (image.target.digest, image.manifest_digest)
    )
    default, handler = wanted(image), wanted(image, "handler")
    assert list(default.records) == [config_of(default), A, by_index, by_manifest]
    assert list(handler.records) == [config_of(default), by_index, by_manifest]
    assert config_of(default).startswith("sha256:")
    assert default.records[by_manifest].digest == image.manifest_digest
    assert {default.records[name] for name in (A, by_index, config_of(default))} == {image.target}


def test_names_of_an_image_that_was_pulled_by_digest() -> None:
    """CRI drops a tag that stands beside a digest, so nobody asks for it; nor may it name another image."""
    image = stored(f"{A}@{stored(A).target.digest}")
    assert not any("/a:1" in name for name in wanted(image).records)


def test_labels_that_garbage_collection_follows() -> None:
    """Index → manifest → config → top of the chain; layers that are not stored are not named."""
    image = stored(A)
    config, manifest, index = wanted(image).blobs
    assert config.labels == {"containerd.io/gc.ref.snapshot.imagecached": str(image.chain_id)}
    assert manifest.labels == {"containerd.io/gc.ref.content.config": str(config.digest)}
    assert list(index.labels.values()) == [str(image.manifest_digest)]
    assert all(key.startswith("containerd.io/gc.ref.content.imagecached-") for key in index.labels)
    assert [blob.data for blob in (config, manifest, index)] == [image.config, image.manifest, image.index]


def test_an_image_without_index() -> None:
    """Its manifest is the target, and there is one name by digest."""
    image = stored(A, index=False)
    assert len(wanted(image).blobs) == 2
    assert len(wanted(image).records) == 3


def test_an_index_of_indexes() -> None:
    """What lies between is not kept, and containerd could not follow: the manifest is the target."""
    image = stored(A)
    other = stored(A, salt="other")
    nested = replace(image, index=other.index, target=other.target)
    it = wanted(nested)
    by_manifest = f"docker.io/library/a@{image.manifest_digest}"
    assert list(it.records) == [config_of(it), A, by_manifest]
    assert {target.digest for target in it.records.values()} == {image.manifest_digest}
    assert len(it.blobs) == 2


def test_documents_that_are_none() -> None:
    """What the store lost, or what is another image's, is refused."""
    one, three = stored(A), stored(A, layers=3)
    with pytest.raises(ImagecachedError):
        wanted(replace(one, manifest=b""))
    with pytest.raises(Corrupt):
        wanted(replace(one, manifest=three.manifest))


def test_an_empty_containerd() -> None:
    """Blobs, then the chain, then the records: nobody sees a record of what is not there."""
    model, it = Model(), wanted(stored(A))
    kinds = [type(step).__name__ for step in model.missing(it)]
    assert kinds == ["PutBlob"] * 3 + ["MakeChain"] + ["CreateRecord"] * 4
    model.settle(it)
    assert model.missing(it) == ()
    assert all(
        {MANAGED, PINNED, (OWNER, modelling.OWNER), (PART, MADE)} <= set(record.labels.items())
        for record in model.records.values()
    )


def test_after_an_ordinary_pull() -> None:
    """The tag's record came back without our labels: it is pinned, and marked as pinned only."""
    model, it = Model(), wanted(stored(A))
    model.settle(it)
    model.pulled(A, it.records[A], dict((MANAGED,)))
    model.settle(it)
    assert model.records[A].labels[PINNED[0]] == PINNED[1]
    assert model.missing(it) == ()
    undo(model)
    assert model.records[A].labels == dict((MANAGED,))


def test_a_tag_that_others_moved() -> None:
    """It is theirs: not moved back, not pinned, not deleted."""
    model, it, newer = Model(), wanted(stored(A)), stored(A, salt="newer")
    model.pulled(A, newer.target)
    before = model.records[A]
    model.settle(it)
    assert model.records[A] == before
    assert model.missing(it) == ()
    undo(model)
    assert list(model.records.values()) == [before]


def test_a_tag_that_we_moved() -> None:
    """A refreshed image takes its tag along; the digests of the old one go with the next sweep."""
    model, old, new = Model(), stored(A), stored(A, salt="newer")
    model.settle(wanted(old))
    model.settle(wanted(new))
    assert model.records[A].target.digest == new.target.digest
    undo(model, new)
    assert set(model.records) == set(wanted(new).records)


def test_pinned_by_somebody_else() -> None:
    """A pin that was there stays when ours goes."""
    model, it = Model(), wanted(stored(A))
    model.pulled(A, it.records[A], dict((MANAGED, PINNED)))
    model.settle(it)
    undo(model)
    assert model.records[A].labels == dict((MANAGED, PINNED))


def test_images_that_share_their_config() -> None:
    """Two manifests may have one config. Both are there, none takes the id from the other, and the id comes
    back when the image that brought it goes.
    """
    model, first, second = Model(), stored(A), stored(B, index=False)
    assert config_of(wanted(first)) == config_of(wanted(second))
    for it in (first, second, first, second):
        model.settle(wanted(it))
    assert model.missing(wanted(first)) == model.missing(wanted(second)) == ()


def test_two_names_of_one_image() -> None:
    """What they share stays until the last of them goes."""
    model, first, second = Model(), stored(A), stored(B)
    model.settle(wanted(first))
    model.settle(wanted(second))
    undo(model, second)
    assert set(model.records) == set(wanted(second).records)
    undo(model)
    assert model.records == {}


def test_an_image_that_others_pulled_as_well() -> None:
    """Its id stays with them, unpinned and no longer ours, when we go."""
    model, it = Model(), wanted(stored(A))
    model.settle(it)
    model.pulled(B, it.records[A], dict((MANAGED,)))
    undo(model)
    assert set(model.records) == {config_of(it), B}
    assert model.records[config_of(it)].labels == dict((MANAGED,))


def test_another_daemons_records() -> None:
    """The records of another snapshotter are none of our business."""
    model, it = Model(), wanted_of(stored(A), "default", "other")
    model.take(plan.steps(it, model.facts(it), "other"))
    before = dict(model.records)
    undo(model)
    assert model.records == before


@pytest.mark.parametrize("has_layers", [True, False])
def test_a_chain_that_cannot_be_had(has_layers: bool) -> None:
    """Our records go; those of others only if the image could not be unpacked by others either."""
    model, it = Model(), wanted(stored(A))
    model.settle(it)
    model.pulled(B, it.records[A], dict((MANAGED,)))
    todo = plan.withdrawal(
        list(model.records.values()), modelling.OWNER, it.manifest_digest, has_layers=has_layers
    )
    model.take(todo)
    assert set(model.records) == ({config_of(it), B} if has_layers else set())


def test_a_withdrawal_leaves_other_images_alone() -> None:
    """Only the records of that manifest go."""
    model, it, other = Model(), wanted(stored(A)), wanted(stored(B, salt="b"))
    model.settle(it)
    model.settle(other)
    model.take(
        plan.withdrawal(list(model.records.values()), modelling.OWNER, it.manifest_digest, has_layers=False)
    )
    assert set(model.records) == set(other.records)


def test_sources_are_joined_and_bounded() -> None:
    """A blob that is in two repositories names both; a list that is too long is left as it is."""
    key = "containerd.io/distribution.source.docker.io"
    assert with_source({}, (key, "a")) == {key: "a"}
    assert with_source({key: "a"}, (key, "b")) == {key: "a,b"}
    assert with_source({key: "a,b"}, (key, "a")) == {}
    assert with_source({key: "x" * 4060}, (key, "b")) == {}


@given(
    removed=st.lists(st.integers(0, 10_000), max_size=6),
    relabelled=st.lists(st.integers(0, 10_000), max_size=4),
    images=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.booleans()), max_size=4),
    chainless=st.booleans(),
    mode=st.sampled_from(("default", "handler")),
)
def test_any_damage_is_repaired(
    removed: list[int],
    relabelled: list[int],
    images: list[tuple[str, str, bool]],
    chainless: bool,
    mode: Mode,
) -> None:
    """Whatever was removed or relabelled: one plan brings all of it back, the next has no step, and undoing
    everything leaves no record of ours.
    """
    model = Model()
    made = {name: stored(f"example.com/{name}:1", salt=salt, index=index) for name, salt, index in images}
    all_wanted = [wanted(image, mode) for image in made.values()]
    for it in all_wanted:
        model.settle(it)
    for number in removed:
        keys = [(model.records, key) for key in model.records] + [(model.blobs, key) for key in model.blobs]
        if keys:
            where, key = keys[number % len(keys)]
            where.pop(key)
    for number in relabelled:
        if model.records:
            name = sorted(model.records)[number % len(model.records)]
            model.records[name] = ImageRecord(name, model.records[name].target, {})
    if chainless:
        model.chains.clear()
    for it in all_wanted:
        model.settle(it)
    assert all(model.missing(it) == () for it in all_wanted)
    undo(model, mode=mode)
    assert all(record.labels.get(OWNER) is None for record in model.records.values())


def test_the_chain_is_made_before_records_and_after_blobs_only_if_it_is_missing() -> None:
    """A chain that is there is not asked for again."""
    model, it = Model(), wanted(stored(A))
    model.chains.update(it.chain)
    assert not any(isinstance(step, MakeChain) for step in model.missing(it))
    model.settle(it)
    model.blobs.pop(it.blobs[0].digest)
    [step] = model.missing(it)
    assert isinstance(step, PutBlob)


def test_layers_are_named_as_containerd_names_them() -> None:
    """Their ingests and references are those of an ordinary pull, which then goes on where we stopped."""
    it = wanted(stored(A))
    assert [layer.ref for layer in it.layers] == [f"layer-{layer.descriptor.digest}" for layer in it.layers]
    assert list(it.layer_references) == [
        "containerd.io/gc.ref.content.l.0",
        "containerd.io/gc.ref.content.l.1",
    ]
    assert it.layers[1].labels["containerd.io/uncompressed"] == str(it.layers[1].diff_id)
    assert Reference.parse(A) == it.image
