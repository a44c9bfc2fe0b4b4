"""A disk that is really full, at every step of a pull: OutOfSpace, nothing half done, room can be made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagecached.errors import OutOfSpace
from imagecached.layers.layerfile import LayerWriter
from imagecached.layers.limits import Limits
from imagecached.store import collect, images, layers, pins, shelf, snapshots
from imagecached.store.ingests import Ingest
from imagecached.store.root import BALLAST_BYTES
from imagecached.store.state import State
from tests.unit.store.building import (
    Built,
    base_with_modes,
    check,
    files,
    image,
    layer,
    opened,
    pulled,
    without_parents,
)

pytestmark = pytest.mark.root

KEPT = (base_with_modes(), without_parents(1))
APP = (base_with_modes(), without_parents(2), layer(1, 30_000))
DISK_BYTES = 24 << 20
STEP = 4096


@contextmanager
def mounted(directory: Path, *arguments: str) -> Iterator[Path]:
    """A small file system of its own."""
    directory.mkdir()
    subprocess.run(["mount", *arguments, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB; ext4 allocates late and has blocks of its own."""
    if request.param == "tmpfs":
        with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none") as made:
            yield made
        return
    backing = tmp_path / "ext4.img"
    with backing.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", backing], check=True)
    with mounted(tmp_path / "disk", "-o", "loop", str(backing)) as made:
        yield made


class Filler:
    """Everything on the disk but so many bytes."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def leave(self, count: int) -> None:
        """Fill up until only ``count`` bytes are free."""
        self.clear()
        os.sync()
        fd = os.open(self._path, os.O_CREAT | os.O_WRONLY)
        try:
            size, chunk = 0, 1 << 20
            while chunk >= STEP:
                try:
                    os.posix_fallocate(fd, size, chunk)
                    size += chunk
                except OSError:
                    chunk //= 2
            os.ftruncate(fd, max(0, size - count))
            os.fsync(fd)
        finally:
            os.close(fd)

    def clear(self) -> None:
        self._path.unlink(missing_ok=True)


def written(state: State, built: Built) -> None:
    """Write a layer with the real writer and publish it."""
    ingest = Ingest(state, built.diff_id)
    try:
        ingest.open()
        writer = LayerWriter(ingest.fd, Limits(), built.diff_id)
        writer.feed(built.content[4096 : 4096 + built.info.tar_bytes])
        layers.publish(state, ingest, writer.finish())
    finally:
        ingest.close()


def app(state: State) -> None:
    """Pull the image that needs the room."""
    record = image("app", *APP)
    with state.hold("pull app", images.needs(record)):
        for one in APP:
            if layers.find(state, one.diff_id) is None:
                written(state, one)
        images.put(state, record)


def check_tidy(state: State) -> None:
    """Nothing is left of what failed, and the image that was there is whole."""
    assert list(state.layout.ingest.iterdir()) == []
    seams = {one.chain_id for one in snapshots.every(state) if one.seam}
    assert files(state) == {one.diff_id for one in layers.every(state)} | seams
    kept = images.find(state, image("kept", *KEPT).name)
    assert kept is not None
    assert not kept.damaged


def test_a_pull_fails_at_every_step_and_leaves_nothing_behind(disk: Path) -> None:
    """With 0, 4, 8, … KiB free until it succeeds; each failure is OutOfSpace and frees what it wrote."""
    filler = Filler(disk)
    with opened(disk / "root") as (state, _):
        record = pulled(state, "kept", *KEPT)
        pins.add(state, "owner", "image", record.name)
        failures = 0
        while images.find(state, image("app", *APP).name) is None:
            filler.leave(failures * STEP)
            try:
                app(state)
            except OutOfSpace:
                failures += 1
            check_tidy(state)
            filler.clear()
            collect.collect(state)
        assert 3 < failures < 100
        assert check(state) == []
    with opened(disk / "root") as (state, _):
        assert check(state) == []


def test_room_can_be_made_on_a_disk_without_a_free_byte(disk: Path) -> None:
    """Deleting rows needs some itself: the ballast is for that, and it is taken again afterwards."""
    filler = Filler(disk)
    with opened(disk / "root") as (state, _):
        pulled(state, "kept", *KEPT)
        for number in range(40):
            pulled(state, f"app{number}", layer(number, 20_000))
        filler.leave(0)
        for number in range(40):
            images.remove(state, image(f"app{number}", layer(number, 20_000)).name)
        collect.collect(state)
        assert [one.name for one in images.every(state)] == [image("kept", *KEPT).name]
        assert files(state) == {one.diff_id for one in KEPT} | {image("kept", *KEPT).chain_id}
        filler.clear()
        collect.collect(state)
        assert state.layout.ballast.stat().st_size == BALLAST_BYTES
        assert check(state) == []


def test_documents_are_forgotten_on_a_disk_without_a_free_byte(disk: Path) -> None:
    """What is declared no more must go, or its image could never be freed; a new document may be refused."""
    filler, document = Filler(disk), b'"%s"' % (b"x" * 10_000)

    def fill(state: State) -> None:
        for number in range(20, 1000):
            shelf.put(state, "note", str(number), document)

    with opened(disk / "root") as (state, _):
        for number in range(20):
            shelf.put(state, "note", str(number), document)
        filler.leave(0)
        with pytest.raises(OutOfSpace):
            fill(state)
        for number in range(20):
            shelf.remove(state, "note", str(number))
        assert set(shelf.Shelf(state).every("note")).isdisjoint(map(str, range(20)))


def test_the_store_opens_on_a_disk_without_a_free_byte(disk: Path) -> None:
    """A daemon that cannot start cannot free anything."""
    filler = Filler(disk)
    with opened(disk / "root") as (state, _):
        pulled(state, "kept", *KEPT)
        pulled(state, "app", *APP)
    filler.leave(0)
    with opened(disk / "root") as (state, _):
        check_tidy(state)
        images.remove(state, image("app", *APP).name)
        assert collect.collect(state).freed_bytes > 0
    filler.clear()
    with opened(disk / "root") as (state, _):
        assert check(state) == []


def test_a_root_on_a_full_disk_is_out_of_space(disk: Path) -> None:
    """The very first start says what is wrong; the next one works."""
    filler = Filler(disk)
    filler.leave(0)
    with pytest.raises(OutOfSpace), opened(disk / "root"):
        pass
    filler.clear()
    with opened(disk / "root") as (state, _):
        assert check(state) == []
