"""Hostile archives: whatever the bytes, the answer is a layer, Corrupt or Unsupported, at a bounded cost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers.layerfile import verify_layer
from imagecached.layers.limits import Limits
from tests.support.awkward import catalogue
from tests.support.rawtar import archive, directory, entry, gnu_long, hard_link, header, pax, signed, symlink
from tests.unit.layers.building import grown, layer_file, names
from tests.unit.layers.test_sparse import FORMATS

SPARSE_1_0 = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"}
LIMITS = Limits(entries=2000, metadata_bytes=8 << 20, file_bytes=1 << 33, sparse_extents=2000)
_TARS = sorted((tar for case in catalogue().values() for tar in case.tars if len(tar) < 40_000), key=len)
_MEMBERS = sorted(
    {
        entry(b"usr/lib/f", data=b"x" * 700, xattrs={b"user.a": b"v" * 300}),
        directory(b"usr/", 0o1777),
        symlink(b"lib", b"usr/lib"),
        symlink(b"loop", b"loop/../loop"),
        hard_link(b"l", b"lib/f"),
        entry(b"usr/.wh.f"),
        entry(b"lib/.wh..wh..opq"),
        gnu_long(b"n" * 300, b"L"),
        pax({b"path": b"../../x", b"uid": b"-1", b"mtime": b"-5.5"}),
        pax({b"path": b"lib"}, b"g"),
        *[write([(0, 512), (5000, 77)], 9000) for write in FORMATS],
    }
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An archive of odd members, or a known odd one; bytes changed, cut or put in; sums made right again."""
    if draw(st.booleans()):
        raw = bytearray(archive(*draw(st.lists(st.sampled_from(_MEMBERS), max_size=8))))
    else:
        raw = bytearray(draw(st.sampled_from(_TARS)))
    for _ in range(draw(st.integers(0, 6))):
        if not raw:
            break
        at = draw(st.integers(0, len(raw) - 1))
        kind = draw(st.sampled_from(["flip", "digits", "cut", "copy", "field"]))
        if kind == "flip":
            raw[at] = draw(st.integers(0, 255))
        elif kind == "digits":
            raw[at : at + 4] = draw(
                st.sampled_from([b"7777", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"  8 ", b"\0\0\0\0"])
            )
        elif kind == "cut":
            del raw[at : at + draw(st.sampled_from([1, 100, 512]))]
        elif kind == "copy":
            raw[at:at] = raw[at : at + 512]
        else:
            block = at & -512
            where, width = draw(
                st.sampled_from([(0, 100), (100, 8), (124, 12), (156, 1), (157, 100), (257, 8), (345, 60)])
            )
            raw[block + where : block + where + width] = draw(st.binary(min_size=width, max_size=width))
    if draw(st.booleans()):
        for block in range(0, len(raw) - 511, 512):
            if raw[block + 257 : block + 262] == b"ustar":
                raw[block : block + 512] = signed(bytes(raw[block : block + 512]))
    return bytes(raw)


@given(damaged(), st.integers(1, 1500))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_a_layer_or_a_refusal(tmp_path: Path, tar: bytes, step: int) -> None:
    """No other error, the same answer however the stream is cut, and a file that is what it says."""
    path = tmp_path / "layer.erofs"
    answers = []
    for pieces in (step, 1 << 20):
        try:
            info = layer_file(path, tar, limits=LIMITS, step=pieces)
            verify_layer(path, info.diff_id)
            answers.append(path.read_bytes())
        except (Corrupt, Unsupported) as error:
            answers.append(str(error).encode())
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"{") or b"\n" not in answers[0], "messages are one line"


@given(st.binary(max_size=3000))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_is_refused(tmp_path: Path, noise: bytes) -> None:
    """Unless it is nothing but zeros."""
    try:
        layer_file(tmp_path / "x", noise, limits=LIMITS)
    except (Corrupt, Unsupported):
        return
    assert not noise.strip(b"\0")


@pytest.mark.parametrize(
    "member",
    [
        entry(b"../../etc/passwd", data=b"root::0:0"),
        entry(b"/etc/passwd", data=b"root::0:0"),
        entry(b"a/../../../etc/passwd", data=b"root::0:0"),
        symlink(b"up", b"../../../..") + entry(b"up/etc/passwd", data=b"root::0:0"),
        symlink(b"abs", b"/") + entry(b"abs/etc/passwd", data=b"root::0:0"),
        symlink(b"etc", b"/etc") + symlink(b"passwd", b"/etc/passwd") + entry(b"passwd", data=b"root::0:0"),
    ],
)
def test_nothing_gets_out_of_the_layer(
    tmp_path: Path, member: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is opened, made or looked up but the layer file: a path is only a key of the tree."""
    before = Path("/etc/passwd").stat()
    touched: list[object] = []
    for call in ("lstat", "stat", "readlink", "symlink", "link", "mkdir", "mknod", "unlink", "rename"):
        monkeypatch.setattr(os, call, lambda *arguments, **_: touched.append(arguments))
    layer_file(tmp_path / "x", archive(member), limits=LIMITS)
    monkeypatch.undo()
    assert touched == []
    assert Path("/etc/passwd").stat() == before
    root, _ = grown(member)
    assert all(b".." not in path.split(b"/") and not path.startswith(b"/") for path in names(root))


@pytest.mark.parametrize(
    "tar",
    [
        archive(*[header(b"d%d" % i, b"5") for i in range(2001)]),
        archive(*[entry(b"/".join([b"%d" % i] * 999)) for i in range(3)]),
        archive(*[pax({b"SCHILY.xattr.user.a": b"v" * 60_000}) + header(b"%d" % i) for i in range(60)]),
        archive(*[symlink(b"%d" % i, b"t" * 4000) for i in range(600)]),
        header(b"x", b"x", size=1 << 40),
        header(b"f", size=1 << 40),
        pax(SPARSE_1_0) + header(b"f", size=1 << 30) + b"1" * 4096,
        archive(*[FORMATS[1]([(k * 1000, 1) for k in range(300)], 1 << 32) for _ in range(8)]),
        archive(FORMATS[3]([], (1 << 33) + 1)),
        archive(*[FORMATS[1]([((k << 22) + 5, 1) for k in range(1900)], (1 << 33) - 1)]),
    ],
)  # fmt: skip
def test_bombs_are_refused_at_once(tmp_path: Path, tar: bytes) -> None:
    """Too many members, directories, attributes, link targets, pieces; too long names, files, headers."""
    begun = time.process_time()
    with pytest.raises(Corrupt, match=r"more than|longer than"):
        layer_file(tmp_path / "x", tar, limits=LIMITS)
    assert time.process_time() - begun < 2
