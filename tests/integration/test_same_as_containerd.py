"""Every tree equals containerd's, entry by entry: awkward images, real ones, and prefixes of their chains.

The reference is the containerd on PATH; the environment variable ``IMAGECACHED_CONTAINERD`` names a folder
with another one.
"""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from tests.support import rawtar, tars
from tests.support.awkward import Case, catalogue
from tests.support.awkward.case import Blob, case
from tests.support.awkward.compressed import GZIP, ZSTD
from tests.support.awkward.verdicts import ACCEPTED, DIFFERENT_SINCE_2, LEFT_OUT, REFUSED
from tests.support.debian import packages_tar
from tests.support.listing import differences, listing
from tests.support.ours import Ours
from tests.support.reference import Reference, Refusal, serve_reference

pytestmark = [pytest.mark.root, pytest.mark.containerd]

_AWKWARD = catalogue()
_TAR = ["tar", "--sort=name"]
_WRITERS = {
    "pax": [*_TAR, "--format=pax", "--xattrs", "--xattrs-include=*", "--acls"],
    "pax-sparse-0.0": [*_TAR, "--format=pax", "--sparse", "--sparse-version=0.0", "--xattrs"],
    "pax-sparse-0.1": [*_TAR, "--format=pax", "--sparse", "--sparse-version=0.1"],
    "pax-sparse-1.0": [*_TAR, "--format=pax", "--sparse", "--sparse-version=1.0"],
    "gnu": [*_TAR, "--format=gnu"],
    "oldgnu": [*_TAR, "--format=oldgnu"],
    "ustar": [*_TAR, "--format=ustar"],
    "v7": [*_TAR, "--format=v7"],
}


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    """A containerd that has all awkward images."""
    with serve_reference() as served:
        served.load(_AWKWARD.values())
        yield served


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    """Our side, with one set of layer files for all tests."""
    made = Ours(tmp_path_factory.mktemp("ours"))
    yield made
    made.close()


@pytest.mark.parametrize("name", [name for name in _AWKWARD if name not in REFUSED])
async def test_awkward_image_is_the_same(name: str, reference: Reference, ours: Ours) -> None:
    """What containerd accepts we give alike, or refuse by name where the table says so."""
    theirs = reference.tree(_AWKWARD[name])
    assert not isinstance(theirs, Refusal), "containerd has changed its mind: tell the table of verdicts"
    mine = await ours.tree(_AWKWARD[name])
    if name in LEFT_OUT:
        assert isinstance(mine, Refusal), "we can do it now: tell the table of verdicts"
        assert LEFT_OUT[name] in mine.words
        return
    assert not isinstance(mine, Refusal), mine
    assert differences(mine, theirs, unpacked_after=reference.unpacked_after) == []


@pytest.mark.parametrize("name", REFUSED)
async def test_awkward_image_is_refused(name: str, reference: Reference, ours: Ours) -> None:
    """What containerd refuses we refuse by name, or accept for the reason in the table."""
    theirs = reference.tree(_AWKWARD[name])
    if name not in DIFFERENT_SINCE_2:
        assert isinstance(theirs, Refusal), "containerd has changed its mind: tell the table of verdicts"
        assert REFUSED[name] in theirs.words
    mine = await ours.tree(_AWKWARD[name])
    assert isinstance(mine, Refusal) != (name in ACCEPTED), mine


async def test_real_image_is_the_same_at_every_prefix(reference: Reference, ours: Ours) -> None:
    """A distribution in layers: hard links, setuid, whiteouts over directories, files made again."""
    whole = _distribution()
    prefixes = [Case(f"real-{count}", whole.layers[:count]) for count in range(1, len(whole.layers) + 1)]
    reference.load(prefixes)
    for prefix in prefixes:
        await _assert_same(prefix, reference, ours)


async def test_image_without_parents_is_the_same_at_every_prefix(reference: Reference, ours: Ours) -> None:
    """Layers as ko, Bazel and Jib make them, on top of a base that has its own ideas of these directories."""
    layers = [
        tars.tar(
            tars.directory("tmp", mode=0o1777),
            tars.directory("var", uid=3),
            tars.directory("var/run", mode=0o2775, gid=9, xattrs={"user.mark": b"1"}),
            tars.symlink("run", "var/run"),
            tars.directory("home/app", mode=0o700, uid=1000, gid=1000),
        ),
        tars.tar(tars.file("ko-app/app", b"\x7fELF", mode=0o555), tars.file("var/run/kodata/index", b"x")),
        tars.tar(tars.file("tmp/cache", b"c"), tars.file("home/app/.profile", b"p", uid=1000)),
        tars.tar(
            tars.whiteout("home/app/.profile"), tars.file("home/app/.config/rc", b"r"), tars.opaque("tmp")
        ),
        tars.tar(tars.file("run/lock", b"l"), tars.file("var/run/kodata/second", b"y")),
    ]
    prefixes = [case(f"parents-{count}", list(layers[:count])) for count in range(1, len(layers) + 1)]
    reference.load(prefixes)
    for prefix in prefixes:
        await _assert_same(prefix, reference, ours)


