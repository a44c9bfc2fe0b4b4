"""ladder: which rung is taken, and why not the one above."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from imagecached.errors import AccessDenied, InvalidInput, OutOfSpace, Unsupported
from imagecached.mounts import LADDER, Kernel, Method, Mounter, mountinfo, syscalls
from imagecached.mounts.ladder import climb, mount_layer, probe
from tests.support.layerfiles import loops_below

SOUND = Kernel.parse("7.2.13")
D, B, L = Method.DIRECTIO, Method.BUFFERED, Method.LOOP


def answers(failures: dict[Method, int], tried: list[Method], method: Method) -> None:
    """An attempt that fails with the errno given for ``method``, or works."""
    tried.append(method)
    if number := failures.get(method):
        raise OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("release", "failures", "expected", "tried"),
    [
        ("7.2.13", {}, D, [D]),
        ("7.2.13", {D: errno.EIO}, B, [D, B]),  # a disk of 4096-byte sectors
        ("6.12.5", {D: errno.EINVAL}, B, [B]),  # and it does not know the option
        ("6.11.0", {D: errno.EINVAL, B: errno.ENOTBLK}, L, [D, B, L]),  # no file-backed mounts
        ("7.2.13", {D: errno.ENOTBLK, B: errno.ENOTBLK}, L, [D, B, L]),  # tmpfs
        ("6.12.1", {}, L, [L]),  # panics
        ("6.12.70", {}, B, [B]),  # uses freed memory
        ("7.2.13", {D: errno.EIO, B: errno.EIO}, L, [D, B, L]),
    ],
)
def test_the_first_rung_that_holds(
    release: str, failures: dict[Method, int], expected: Method, tried: list[Method]
) -> None:
    """Known faults are never tried, and no failure but that of the layout ends the climb."""
    seen: list[Method] = []
    found = climb(Kernel.parse(release), LADDER, lambda method: answers(failures, seen, method))
    assert found.method is expected
    assert seen == tried
    assert list(found.refused) == list(LADDER[: LADDER.index(expected)])


def test_a_refused_layout_is_no_reason_for_loop_devices() -> None:
    """EINVAL says that the kernel knows no blocks of 512 bytes: a loop device would not help."""
    seen: list[Method] = []
    with pytest.raises(Unsupported, match=r"directio: EINVAL.*buffered: EINVAL.*loop: not tried"):
        climb(SOUND, LADDER, lambda method: answers({D: errno.EINVAL, B: errno.EINVAL}, seen, method))
    assert seen == [D, B]


def test_every_reason_is_told() -> None:
    """Unsupported names each rung with its own reason."""
    failures = {B: errno.ENOTBLK, L: errno.ENODEV}
    with pytest.raises(
        Unsupported, match=r"6\.12\.70 .*directio: not tried.*CVE-2026-23224.*ENOTBLK.*modprobe erofs"
    ):
        climb(Kernel.parse("6.12.70"), LADDER, lambda method: answers(failures, [], method))


def test_without_rights_it_is_denied() -> None:
    """EPERM is nothing that another rung could cure."""
    seen: list[Method] = []
    with pytest.raises(AccessDenied, match="root"):
        climb(SOUND, LADDER, lambda method: answers({D: errno.EPERM}, seen, method))
    assert seen == [D]


@pytest.mark.root
@pytest.mark.parametrize("method", LADDER)
def test_each_rung_really_works(root: Path, method: Method) -> None:
    """Each method alone mounts the probe and reads it; neither file nor mount remains."""
    assert Mounter.probe(root, [method]).method is method
    assert list((root / "ingest").iterdir()) == []
    assert [path.name for path in (root / "m").iterdir()] == ["empty"]


@pytest.mark.root
def test_a_root_in_memory_uses_loop_devices(root: Path) -> None:
    """tmpfs cannot back a mount by a file; the climb ends at the loop device."""
    syscalls.mount("none", root, "tmpfs")
    try:
        mounter = Mounter.probe(root)
        assert mounter.method is Method.LOOP
        assert "ENOTBLK" in mounter.refused[Method.BUFFERED]
        assert loops_below(root) == []
    finally:
        syscalls.umount(root)


@pytest.mark.root
def test_wrong_bytes_are_refused(root: Path) -> None:
    """A mount that succeeds proves nothing: an attempt that raises EIO while reading moves on."""
    Mounter(root, Method.LOOP)
    seen: list[Method] = []

    def attempt(method: Method, file: Path, point: Path) -> None:
        seen.append(method)
        mount_layer(method, file, point)
        try:
            assert (point / "directory/file").read_bytes()
            if method is Method.DIRECTIO:
                raise OSError(errno.EIO, "wrong bytes")
        finally:
            syscalls.umount(point)

    assert probe(root, SOUND, attempt=attempt).method is Method.BUFFERED
    assert seen == [Method.DIRECTIO, Method.BUFFERED]


@pytest.mark.root
def test_a_probe_that_was_killed_leaves_nothing_in_the_way(root: Path) -> None:
    """Its mount is taken away by the next probe."""
    Mounter(root, Method.LOOP)
    (root / "m/probe").mkdir()
    syscalls.mount("none", root / "m/probe", "tmpfs")
    Mounter.probe(root)
    assert not [mount for mount in mountinfo.read() if mount.point == str(root / "m/probe")]


@pytest.mark.root
def test_a_full_disk_is_told_as_such(root: Path) -> None:
    """No space for the probe is no word on the kernel."""
    syscalls.mount("none", root, "tmpfs", options="size=4k")
    try:
        with pytest.raises(OutOfSpace):
            Mounter.probe(root)
    finally:
        syscalls.umount(root)


@pytest.mark.parametrize("path", ["relative", "/a,b", "/a:b", "/a\\b"])
def test_a_root_that_cannot_be_told_to_the_kernel(path: str) -> None:
    """Overlay options would need such characters escaped, each in another way."""
    with pytest.raises(InvalidInput):
        Mounter(Path(path), Method.LOOP)
