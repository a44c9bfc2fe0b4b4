"""A busybox image, and what is left of its containers at a test's end."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagecached.containers import Containers
from imagecached.mounts import Method, Mounter, mountinfo, syscalls
from tests.fakes.prepared import FakeStore
from tests.support.debian import packages_tar
from tests.support.layerfiles import layer_file
from tests.support.tars import directory, file, symlink

PASSWD = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n"
GROUP = b"root:x:0:\nwheel:x:10:root,app\napp:x:1001:\nextra:x:2000:app\n"


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layer file with a static busybox, users and groups."""
    with tarfile.open(fileobj=io.BytesIO(packages_tar(["busybox-static"]))) as archive:
        packed = archive.extractfile("usr/bin/busybox")
        assert packed is not None
        program = packed.read()
    tools = [
        symlink(f"bin/{name}", "busybox")
        for name in ("sh", "id", "env", "pwd", "cat", "sleep", "true", "tty")
    ]
    return layer_file(
        tmp_path_factory.mktemp("busybox") / "busybox.erofs",
        directory("bin"),
        file("bin/busybox", program, mode=0o755),
        *tools,
        directory("etc"),
        file("etc/passwd", PASSWD),
        file("etc/group", GROUP),
        directory("tmp", mode=0o1777),
    )


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty root, with nothing mounted below it when the test has ended."""
    directory = tmp_path / "root"
    directory.mkdir(mode=0o700)
    yield directory
    for mount in reversed(mountinfo.read()):
        if mount.filesystem == "overlay" and mount.point.startswith(f"{tmp_path}/"):
            syscalls.umount(mount.point)
    Mounter(directory, Method.BUFFERED).sweep()
    assert [mount.point for mount in mountinfo.read() if mount.point.startswith(f"{tmp_path}/")] == []


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty directory outside the root."""
    directory = tmp_path / "target"
    directory.mkdir()
    return directory


@pytest.fixture
def store(busybox: Path) -> FakeStore:
    """Busybox under its name, with a shell as command."""
    store = FakeStore((busybox,))
    store.put(Cmd=["sh"])
    return store


@pytest.fixture
def containers(store: FakeStore, root: Path) -> Containers:
    """The use case over that store."""
    return Containers(store, Mounter(root, Method.BUFFERED))
