"""Publishing a layer: the order of its steps, and that it happens once."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from imagecached.errors import Corrupt, OutOfSpace
from imagecached.layers.layerfile import LayerWriter, verify_layer
from imagecached.layers.limits import Limits
from imagecached.store import layers
from imagecached.store.ingests import Ingest
from imagecached.store.points import arm
from imagecached.store.records import Layer
from imagecached.store.state import State
from tests.support.rawtar import archive, entry
from tests.unit.store.building import Built, check, files, ingesting, layer, opened, publish


def test_a_published_layer_is_found(state: State) -> None:
    """The row says what the file is; the file verifies."""
    built = layer(1)
    made = publish(state, built)
    assert layers.find(state, built.diff_id) == made
    assert layers.every(state) == (made,)
    assert made.path == state.layout.layer(built.diff_id)
    assert (made.tar_bytes, made.file_bytes, made.entries) == (built.info.tar_bytes, len(built.content), 2)
    assert made.disk_bytes == made.path.stat().st_blocks * 512
    verify_layer(made.path, built.diff_id)
    assert list(state.layout.ingest.iterdir()) == []


def test_nothing_is_visible_before_it_is_published(state: State) -> None:
    """An ingest that ends without publish leaves neither file nor row."""
    with ingesting(state, layer(1)) as ingest:
        assert layers.find(state, layer(1).diff_id) is None
        assert ingest.path.exists()
    assert not ingest.path.exists()
    assert files(state) == set()


def test_data_is_durable_before_the_name_and_the_name_before_the_row(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data, superblock, rename, directory, row: a power loss at any step exposes nothing."""
    steps: list[str] = []
    arm(steps.append)

    def traced(name: str, call: Any) -> Any:
        def run(*args: Any, **more: Any) -> Any:
            steps.append(name)
            return call(*args, **more)

        return run

    monkeypatch.setattr(os, "fdatasync", traced("fdatasync", os.fdatasync))
    monkeypatch.setattr(os, "fsync", traced("fsync", os.fsync))
    monkeypatch.setattr(Path, "rename", traced("rename", Path.rename))
    ingest = Ingest(state, layer(1).diff_id)
    ingest.open()
    writer = LayerWriter(ingest.fd, Limits(), layer(1).diff_id)
    writer.feed(layer(1).content[4096 : 4096 + layer(1).info.tar_bytes])
    layers.publish(state, ingest, writer.finish())
    ingest.close()
    durable = steps[steps.index("rename") :]
    assert steps.count("fdatasync") == 2
    assert "fdatasync" not in durable
    assert durable == ["rename", "layer.renamed", "fsync", "layer.synced", "layer.inserted", "layer.recorded"]


def test_the_folders_above_a_layer_are_durable_too(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every folder made for a layer is synced in its parent before the file moves in."""
    synced: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    made = publish(state, layer(1))
    shard = made.path.parent
    assert synced == [str(shard.parent.parent), str(shard.parent), str(shard)]


def test_publishing_twice_is_publishing_once(state: State) -> None:
    """The second writer gets the first one's layer, and its own file goes."""
    first = publish(state, layer(1))
    inode = first.path.stat().st_ino
    assert publish(state, layer(1)) == first
    assert first.path.stat().st_ino == inode
    assert list(state.layout.ingest.iterdir()) == []


def test_a_layer_whose_file_has_gone_is_published_again(state: State) -> None:
    """A row alone does not stop the repair of a file somebody deleted."""
    made = publish(state, layer(1))
    made.path.unlink()
    publish(state, layer(1))
    assert check(state) == []


def test_two_threads_publish_the_same_layer(state: State) -> None:
    """Both succeed, one row and one file remain, and the budget counts it once."""
    barrier = Barrier(2)

    def run() -> Layer:
        with ingesting(state, layer(1)) as ingest:
            barrier.wait()
            return layers.publish(state, ingest, layer(1).info)

    with ThreadPoolExecutor(2) as pool:
        results = [future.result() for future in [pool.submit(run), pool.submit(run)]]
    assert results[0] == results[1]
    assert check(state) == []
    assert state.budget.used() == results[0].disk_bytes
    assert list(state.layout.ingest.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"diff_id": layer(2).diff_id}, {"file_bytes": 1}])
def test_refuses_a_description_of_another_file(state: State, wrong: dict[str, Any]) -> None:
    """A mistake of the writer must not become a row."""
    with ingesting(state, layer(1)) as ingest, pytest.raises(Corrupt):
        layers.publish(state, ingest, replace(layer(1).info, **wrong))
    assert layers.every(state) == ()


@pytest.mark.parametrize("call", ["rename", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_nothing(
    state: State, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Whichever step fails, the file goes with it, and the error says what to do."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with ingesting(state, layer(1)) as ingest:
        monkeypatch.setattr(Path if call == "rename" else os, call, fail)
        with pytest.raises(OutOfSpace, match=layer(1).diff_id):
            layers.publish(state, ingest, layer(1).info)
        monkeypatch.undo()
    assert files(state) == set()
    assert layers.every(state) == ()


def test_a_failed_row_takes_the_file_back(state: State) -> None:
    """No file stays under its final name without a row."""

    def fail(name: str) -> None:
        if name == "layer.inserted":
            raise OutOfSpace("database full")

    arm(fail)
    with ingesting(state, layer(1)) as ingest, pytest.raises(OutOfSpace):
        layers.publish(state, ingest, layer(1).info)
    assert files(state) == set()
    assert layers.every(state) == ()


def test_sha512_layers_have_their_own_folder(state: State) -> None:
    """A diffID may use the other algorithm."""
    tar = archive(entry(b"x", data=b"y"))
    info = layer(1).info
    ingest = Ingest(state, info.diff_id)
    ingest.open()
    expected = type(info.diff_id).of(tar, "sha512")
    writer = LayerWriter(ingest.fd, Limits(), expected)
    writer.feed(tar)
    info = writer.finish()
    content = os.pread(ingest.fd, info.file_bytes, 0)
    ingest.close()
    made = publish(state, Built(info, content))
    assert made.path.parent.parent.name == "sha512"
    assert check(state) == []


def test_layers_survive_reopening(root: Path) -> None:
    """What was published is there after a clean close, and opening has nothing to report."""
    with opened(root) as (state, _):
        made = publish(state, layer(1))
    with opened(root) as (state, recovery):
        assert layers.every(state) == (made,)
        assert recovery == type(recovery)()