@pytest.mark.parametrize("writer", _WRITERS)
async def test_layer_of_every_writer_is_the_same(
    writer: str, tmp_path: Path, reference: Reference, ours: Ours
) -> None:
    """One odd folder, archived by GNU tar in each of its formats."""
    root = tmp_path / "root"
    _odd_folder(root)
    made = tmp_path / "layer.tar"
    # 2: the old formats leave out what they cannot hold.
    done = subprocess.run([*_WRITERS[writer], "-cf", made, "-C", root, "."], capture_output=True, check=False)
    assert done.returncode in (0, 2), done.stderr
    image = case(f"writer-{writer}", [made.read_bytes()])
    reference.load([image])
    await _assert_same(image, reference, ours)


async def test_hard_link_into_a_lower_layer_is_what_tar_makes(tmp_path: Path, ours: Ours) -> None:
    """containerd refuses such an image; unpacked by GNU tar into one folder it is what its author had."""
    facts = {"mode": 0o4755, "uid": 5, "gid": 6, "mtime": 77, "xattrs": {b"user.a": b"b"}}
    layers: list[list[bytes]] = [
        [
            rawtar.directory(b"bin/", 0o751),
            rawtar.entry(b"bin/tool", data=b"tool" * 500, **facts),  # type: ignore[arg-type]
            rawtar.entry(b"bin/other", data=b"other"),
            rawtar.directory(b"sbin/"),
        ],
        [
            rawtar.directory(b"sbin/", 0o700),
            rawtar.hard_link(b"sbin/tool", b"bin/tool", **facts),
            rawtar.hard_link(b"sbin/second", b"sbin/tool", **facts),
        ],
        [rawtar.directory(b"usr/"), rawtar.hard_link(b"usr/other", b"bin/other")],
    ]
    image = case("links", list(layers))
    root = tmp_path / "root"
    root.mkdir(mode=0o755)
    for tar in image.tars:
        command = ["tar", "-x", "-p", "--xattrs", "--xattrs-include=*", "--same-owner", "-C", str(root)]
        subprocess.run(command, input=tar, check=True)
    mine = await ours.tree(image)
    assert not isinstance(mine, Refusal), mine
    theirs = listing(root)
    assert differences(mine, theirs, unpacked_after=theirs[b"."].mtime_ns - 60 * 10**9) == []


def _odd_folder(root: Path) -> None:
    """Long names and targets, sparse and linked files, times with nanoseconds, devices, attributes."""
    deep = root / ("d" * 90) / ("e" * 90) / ("f" * 90)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"deep")
    (root / "long").symlink_to("t" * 150)
    (root / "plain").write_bytes(b"plain" * 1000)
    (root / "linked").hardlink_to(root / "plain")
    (deep / "linked").hardlink_to(root / "plain")
    with (root / "sparse").open("wb") as file:
        for offset in range(0, 3_000_000, 300_000):
            file.seek(offset)
            file.write(b"piece" * 100)
        file.truncate(4_000_000)
    (root / "hole").touch()
    os.truncate(root / "hole", 1_000_000)
    (root / "suid").touch()
    os.chown(root / "suid", 2_500_000, 4_000_000_000)
    (root / "suid").chmod(0o6755)
    os.mkfifo(root / "pipe")
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(root / "plain", "user.mark", b"a\0b\n")
    for path in [root, *root.rglob("*")]:
        os.utime(path, ns=(0, 1_600_000_000_123_456_789), follow_symlinks=False)


def _distribution() -> Case:
    """Debian packages in two layers, then a layer of corrections, then one without parents."""
    corrections = tars.tar(
        tars.directory("usr"),
        tars.directory("usr/share"),
        tars.whiteout("usr/share/zoneinfo"),
        tars.directory("usr/share/perl5", mode=0o700),
        tars.opaque("usr/share/perl5"),
        tars.file("usr/share/perl5/only", b"1"),
        tars.whiteout("usr/bin/chfn"),
        tars.file("usr/bin/chsh", b"replaced", mode=0o4755),
        tars.directory("etc", mode=0o711),
        tars.hardlink("etc/again", "usr/share/perl5/only"),
    )
    late = tars.tar(
        tars.file("usr/share/zoneinfo/UTC", b"TZif"),
        tars.file("opt/app/bin/app", b"#!/bin/sh\n", mode=0o755),
        tars.file("usr/lib/app/data", bytes(5000)),
        tars.file("etc/app.conf", b"x"),
        tars.device("dev/null", 1, 3, mode=0o666),
        tars.fifo("run/pipe"),
    )
    base = packages_tar(["base-files", "coreutils", "perl-base", "passwd", "tzdata"])
    second = packages_tar(["sudo", "mount", "ncurses-base", "iputils-ping"])
    packed = [Blob(gzip.compress(tar, 1, mtime=0), GZIP, tar) for tar in (base, second, corrections)]
    return case("real", [*packed, Blob(zstandard.compress(late), ZSTD, late)])


async def _assert_same(image: Case, reference: Reference, ours: Ours) -> None:
    theirs, mine = reference.tree(image), await ours.tree(image)
    assert not isinstance(theirs, Refusal), theirs
    assert not isinstance(mine, Refusal), mine
    assert differences(mine, theirs, unpacked_after=reference.unpacked_after) == []
