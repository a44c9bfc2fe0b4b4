"""gc and make_room done: rows and files go together, and never what somebody is about to use."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from imagecached.errors import OutOfSpace
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, pins, snapshots
from imagecached.store.ledger import Book, Ledger, Record
from imagecached.store.points import arm
from imagecached.store.records import GcReport, ImageRecord, PinKind, StorePolicy
from imagecached.store.state import State
from tests.unit.store.building import (
    Clock,
    base_with_modes,
    check,
    files,
    image,
    ingesting,
    layer,
    publish,
    pull,
    pulled,
    without_parents,
)


def set_policy(state: State, policy: StorePolicy) -> None:
    state.budget.policy = policy


def test_removes_what_a_removed_image_used(state: State) -> None:
    """Files, rows and seam go; what another image shares stays."""
    pulled(state, "stays", base_with_modes())
    record = pulled(state, "goes", base_with_modes(), without_parents())
    images.remove(state, record.name)
    used = state.budget.used()
    report = collect.collect(state)
    assert report.layers == (without_parents().diff_id,)
    assert report.snapshots == report.seams == (record.chain_id,)
    assert state.budget.used() == used - report.freed_bytes
    assert files(state) == {base_with_modes().diff_id}
    assert check(state) == []
    assert collect.collect(state) == GcReport()


def test_a_dry_run_reports_the_same_and_does_nothing(state: State) -> None:
    """The report is the plan."""
    images.remove(state, pulled(state, "app", layer(1), layer(2)).name)
    stray = state.layout.layers / "stray"
    stray.write_text("")
    before = files(state)
    promised = collect.collect(state, dry_run=True)
    assert files(state) == before
    assert stray.exists()
    assert collect.collect(state) == promised
    assert promised.orphans == ("layers/stray",)
    assert files(state) == set()
    assert not stray.exists()


def test_evicts_by_last_use_above_the_high_watermark(state: State) -> None:
    """Down to the low one; touching an image saves it."""
    for number in range(4):
        pulled(state, f"app{number}", layer(number))
    each = state.budget.used() // 4
    images.touch(state, "docker.io/library/app0:latest")
    set_policy(state, StorePolicy(quota_bytes=4 * each, free_bytes=0, gc_high=0.9, gc_low=0.6))
    report = collect.collect(state)
    assert report.images == ("docker.io/library/app1:latest", "docker.io/library/app2:latest")
    assert collect.collect(state) == GcReport()
    assert check(state) == []


def test_a_yielding_owner_loses_its_pins_with_its_image(state: State) -> None:
    """Before anything that was pulled by hand, longest unused first; all pins of that owner go at once."""
    names = [pulled(state, f"app{number}", layer(number)).name for number in range(4)]
    for owner, owned in (("new", names[0]), ("old", names[1]), ("firm", names[2])):
        pins.add(state, owner, "image", owned)
    pins.add(state, "old", "layer", layer(9).diff_id)
    state.yielding.append(lambda: {"new": 20.0, "old": 10.0, "gone": 1.0})
    set_policy(state, StorePolicy(quota_bytes=state.budget.used(), free_bytes=0, gc_high=1.0, gc_low=1.0))
    report = collect.make_room(state, 1)
    assert (report.images, report.owners) == ((names[1],), ("old",))
    assert {pin.owner for pin in pins.every(state)} == {"new", "firm"}
    set_policy(state, StorePolicy(quota_bytes=1, free_bytes=0, gc_high=1.0, gc_low=1.0))
    assert collect.collect(state).images == (names[0], names[3])
    assert [one.name for one in images.every(state)] == [names[2]]
    assert check(state) == []


def test_an_image_that_a_firm_owner_has_pinned_too_stays(state: State) -> None:
    """One owner that yields does not decide for another."""
    name = pulled(state, "app", layer(1)).name
    pins.add(state, "soft", "image", name)
    pins.add(state, "firm", "image", name)
    state.yielding.append(lambda: {"soft": 1.0})
    set_policy(state, StorePolicy(quota_bytes=1, free_bytes=0))
    assert collect.collect(state) == GcReport()
    assert len(pins.every(state)) == 2


def test_make_room_evicts_only_as_much_as_needed(state: State) -> None:
    """Nothing happens while there is room."""
    for number in range(3):
        pulled(state, f"app{number}", layer(number))
    each = state.budget.used() // 3
    set_policy(state, StorePolicy(quota_bytes=4 * each, free_bytes=0, gc_high=1.0, gc_low=1.0))
    assert collect.make_room(state, each) == GcReport()
    report = collect.make_room(state, each + 1)
    assert report.images == ("docker.io/library/app0:latest",)


def test_make_room_for_too_much_evicts_nothing(state: State) -> None:
    """A pull that cannot fit must not cost the images that are there; the message has the figures."""
    for number in range(3):
        pulled(state, f"app{number}", layer(number))
    spare = publish(state, layer(9))
    set_policy(state, StorePolicy(quota_bytes=1 << 20, free_bytes=0))
    with pytest.raises(OutOfSpace, match=r"no room for 1\.0 GiB more .* quota of 1\.0 MiB"):
        collect.make_room(state, 1 << 30)
    assert len(images.every(state)) == 3
    assert layers.find(state, spare.diff_id) is None


def test_the_free_floor_counts_like_a_quota(state: State) -> None:
    """Space promised to others is never used, without any quota."""
    pulled(state, "app", layer(1))
    set_policy(state, StorePolicy(free_bytes=state.budget.free() * 2))
    assert state.budget.limit() == 0
    with pytest.raises(OutOfSpace, match="no quota"):
        collect.make_room(state, 1)


def test_writing_past_the_quota_evicts_and_goes_on(state: State) -> None:
    """A pull whose layers inflate to more than was known makes room while it writes."""
    old = pulled(state, "old", layer(1))
    each = state.budget.used()
    set_policy(state, StorePolicy(quota_bytes=each + 100, free_bytes=0))
    publish(state, layer(2))
    assert images.find(state, old.name) is None
    assert check(state) == []


def test_writing_past_the_quota_fails_when_nothing_may_go(state: State) -> None:
    """The partial file goes with the failure."""
    old = pulled(state, "old", layer(1))
    pins.add(state, "owner", "image", old.name)
    set_policy(state, StorePolicy(quota_bytes=state.budget.used() + 100, free_bytes=0))
    with pytest.raises(OutOfSpace):
        publish(state, layer(2))
    assert list(state.layout.ingest.iterdir()) == []
    assert images.find(state, old.name) is not None


@pytest.mark.parametrize("kind", ["image", "chain", "layer"])
def test_pins_keep_what_they_name(state: State, kind: PinKind) -> None:
    """Until they are removed; a pinned chain or layer outlives its image."""
    record = pulled(state, "app", layer(1))
    value = record.name if kind == "image" else record.chain_id
    pins.add(state, "owner", kind, value)
    pins.add(state, "owner", kind, value)
    if kind != "image":
        images.remove(state, record.name)
    set_policy(state, StorePolicy(quota_bytes=1, free_bytes=0))
    assert collect.collect(state) == GcReport()
    pins.remove(state, "owner")
    assert collect.collect(state).layers == (layer(1).diff_id,)


def test_what_is_mounted_stays(state: State) -> None:
    """The sources of mounts are asked each time; they name layer files and seams."""
    record = pulled(state, "app", base_with_modes(), without_parents())
    chain = snapshots.chain(state, record.chain_id)
    assert chain.seam is not None
    mounted = {chain.seam, *chain.layers}
    state.in_use.append(lambda: state.layout.digests_of(mounted))
    images.remove(state, record.name)
    assert collect.collect(state) == GcReport()
    mounted.clear()
    assert set(collect.collect(state).layers) == {base_with_modes().diff_id, without_parents().diff_id}


def test_a_source_of_mounts_that_fails_stops_gc(state: State) -> None:
    """Not knowing what is mounted, nothing is removed."""

    def fail() -> frozenset[Digest]:
        raise OSError("mountinfo unreadable")

    images.remove(state, pulled(state, "app", layer(1)).name)
    state.in_use.append(fail)
    with pytest.raises(OSError, match="mountinfo"):
        collect.collect(state)
    assert files(state) == {layer(1).diff_id}


def test_layers_of_a_running_pull_stay(state: State) -> None:
    """Between the publishing of its layers and the recording of the image the hold keeps them."""
    record = image("app", layer(1), layer(2))
    with state.hold("pull app") as hold:
        hold.add(record.diff_ids)
        publish(state, layer(1))
        assert collect.collect(state) == GcReport()
        publish(state, layer(2))
        images.put(state, record)
    assert collect.collect(state) == GcReport()
    assert check(state) == []


def test_an_ended_hold_keeps_nothing(state: State) -> None:
    """A pull that failed leaves its layers to gc."""
    with state.hold("pull app", [layer(1).diff_id]):
        publish(state, layer(1))
    assert collect.collect(state).layers == (layer(1).diff_id,)


def test_gc_leaves_an_ingest_alone(state: State) -> None:
    """Neither its file nor the name it is about to take."""
    with ingesting(state, layer(1)) as ingest:
        assert collect.collect(state) == GcReport()
        assert ingest.path.exists()
        layers.publish(state, ingest, layer(1).info)
    assert layers.find(state, layer(1).diff_id) is not None


def test_gc_between_rename_and_row_leaves_the_file(state: State) -> None:
    """A layer file without row is not an orphan while its ingest is open."""

    def interfere(name: str) -> None:
        if name == "layer.renamed":
            assert collect.collect(state) == GcReport()

    arm(interfere)
    publish(state, layer(1))
    assert check(state) == []


def test_gc_while_an_image_is_recorded_takes_neither_layers_nor_seams(state: State) -> None:
    """At every point of put_image another thread's gc finds nothing to take."""
    record = image("app", base_with_modes(), without_parents())
    for one in (base_with_modes(), without_parents()):
        publish(state, one)
    reports: list[GcReport] = []

    def interfere(name: str) -> None:
        if name in ("seam.built", "seam.renamed", "seam.synced", "image.recorded"):
            reports.append(collect.collect(state, dry_run=True))

    arm(interfere)
    images.put(state, record)
    assert reports == [GcReport()] * 4


