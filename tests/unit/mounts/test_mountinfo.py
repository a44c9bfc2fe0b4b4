"""mountinfo: every line the kernel can write is read back."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import Corrupt
from imagecached.mounts.mountinfo import Mount, containing, parse, topmost

LINE = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue\n"


def mount(
    point: str, *, number: int = 1, parent: int = 0, filesystem: str = "ext4", **facts: object
) -> Mount:
    """A mount of which the rest does not matter."""
    rest = {
        "device": "0:1",
        "root": "/",
        "options": frozenset(),
        "tags": (),
        "source": "x",
        "super_options": (),
    }
    return Mount(id=number, parent=parent, point=point, filesystem=filesystem, **{**rest, **facts})  # type: ignore[arg-type]


def escaped(text: bytes) -> bytes:
    """As the kernel writes a path or a value of an option."""
    return b"".join(b"\\%03o" % byte if bytes([byte]) in b" \t\n\\#,=" else bytes([byte]) for byte in text)


def test_the_line_of_the_manual_page() -> None:
    """All fields of proc_pid_mountinfo(5)'s example."""
    assert parse(LINE) == [
        Mount(
            id=36,
            parent=35,
            device="98:0",
            root="/mnt1",
            point="/mnt2",
            options=frozenset({"rw", "noatime"}),
            tags=("master:1", "shared:7"),
            filesystem="ext3",
            source="/dev/root",
            super_options=("rw", "errors=continue"),
        )
    ]


@given(
    st.binary(min_size=1).filter(lambda path: b"\0" not in path), st.binary().filter(lambda s: b"\0" not in s)
)
def test_any_bytes_survive(point: bytes, source: bytes) -> None:
    """Paths are bytes: spaces, newlines, backslashes, broken UTF-8."""
    line = b"1 0 0:1 / /%s rw - tmpfs %s rw" % (escaped(point), escaped(source))
    (found,) = parse(line + b"\n")
    assert os.fsencode(found.point) == b"/" + point
    assert os.fsencode(found.source) == source


@given(st.binary())
def test_rubbish_is_refused(table: bytes) -> None:
    """Whatever the bytes, the answer is a list or Corrupt."""
    with suppress(Corrupt):
        assert isinstance(parse(table), list)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (b"rw,lowerdir=/r/m/1:/r/m/2,upperdir=/u,workdir=/w", ("/r/m/1", "/r/m/2")),
        (b"rw,lowerdir=1:2a", ("1", "2a")),
        (b"ro,lowerdir+=/r/m/1,lowerdir+=/r/m/2,datadir+=/d", ("/r/m/1", "/r/m/2", "/d")),
        (b"ro,lowerdir=/a::/data", ("/a", "/data")),
        (b"ro,lowerdir=/with\\134:colon:/b", ("/with:colon", "/b")),
        (b"ro,lowerdir=/with\\054comma:/b", ("/with,comma", "/b")),
        (b"rw,index=off", ()),
    ],
)
def test_lower_directories(options: bytes, expected: tuple[str, ...]) -> None:
    """Both notations of overlayfs, with what they escape."""
    (found,) = parse(b"1 0 0:1 / /t rw - overlay overlay " + options)
    assert found.lowers == expected


def test_only_overlays_have_lowers() -> None:
    """An option of that name elsewhere means nothing."""
    (found,) = parse(b"1 0 0:1 / /t rw - fuse x lowerdir=/a")
    assert found.lowers == ()


def test_the_topmost_of_stacked_mounts() -> None:
    """What was mounted on top is what one sees, in whatever order the table lists it."""
    under, over = mount("/a", number=5, parent=1), mount("/a", number=3, parent=5)
    assert topmost([under, over], "/a") is over
    assert topmost([over, under], "/a") is over
    assert topmost([under], "/b") is None


def test_the_mount_that_holds_a_path() -> None:
    """The nearest mount point above decides, by whole names."""
    table = [mount("/", number=1), mount("/var", number=2), mount("/var/lib", number=3)]
    assert containing(table, "/var/library/x") == table[1]
    assert containing(table, "/var/lib") == table[2]
    assert containing(table, "/etc") == table[0]
