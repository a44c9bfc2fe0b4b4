"""The store against a dict: random histories with crashes, reopening and damage in between."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from imagecached.errors import OutOfSpace
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, pins, snapshots
from imagecached.store.holds import Hold
from imagecached.store.records import GcReport, ImageRecord, StorePolicy
from imagecached.store.recovery import open_state
from imagecached.store.repair import put_right
from imagecached.store.state import State
from tests.unit.store.building import (
    ROOMY,
    Clock,
    base_with_modes,
    check,
    files,
    image,
    layer,
    pull,
    without_parents,
)
from tests.unit.store.dying import die

BUILT = (base_with_modes(), without_parents(1), without_parents(2), layer(1), layer(2), layer(3))
BY_DIFF_ID = {built.diff_id: built for built in BUILT}
NAMES = ("a", "b", "c", "d")
OWNERS = ("x", "y")

names = st.sampled_from(NAMES)
stacks = st.lists(st.integers(0, len(BUILT) - 1), min_size=1, max_size=4)
owners = st.sampled_from(OWNERS)


class StoreMachine(RuleBasedStateMachine):
    """``images`` and ``pins`` are the model; ``damaged`` are the names whose layers were lost."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-model-"))
        self.images: dict[str, ImageRecord] = {}
        self.damaged: set[str] = set()
        self.pins: set[tuple[str, str, str]] = set()
        self.holds: dict[Hold, frozenset[Digest]] = {}
        self.clock = Clock()
        self.state: State

    def teardown(self) -> None:
        self.state.close()
        shutil.rmtree(self.folder)

    @initialize()
    def open(self) -> None:
        self.state, _ = open_state(self.folder / "root", ROOMY, self.clock)

    # The model's answers

    def pinned(self, record: ImageRecord) -> bool:
        return any(kind == "image" and value == record.name for _, kind, value in self.pins)

    def keepers(self) -> set[Digest]:
        """DiffIDs that plain gc must keep, if they are there."""
        wanted = {digest for held in self.holds.values() for digest in held}
        wanted |= {Digest(value) for _, kind, value in self.pins if kind != "image"}
        for record in self.images.values():
            wanted |= set(record.diff_ids)
        for snapshot in snapshots.every(self.state):
            if snapshot.chain_id in wanted:
                below = snapshots.chain(self.state, snapshot.chain_id)
                wanted |= set(below.diff_ids)
        return wanted

    def forget(self, report: GcReport) -> None:
        for name in report.images:
            assert not self.pinned(self.images[name])
            del self.images[name]
            self.damaged.discard(name)

    # What is done to the store

    @rule(name=names, stack=stacks)
    def pull(self, name: str, stack: list[int]) -> None:
        built = [BUILT[number] for number in stack]
        record = image(name, *built)
        pull(self.state, record, built)
        self.images[record.name] = record
        self.damaged.discard(record.name)

    @rule(name=names)
    def remove(self, name: str) -> None:
        full = f"docker.io/library/{name}:latest"
        if full in self.images and not self.pinned(self.images[full]):
            images.remove(self.state, full)
            del self.images[full]
            self.damaged.discard(full)

    @rule(name=names)
    def touch(self, name: str) -> None:
        images.touch(self.state, f"docker.io/library/{name}:latest")

    @rule(owner=owners, name=names)
    def pin_image(self, owner: str, name: str) -> None:
        full = f"docker.io/library/{name}:latest"
        pins.add(self.state, owner, "image", full)
        self.pins.add((owner, "image", full))

    @rule(owner=owners, stack=stacks)
    def pin_chain(self, owner: str, stack: list[int]) -> None:
        chain_id = chain_ids([BUILT[number].diff_id for number in stack])[-1]
        pins.add(self.state, owner, "chain", chain_id)
        self.pins.add((owner, "chain", chain_id))

    @rule(owner=owners)
    def unpin(self, owner: str) -> None:
        pins.remove(self.state, owner)
        self.pins = {pin for pin in self.pins if pin[0] != owner}

    @rule(target=held, number=st.integers(0, len(BUILT) - 1))
    def hold(self, number: int) -> Hold:
        hold = self.state.hold("model", [BUILT[number].diff_id])
        self.holds[hold] = frozenset([BUILT[number].diff_id])
        return hold

    @rule(hold=consumes(held))
    def release(self, hold: Hold) -> None:
        hold.release()
        self.holds.pop(hold, None)

    @rule()
    def gc(self) -> None:
        keepers = self.keepers() & {one.diff_id for one in layers.every(self.state)}
        promised = collect.collect(self.state, dry_run=True)
        assert collect.collect(self.state) == promised
        assert promised.images == ()
        assert {one.diff_id for one in layers.every(self.state)} == keepers
        assert collect.collect(self.state) == GcReport()

    @rule(share=st.integers(1, 100))
    def squeeze(self, share: int) -> None:
        """Ask for more than fits, so that images must go."""
        used = self.state.budget.used()
        self.state.budget.policy = StorePolicy(quota_bytes=used + 1, free_bytes=0, gc_high=1.0, gc_low=1.0)
        with suppress(OutOfSpace):
            self.forget(collect.make_room(self.state, 1 + used * share // 100))
        self.state.budget.policy = ROOMY

    # What happens to it

    @rule()
    def reopen(self) -> None:
        self.state.close()
        self.holds.clear()
        self.open()

    @rule(name=names, stack=stacks, index=st.integers(0, 40))
    def die_pulling(self, name: str, stack: list[int], index: int) -> None:
        built = [BUILT[number] for number in stack]
        record = image(name, *built)
        self.crash(lambda state: pull(state, record, built), index)
        found = images.find(self.state, record.name)
        if found is not None and found.manifest_digest == record.manifest_digest and not found.damaged:
            self.images[record.name] = record
            self.damaged.discard(record.name)

    @rule(name=names, index=st.integers(0, 4))
    def die_removing(self, name: str, index: int) -> None:
        full = f"docker.io/library/{name}:latest"
        if full in self.images and not self.pinned(self.images[full]):
            self.crash(lambda state: images.remove(state, full), index)
            if images.find(self.state, full) is None:
                del self.images[full]
                self.damaged.discard(full)

    @rule(index=st.integers(0, 20))
    def die_collecting(self, index: int) -> None:
        self.crash(collect.collect, index)

    def crash(self, act: Callable[[State], object], index: int) -> None:
        self.state.close()
        self.holds.clear()
        die(self.folder / "root", act, index)
        self.open()

    @precondition(lambda self: bool(layers.every(self.state)))
    @rule(place=st.integers(0, 1 << 30), at=st.integers(0, 1 << 30), repaired=st.booleans())
    def corrupt(self, place: int, at: int, repaired: bool) -> None:
        """A layer file changes, and fsck repairs; or it goes, and the next open finds it missing."""
        every = layers.every(self.state)
        victim = every[place % len(every)]
        content = bytearray(victim.path.read_bytes())
        content[4096 + at % victim.tar_bytes] ^= 0xFF
        if repaired:
            victim.path.write_bytes(content)
            found = [one for one in check(self.state) if one.kind != "image_damaged"]
            assert [(one.kind, one.subject) for one in found] == [("layer_corrupt", victim.diff_id)]
            put_right(self.state, check(self.state))
        else:
            victim.path.unlink()
            self.reopen()
        self.damaged |= {name for name, record in self.images.items() if victim.diff_id in record.diff_ids}

    @rule()
    def mend(self) -> None:
        """Pull every damaged image again."""
        for name in sorted(self.damaged):
            record = self.images[name]
            pull(self.state, record, [BY_DIFF_ID[diff_id] for diff_id in record.diff_ids])
        self.damaged.clear()

    # What must hold at any time

    @invariant()
    def images_are_those_of_the_model(self) -> None:
        found = {one.name: one for one in images.every(self.state)}
        assert found.keys() == self.images.keys()
        for name, record in self.images.items():
            full = images.find(self.state, name)
            assert full is not None
            assert (full.manifest, full.config, full.diff_ids) == (
                record.manifest,
                record.config,
                record.diff_ids,
            )
            assert full.damaged == found[name].damaged
            if not full.damaged:
                chain = snapshots.chain(self.state, full.chain_id)
                assert chain.diff_ids == tuple(dict.fromkeys(reversed(record.diff_ids)))
                self.damaged.discard(name)
            else:
                assert name in self.damaged

    @invariant()
    def pins_are_those_of_the_model(self) -> None:
        assert {(pin.owner, pin.kind, pin.value) for pin in pins.every(self.state)} == self.pins

    @invariant()
    def files_are_those_of_the_rows(self) -> None:
        seams = {one.chain_id for one in snapshots.every(self.state) if one.seam}
        assert files(self.state) == {one.diff_id for one in layers.every(self.state)} | seams
        assert list(self.state.layout.ingest.iterdir()) == []
        root = self.state.layout.root
        assert self.state.budget.used() == sum(
            path.stat().st_blocks * 512 for base in ("layers", "seams") for path in root.glob(f"{base}/*/*/*")
        )

    @invariant()
    def fsck_finds_only_the_damage_done(self) -> None:
        assert {one.subject for one in check(self.state)} <= self.damaged


StoreMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestStore = StoreMachine.TestCase
