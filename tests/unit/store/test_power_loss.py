"""Losing power at every named point: what the disk has then is a sound store, with all that was promised.

The disk is a file below a loop device. A copy of that file has what the file system had written out at that
moment and nothing of what only the page cache had: just what a machine finds when power comes back.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagecached.layers.layerfile import LayerWriter
from imagecached.layers.limits import Limits
from imagecached.store import collect, images, layers, snapshots
from imagecached.store.ingests import Ingest
from imagecached.store.points import arm, disarm
from imagecached.store.state import State
from tests.unit.store.building import base_with_modes, check, files, image, layer, opened, without_parents

pytestmark = pytest.mark.root

APP = (base_with_modes(), without_parents(), layer(1, 100_000))
RECORD = image("app", *APP)
Copies = list[tuple[str, Path]]


@contextmanager
def mounted(disk: Path, directory: Path) -> Iterator[Path]:
    """The file system in ``disk``; its journal is written only when it must be."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop,commit=300", disk, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@contextmanager
def copied_at_every_point(disk: Path, target: Path) -> Iterator[Copies]:
    """Copies of the disk, one per point passed in the body, named after it."""
    copies: Copies = []

    def copy(name: str) -> None:
        path = target / f"{len(copies)}-{name}.img"
        subprocess.run(["cp", "--sparse=always", disk, path], check=True)
        copies.append((name, path))

    arm(copy)
    try:
        yield copies
    finally:
        disarm()


def pull(state: State) -> None:
    """Pull the image with the real layer writer, which makes the data durable."""
    with state.hold("pull", images.needs(RECORD)):
        for built in APP:
            ingest = Ingest(state, built.diff_id)
            ingest.open()
            writer = LayerWriter(ingest.fd, Limits(), built.diff_id)
            writer.feed(built.content[4096 : 4096 + built.info.tar_bytes])
            layers.publish(state, ingest, writer.finish())
            ingest.close()
        images.put(state, RECORD)


def remove(state: State) -> None:
    images.remove(state, RECORD.name)
    collect.collect(state)


def survivors(
    disk: Path, tmp_path: Path, prepare: Callable[[State], object], act: Callable[[State], object]
) -> Iterator[tuple[str, State]]:
    """The store on each copy, opened again, with the point it was taken at."""
    with mounted(disk, tmp_path / "disk") as directory:
        with opened(directory / "root") as (state, _):
            prepare(state)
        subprocess.run(["sync", "--file-system", directory], check=True)
        with opened(directory / "root") as (state, _), copied_at_every_point(disk, tmp_path) as copies:
            act(state)
    for name, copy in copies:
        with mounted(copy, tmp_path / "copy") as directory, opened(directory / "root") as (state, _):
            yield name, state
        copy.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An empty ext4 of 32 MiB."""
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", path], check=True)
    return path


def nothing(_: State) -> None:
    """An empty store."""


def test_power_is_lost_during_a_pull(disk: Path, tmp_path: Path) -> None:
    """No layer is ever there with other bytes than its own; what was reported as done is there."""
    published = 0
    seen = set()
    for name, state in survivors(disk, tmp_path, nothing, pull):
        published += name == "layer.synced"
        seen.add(name)
        assert check(state) == []
        assert len(layers.every(state)) >= published
        seams = {one.chain_id for one in snapshots.every(state) if one.seam}
        assert files(state) == {one.diff_id for one in layers.every(state)} | seams
        if name == "image.recorded":
            found = images.find(state, RECORD.name)
            assert found is not None
            assert not found.damaged
    assert {"layer.renamed", "seam.synced", "image.inserted", "image.recorded"} <= seen
    assert published == len(APP)


def test_power_is_lost_while_an_image_is_removed(disk: Path, tmp_path: Path) -> None:
    """The name is there, whole, or it is not; once it was reported as removed it does not come back."""
    seen = []
    for name, state in survivors(disk, tmp_path, pull, remove):
        seen.append(name)
        found = images.find(state, RECORD.name)
        assert check(state) == []
        assert found is None or not found.damaged
        if "image.removed" in seen:
            assert found is None
    assert seen[0] == "image.deleted"
    assert seen[-1] == "gc.unlinked"
