"""rootfs: reading a hostile image's files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from imagecached.containers.rootfs import MOST_BYTES, read_file
from imagecached.errors import InvalidInput


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A tree with an /etc, beside a file that must not be seen."""
    (tmp_path / "secret").write_bytes(b"host's")
    (tmp_path / "rootfs/etc").mkdir(parents=True)
    return tmp_path / "rootfs"


def test_an_ordinary_file(rootfs: Path) -> None:
    """Its bytes."""
    (rootfs / "etc/passwd").write_bytes(b"root")
    assert read_file(rootfs, "/etc/passwd") == b"root"


def test_a_missing_file(rootfs: Path) -> None:
    """Empty, whichever part is missing."""
    assert read_file(rootfs, "/etc/passwd") == b""
    assert read_file(rootfs, "/none/passwd") == b""


@pytest.mark.parametrize("link", ["/secret", "../../secret", "../../../../../../{}/secret", "{}/secret"])
def test_links_stay_inside(rootfs: Path, link: str) -> None:
    """Absolute or climbing: a link is followed as the container would, so the host's file is not found."""
    (rootfs / "etc/passwd").symlink_to(link.format(rootfs.parent))
    assert read_file(rootfs, "/etc/passwd") == b""


def test_links_inside_are_followed(rootfs: Path) -> None:
    """An absolute link means the image's root."""
    (rootfs / "lib").mkdir()
    (rootfs / "lib/passwd").write_bytes(b"linked")
    (rootfs / "etc/passwd").symlink_to("/lib/passwd")
    assert read_file(rootfs, "/etc/passwd") == b"linked"


def test_a_directory_link_out(rootfs: Path) -> None:
    """A link in the middle of the path leads nowhere either."""
    (rootfs / "etc").rmdir()
    (rootfs / "etc").symlink_to(rootfs.parent)
    (rootfs.parent / "passwd").write_bytes(b"host's")
    assert read_file(rootfs, "/etc/passwd") == b""


def test_a_loop_of_links(rootfs: Path) -> None:
    """Is as good as no file."""
    (rootfs / "etc/passwd").symlink_to("/etc/passwd")
    assert read_file(rootfs, "/etc/passwd") == b""


def test_what_is_no_file(rootfs: Path) -> None:
    """A pipe would block and a device could act: they are not opened."""
    os.mkfifo(rootfs / "etc/passwd")
    (rootfs / "etc/group").mkdir()
    assert read_file(rootfs, "/etc/passwd") == b""
    assert read_file(rootfs, "/etc/group") == b""


@pytest.mark.root
def test_a_device(rootfs: Path) -> None:
    """/dev/zero as passwd gives nothing, and ends."""
    os.mknod(rootfs / "etc/passwd", stat.S_IFCHR | 0o600, os.makedev(1, 5))
    assert read_file(rootfs, "/etc/passwd") == b""


def test_a_huge_file(rootfs: Path) -> None:
    """Memory is bounded."""
    with (rootfs / "etc/passwd").open("wb") as stream:
        stream.truncate(MOST_BYTES + 1)
    with pytest.raises(InvalidInput, match="larger"):
        read_file(rootfs, "/etc/passwd")


def test_no_descriptor_is_left(rootfs: Path) -> None:
    """Whatever the outcome."""
    os.mkfifo(rootfs / "etc/passwd")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/etc/passwd", "/etc/none", "/etc"):
        read_file(rootfs, path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
