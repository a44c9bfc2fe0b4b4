"""A root whose mounts and loop devices are counted when the test has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagecached.mounts import Method, Mounter, mountinfo, syscalls
from tests.support.layerfiles import loops_below


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty root; all that is mounted in it must be swept or unmounted by the test's end."""
    directory = tmp_path / "root"
    directory.mkdir()
    yield directory
    _unmount_targets(tmp_path)
    Mounter(directory, Method.LOOP).sweep()
    assert [mount.point for mount in mountinfo.read() if mount.point.startswith(f"{directory}/")] == []
    assert loops_below(tmp_path) == []


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory outside the root."""
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


def _unmount_targets(tmp_path: Path) -> None:
    for mount in reversed(mountinfo.read()):
        if mount.filesystem == "overlay" and mount.point.startswith(f"{tmp_path}/"):
            syscalls.umount(mount.point)