@pytest.mark.parametrize("stage", ["gc.planned", "gc.deleted"])
@pytest.mark.parametrize("released", [False, True])
def test_a_hold_that_comes_while_gc_decides_wins(state: State, stage: str, released: bool) -> None:
    """gc plans again, even if the holder was done before gc was: what it mounted is seen in the next plan."""
    record = pulled(state, "app", layer(1))
    images.remove(state, record.name)
    mounted: set[Digest] = set()
    state.in_use.append(lambda: frozenset(mounted))
    stages: list[str] = []

    def interfere(name: str) -> None:
        stages.append(name)
        if stages.count(stage) == 1 and name == stage:
            hold = state.hold("mount", [record.chain_id])
            assert snapshots.find(state, record.chain_id) is not None
            if released:
                mounted.add(record.chain_id)
                hold.release()

    arm(interfere)
    assert collect.collect(state) == GcReport()
    assert stages.count("gc.planned") == 2
    assert layers.find(state, layer(1).diff_id) is not None


def test_a_hold_on_something_else_does_not_disturb_gc(state: State) -> None:
    """Only what was to be removed is worth another plan."""
    images.remove(state, pulled(state, "app", layer(1)).name)

    def interfere(name: str) -> None:
        if name == "gc.deleted":
            state.hold("other", [layer(2).diff_id]).release()

    arm(interfere)
    assert collect.collect(state).layers == (layer(1).diff_id,)


