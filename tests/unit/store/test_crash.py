"""SIGKILL at every named point: the next open finds a sound store, and nothing that was published is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagecached.errors import OutOfSpace
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, pins, shelf, snapshots
from imagecached.store.points import POINTS, disarm
from imagecached.store.records import StorePolicy
from imagecached.store.repair import put_right
from imagecached.store.state import State
from tests.unit.store.building import (
    ROOMY,
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
from tests.unit.store.dying import Act, die, trace

KEPT = (base_with_modes(), without_parents(1))
APP = (base_with_modes(), without_parents(2), layer(1))


def nothing(_: State | Path) -> None:
    """No preparation, or nothing to do but open and close."""


@dataclass(frozen=True)
class Scenario:
    """``prepare`` an open store, ``spoil`` the closed root; then ``act`` dies in the middle."""

    prepare: Callable[[State], object] = nothing
    spoil: Callable[[Path], object] = nothing
    act: Act = nothing
    repaired: bool = False  # faults may be left that a repair of the survivor must remove


def unlink_layer(root: Path) -> None:
    """Lose one layer of the image ``lost``."""
    next(root.glob(f"layers/*/*/{layer(7).diff_id.hex}.erofs")).unlink()


def stray_files(root: Path) -> None:
    """A sound layer file without row, and strays of every kind."""
    for digest, content in ((layer(8).diff_id, layer(8).content), (Digest.of(b"stray"), b"stray")):
        for folder in ("layers", "seams"):
            path = root / folder / "sha256" / digest.hex[:2] / f"{digest.hex}.erofs"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (root / "ingest" / "unfinished.erofs").write_text("x")


def corrupt_files(root: Path) -> None:
    """Flip a byte of a layer that nothing else needs, and of a seam."""
    for path in (
        next(root.glob(f"layers/*/*/{layer(7).diff_id.hex}.erofs")),
        next(root.glob(f"seams/*/*/{image('app', *APP[:2]).chain_id.hex}.erofs")),
    ):
        with path.open("r+b") as file:
            file.seek(5000)
            file.write(b"\xff")
    stray_files(root)


def corrupt_database(root: Path) -> None:
    (root / "metadata.db").write_bytes(b"garbage" * 1000)


def mend(state: State) -> None:
    put_right(state, check(state))


def evict(state: State) -> None:
    state.budget.policy = StorePolicy(quota_bytes=state.budget.used(), free_bytes=0)
    with suppress(OutOfSpace):  # the survivor may have nothing left to evict
        collect.make_room(state, 1)
    state.budget.policy = ROOMY


def app(state: State) -> None:
    pulled(state, "app", *APP)


def lost(state: State) -> None:
    app(state)
    pulled(state, "lost", layer(6), layer(7))


def removed(state: State) -> None:
    app(state)
    images.remove(state, image("app", *APP).name)


SCENARIOS = {
    "publish a layer": Scenario(act=lambda state: publish(state, layer(1))),
    "pull an image": Scenario(act=app),
    "record an image": Scenario(
        prepare=lambda state: [publish(state, one) for one in APP],
        act=lambda state: images.put(state, image("app", *APP)),
    ),
    "record a chain": Scenario(
        prepare=lambda state: [publish(state, one) for one in APP[:2]],
        act=lambda state: images.put_chain(state, image("app", *APP[:2]).diff_ids),
    ),
    "remove an image": Scenario(prepare=app, act=lambda state: images.remove(state, image("app", *APP).name)),
    "pin": Scenario(act=lambda state: pins.add(state, "other", "layer", layer(1).diff_id)),
    "shelf": Scenario(act=lambda state: shelf.put(state, "note", "a", b"{}")),
    "collect": Scenario(prepare=removed, act=collect.collect),
    "evict": Scenario(prepare=app, act=evict),
    "repair": Scenario(prepare=lost, spoil=corrupt_files, act=mend, repaired=True),
    "open with stray files": Scenario(prepare=app, spoil=stray_files),
    "open with a layer lost": Scenario(prepare=lost, spoil=unlink_layer),
}


def prepared(root: Path, scenario: Scenario) -> Path:
    """A closed root that holds a pinned image and what the scenario needs."""
    with opened(root) as (state, _):
        record = pulled(state, "kept", *KEPT)
        pins.add(state, "owner", "image", record.name)
        scenario.prepare(state)
    scenario.spoil(root)
    return root


def check_sound(state: State, scenario: Scenario) -> None:
    """No orphan, no unfinished file, and all that was published and not removed is whole."""
    if scenario.repaired:
        mend(state)
    assert {finding.kind for finding in check(state)} <= {"image_damaged"}
    assert list(state.layout.ingest.iterdir()) == []
    seams = {one.chain_id for one in snapshots.every(state) if one.seam}
    assert files(state) == {one.diff_id for one in layers.every(state)} | seams
    kept = images.find(state, image("kept", *KEPT).name)
    assert kept is not None
    assert not kept.damaged
    assert snapshots.chain(state, kept.chain_id).seam is not None
    assert [pin.owner for pin in pins.every(state)][-1] == "owner"


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_killed_at_every_point(name: str, tmp_path: Path) -> None:
    """At each point of the scenario in turn; afterwards the survivor can do it all again."""
    scenario = SCENARIOS[name]
    origin = prepared(tmp_path / "origin", scenario)
    shutil.copytree(origin, tmp_path / "traced")
    passed = trace(tmp_path / "traced", scenario.act)
    assert passed
    for index, point in enumerate(passed):
        root = tmp_path / f"{index}-{point}"
        shutil.copytree(origin, root)
        assert die(root, scenario.act, index)
        with opened(root) as (state, _):
            check_sound(state, scenario)
            if name != "remove an image" or images.find(state, image("app", *APP).name):
                scenario.act(state)
            check_sound(state, scenario)
            pull(state, image("app", *APP), APP)
            check_sound(state, scenario)
        shutil.rmtree(root)


def test_killed_while_a_corrupt_database_is_replaced(tmp_path: Path) -> None:
    """The layers are adopted by whoever comes next; the corrupt file is never deleted."""
    with opened(tmp_path / "origin") as (state, _):
        app(state)
    corrupt_database(tmp_path / "origin")
    shutil.copytree(tmp_path / "origin", tmp_path / "traced")
    for index, _ in enumerate(trace(tmp_path / "traced", nothing)):
        root = tmp_path / f"{index}"
        shutil.copytree(tmp_path / "origin", root)
        assert die(root, nothing, index)
        with opened(root) as (state, _):
            assert {one.diff_id for one in layers.every(state)} == {one.diff_id for one in APP}
            assert (root / "metadata.db.corrupt-1").read_bytes() == b"garbage" * 1000
            pull(state, image("app", *APP), APP)
            assert check(state) == []


def test_an_image_is_recorded_wholly_or_not_at_all(tmp_path: Path) -> None:
    """Killed while it is recorded, its snapshots and its name are both there or both not."""
    scenario = SCENARIOS["record an image"]
    origin = prepared(tmp_path / "origin", scenario)
    before = len(trace_names(origin, tmp_path))
    seen = set()
    for index in range(before):
        root = tmp_path / f"{index}"
        shutil.copytree(origin, root)
        assert die(root, scenario.act, index)
        with opened(root) as (state, _):
            found = images.find(state, image("app", *APP).name)
            seen.add(found is not None)
            assert (snapshots.find(state, image("app", *APP).chain_id) is not None) == (found is not None)
            assert len(layers.every(state)) == len({*KEPT, *APP})
    assert seen == {True, False}


def trace_names(origin: Path, tmp_path: Path) -> list[str]:
    shutil.copytree(origin, tmp_path / "traced")
    return trace(tmp_path / "traced", SCENARIOS["record an image"].act)


def test_every_point_is_reached(tmp_path: Path) -> None:
    """The list of points is complete, and no scenario above forgets one."""
    seen = set()
    for name, scenario in SCENARIOS.items():
        seen.update(trace(prepared(tmp_path / name, scenario), scenario.act))
    with opened(tmp_path / "database"):
        pass
    corrupt_database(tmp_path / "database")
    seen.update(trace(tmp_path / "database", nothing))
    disarm()
    assert seen == set(POINTS)
