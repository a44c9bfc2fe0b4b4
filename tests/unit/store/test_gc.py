"""The plan of gc: pure, so every rule is tried on small inventories and on random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store.gc import Candidate, Inventory, Link, Plan, plan

BYTES = 100
SEAM = 7


def layer(number: int) -> Digest:
    return Digest.of(b"layer%d" % number)


def inventory(
    images: Mapping[str, Sequence[int]],
    *,
    spare: Sequence[int] = (),
    pinned: Sequence[str] = (),
    kept: Sequence[Digest] = (),
    seams: Sequence[Digest] = (),
) -> Inventory:
    """Images by name with the numbers of their layers, least recently used first; ``spare``: other layers."""
    layers = {layer(number): BYTES for numbers in (*images.values(), spare) for number in numbers}
    snapshots: dict[Digest, Link] = {}
    candidates = []
    for used, (name, numbers) in enumerate(images.items()):
        diff_ids = tuple(layer(number) for number in numbers)
        parent = None
        for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True):
            snapshots[chain_id] = Link(parent, diff_id, SEAM if chain_id in seams else None)
            parent = chain_id
        candidates.append(Candidate(name, chain_ids(diff_ids)[-1], diff_ids, float(used)))
    return Inventory(layers, snapshots, candidates, frozenset(pinned), frozenset(kept))


def chain(*numbers: int) -> Digest:
    return chain_ids([layer(number) for number in numbers])[-1]


def applied(before: Inventory, plan: Plan) -> Inventory:
    return replace(
        before,
        layers={key: size for key, size in before.layers.items() if key not in plan.layers},
        snapshots={key: link for key, link in before.snapshots.items() if key not in plan.snapshots},
        images=[image for image in before.images if image.name not in plan.images],
    )


def test_nothing_goes_from_a_tidy_store() -> None:
    """Images keep what they use as long as no bytes are wanted."""
    assert plan(inventory({"a": [1, 2], "b": [1, 3]})) == Plan()


def test_layers_of_no_image_go() -> None:
    """Freed bytes are those allocated."""
    assert plan(inventory({"a": [1]}, spare=[2])) == Plan(layers=(layer(2),), freed_bytes=BYTES)


def test_snapshots_without_image_go_with_seams_and_layers() -> None:
    """Only what another image shares stays."""
    full = inventory({"a": [1], "b": [1, 2]}, seams=[chain(1, 2)])
    without = replace(full, images=full.images[:1])
    expected = Plan((), (chain(1, 2),), (chain(1, 2),), (layer(2),), BYTES + SEAM)
    assert plan(without) == expected


def test_what_yields_goes_before_everything_else() -> None:
    """However lately it was used: somebody pulled the others, or they are pinned for good."""
    full = inventory({"pulled": [1], "pinned": [2], "automatic": [3]}, pinned=["pinned"])
    yields = [replace(image, yields=image.name == "automatic") for image in full.images]
    assert plan(replace(full, images=yields), want=1).images == ("automatic",)
    assert plan(replace(full, images=yields), want=2 * BYTES).images == ("automatic", "pulled")
    assert plan(replace(full, images=yields), want=9 * BYTES).images == ("automatic", "pulled")


def test_of_images_used_at_once_the_cheapest_goes_first() -> None:
    """What another image shares need not be fetched again."""
    full = inventory({"big": [1, 2, 3], "small": [1, 4], "other": [1]})
    at_once = replace(full, images=[replace(image, last_used=1.0) for image in full.images])
    assert plan(at_once, want=1).images == ("small",)


def test_the_least_recently_used_image_goes_first() -> None:
    """And no more of them than needed."""
    found = plan(inventory({"old": [1], "middle": [2], "new": [3]}), want=BYTES + 1)
    assert found.images == ("old", "middle")
    assert found.freed_bytes == 2 * BYTES


def test_garbage_is_enough_when_it_frees_what_is_wanted() -> None:
    """No image is evicted for bytes that come free anyway."""
    found = plan(inventory({"a": [1]}, spare=[2]), want=BYTES)
    assert found == Plan(layers=(layer(2),), freed_bytes=BYTES)


def test_an_image_whose_eviction_frees_nothing_stays() -> None:
    """Its layers are shared with a pinned image."""
    found = plan(inventory({"twin": [1], "pinned": [1], "other": [2]}, pinned=["pinned"]), want=BYTES)
    assert found.images == ("other",)


def test_an_image_that_turned_out_needless_stays() -> None:
    """A small one evicted before a big one that frees enough alone is given back."""
    base = inventory({"small": [1], "big": [2]})
    sized = replace(base, layers={layer(1): 1, layer(2): 1000})
    assert plan(sized, want=1000).images == ("big",)
    assert plan(sized, want=1001).images == ("small", "big")


def test_two_names_of_one_chain_go_together() -> None:
    """One alone would free nothing."""
    found = plan(inventory({"a": [1], "b": [1]}), want=1)
    assert found.images == ("a", "b")
    assert found.freed_bytes == BYTES


def test_pinned_images_stay() -> None:
    """Whatever is wanted."""
    assert plan(inventory({"a": [1]}, pinned=["a"]), want=1 << 60) == Plan()


def test_a_kept_chain_keeps_all_below_it_and_its_image() -> None:
    """A mount or pin of a ChainID protects every layer of the chain and the name."""
    found = plan(inventory({"a": [1, 2], "b": [3]}, kept=[chain(1, 2)]), want=1 << 60)
    assert found.images == ("b",)
    assert found.layers == (layer(3),)


def test_a_kept_chain_needs_no_image() -> None:
    """A container goes on after its image was removed."""
    full = inventory({"a": [1, 2]}, kept=[chain(1, 2)])
    assert plan(replace(full, images=[]), want=1 << 60) == Plan()


def test_a_kept_layer_stays_but_not_its_image() -> None:
    """The rest of the image may go when bytes are wanted."""
    found = plan(inventory({"a": [1, 2]}, kept=[layer(2)]), want=1)
    assert found == Plan(("a",), tuple(sorted([chain(1), chain(1, 2)])), (), (layer(1),), BYTES)


def test_an_image_all_of_whose_layers_are_mounted_stays() -> None:
    """mountinfo names layer files, not images."""
    assert plan(inventory({"a": [1, 2]}, kept=[layer(1), layer(2)]), want=1 << 60) == Plan()


def test_a_damaged_image_keeps_the_layers_it_has() -> None:
    """The next pull fetches only what is missing."""
    full = inventory({"a": [1, 2]})
    damaged = replace(full, layers={layer(1): BYTES}, snapshots={})
    assert plan(damaged) == Plan()
    assert plan(damaged, want=1) == Plan(("a",), (), (), (layer(1),), BYTES)


def test_digests_that_are_not_there_keep_nothing() -> None:
    """A pin may name what was never pulled."""
    assert plan(inventory({}, spare=[1], kept=[layer(9)])).layers == (layer(1),)


NUMBERS = st.lists(st.integers(0, 7), min_size=1, max_size=4)
NAMES = [f"image{number}" for number in range(6)]
KEPT = st.one_of(st.integers(0, 7).map(layer), NUMBERS.map(lambda numbers: chain(*numbers)))


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """Random images that share layers, spare layers, seams, pins and leases; some were removed."""
    chains = draw(st.lists(NUMBERS, max_size=6))
    images = dict(zip(NAMES, chains, strict=False))
    seams = {chain(*numbers[: end + 1]) for numbers in chains for end in range(len(numbers)) if end % 2}
    made = inventory(
        images,
        spare=draw(st.lists(st.integers(0, 9), max_size=3)),
        pinned=draw(st.lists(st.sampled_from(NAMES), max_size=2)),
        kept=draw(st.lists(KEPT, max_size=2)),
        seams=sorted(seams),
    )
    removed = draw(st.sets(st.sampled_from(NAMES), max_size=2))
    return replace(made, images=[image for image in made.images if image.name not in removed])


@given(inventories(), st.integers(0, 1500))
def test_a_plan_takes_what_is_not_kept_and_nothing_else(before: Inventory, want: int) -> None:
    """Afterwards every reference still resolves, and planning again is idle."""
    found = plan(before, want=want)
    after = applied(before, found)
    for image in after.images:
        assert image.chain_id in after.snapshots or image.chain_id not in before.snapshots
        assert set(image.diff_ids) & before.layers.keys() <= after.layers.keys()
    for link in after.snapshots.values():
        assert link.diff_id in after.layers
        assert link.parent is None or link.parent in after.snapshots
    assert before.kept & before.layers.keys() <= after.layers.keys()
    assert before.kept & before.snapshots.keys() <= after.snapshots.keys()
    assert not before.pinned.intersection(found.images)
    assert plan(after) == Plan()
    seams = [before.snapshots[chain_id].seam_bytes or 0 for chain_id in found.snapshots]
    assert found.freed_bytes == BYTES * len(found.layers) + sum(seams)


@given(inventories(), st.integers(1, 1500))
def test_a_plan_frees_what_is_wanted_if_that_is_possible(before: Inventory, want: int) -> None:
    """It falls short only when even evicting everything evictable would; each evicted image was needed."""
    found = plan(before, want=want)
    most = plan(before, want=1 << 60)
    assert found.freed_bytes >= min(want, most.freed_bytes)
    for name in found.images:
        fewer = replace(before, pinned=before.pinned | (set(NAMES) - set(found.images)) | {name})
        assert plan(fewer, want=1 << 60).freed_bytes < min(want, most.freed_bytes)


@given(inventories())
def test_wanting_nothing_evicts_nothing(before: Inventory) -> None:
    """Plain gc never takes an image."""
    assert plan(before).images == ()