def test_a_removed_layer_can_be_pulled_again(state: State) -> None:
    """Nothing of the first life stands in the way."""
    built = [base_with_modes(), without_parents()]
    record = pulled(state, "app", *built)
    images.remove(state, record.name)
    collect.collect(state)
    pull(state, record, built)
    assert check(state) == []


def test_gc_writes_the_touches_down(state: State) -> None:
    """The order of eviction survives a crash after a gc."""
    record = pulled(state, "app", layer(1))
    images.touch(state, record.name)
    collect.collect(state)
    assert state.db.read("SELECT last_used FROM images") == [(state.touched[record.name],)]


def test_layers_of_a_failed_pull_stay_for_a_while(state: State, clock: Clock) -> None:
    """With a grace; not when bytes are wanted, and not for ever."""
    publish(state, layer(1))
    assert collect.collect(state, grace_seconds=60) == GcReport()
    set_policy(state, StorePolicy(quota_bytes=state.budget.used(), free_bytes=0))
    assert collect.collect(state, dry_run=True, grace_seconds=60).layers == (layer(1).diff_id,)
    set_policy(state, StorePolicy(free_bytes=0))
    clock.now += 60
    assert collect.collect(state, grace_seconds=60).layers == (layer(1).diff_id,)


def test_images_that_the_runtime_only_knows_could_go(state: State) -> None:
    """They are named when bytes are wanted, least recently used first; what a container stands on is not, nor
    is anything named where it would not be enough.
    """
    used, known, newest = (pulled(state, name, layer(number)) for number, name in enumerate(("a", "b", "c")))
    records = [adopted(image, number) for number, image in enumerate((used, known, newest))]
    container = replace(records[0], name="c1", number=9, kind="active", parent=records[0].name, chain_id=None)
    for record in (*records, container):
        Ledger(state).change(partial(Book.put, record=record))
    size = state.budget.used()
    set_policy(state, StorePolicy(quota_bytes=size, free_bytes=0, gc_high=1.0, gc_low=1.0))
    assert collect.known_elsewhere(state) == ()
    assert collect.known_elsewhere(state, 1) == (known.name,)
    assert collect.known_elsewhere(state, size) == ()
    with pytest.raises(OutOfSpace):
        collect.make_room(state, 1)
    Ledger(state).shrink(lambda book: book.drop(records[1]))
    assert collect.make_room(state, 1).images == (known.name,)


def adopted(image: ImageRecord, number: int) -> Record:
    """The runtime knows the image's chain."""
    return Record(
        snapshotter="s",
        name=f"k/{number}",
        number=number,
        kind="committed",
        parent="",
        labels={},
        created=1,
        updated=1,
        chain_id=image.chain_id,
    )
