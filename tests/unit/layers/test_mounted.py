"""What the kernel shows of a layer file, against the folder that the tar was made of and against the tree."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers.node import Node
from tests.support import fsck
from tests.support.listing import Facts, Listing, listing
from tests.support.rawtar import NOON, archive, directory, entry, hard_link, opaque, symlink, whiteout
from tests.unit.layers.building import grown, layer_file, mounted

pytestmark = pytest.mark.root

NOON_NS = NOON * 1_000_000_000 + 123_456_789


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some of everything that a file system can hold."""
    root = tmp_path_factory.mktemp("layers") / "source"
    (root / "many").mkdir(parents=True)
    for i in range(5000):
        (root / "many" / f"entry-{i}-{'ü' * (i % 50)}").touch()
    for i in range(60):  # directories of every size around one and two blocks
        (root / "sizes" / f"{i}").mkdir(parents=True)
        for k in range(i):
            (root / "sizes" / f"{i}" / f"name{k:03}{'x' * (i % 7)}").write_bytes(b"y" * k)
    _odd_names(root)
    _kinds(root)
    _holes(root)
    _attributes(root)
    for folder, folders, names in os.walk(root, topdown=False):  # rglob would follow the longest links
        for name in folders + names:
            os.utime(Path(folder) / name, ns=(0, NOON_NS + len(name)), follow_symlinks=False)
    return root


def _odd_names(root: Path) -> None:
    (root / "names").mkdir()
    for name in (b"n" * 255, b"\xff\xfe latin", b"new\nline", b"!", b"-", b"-dash", b".hidden", b"\x01"):
        (root / "names" / os.fsdecode(name)).write_bytes(name)
    deep = root / "deep"
    for _ in range(12):
        deep /= "d" * 200
    deep.mkdir(parents=True)


def _kinds(root: Path) -> None:
    kinds = root / "kinds"
    kinds.mkdir(0o1777)
    suid = kinds / "suid"
    suid.write_bytes(b"#!" * 3000)
    suid.chmod(0o4755)
    os.chown(suid, 4_000_000_000, 123_456)
    for name in ("h1", "h2"):
        (kinds / name).hardlink_to(suid)
    for length in (1, 300, 448, 449, 600, 4000):
        (kinds / f"symlink{length}").symlink_to("t" * length)
    os.link(kinds / "symlink300", kinds / "second", follow_symlinks=False)
    os.mknod(kinds / "char", stat.S_IFCHR | 0o620, os.makedev(4095, 1_048_575))
    os.mknod(kinds / "block", stat.S_IFBLK | 0o640, os.makedev(8, 17))
    os.mkfifo(kinds / "fifo", 0o644)


def _holes(root: Path) -> None:
    holes = root / "holes"
    holes.mkdir()
    for name, size, pieces in (
        ("big", 3 << 30, [(0, 5000), (1 << 30, 70_000), ((3 << 30) - 100, 100)]),
        ("all", 1 << 20, []),
        ("tail", 5 << 20, [(4096, 8192)]),
        ("uneven", 300_001, [(8192 * i, 4096) for i in range(30)]),
    ):
        with (holes / name).open("wb") as file:
            file.truncate(size)
            for offset, length in pieces:
                os.pwrite(file.fileno(), os.urandom(length), offset)


def _attributes(root: Path) -> None:
    attributes = root / "attributes"
    attributes.mkdir()
    (attributes / "file").touch()
    (attributes / "large").write_bytes(b"data")
    (attributes / "link").symlink_to("x" * 200)
    os.setxattr(attributes / "file", "user.empty", b"")
    os.setxattr(attributes / "large", "user." + "n" * 250, b"v" * 2048)
    os.setxattr(
        attributes / "large", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    )
    os.setxattr(attributes / "link", "security.selinux", b"label" * 70, follow_symlinks=False)
    os.setxattr(attributes, "user.dir", b"v" * 500)
    acl = [(1, 7, 2**32 - 1), (2, 6, 1000), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1), (32, 4, 2**32 - 1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in acl)
    (attributes / "default").mkdir()
    os.setxattr(attributes / "default", "system.posix_acl_default", packed)
    os.setxattr(attributes / "file", "system.posix_acl_access", packed)


def tar_of(source: Path, *options: str) -> bytes:
    """A tar of the folder's content, by GNU tar."""
    command = ["tar", "--create", "--sort=name", "--numeric-owner", *options, "-C", str(source), "."]
    return subprocess.run(command, check=True, capture_output=True).stdout


def seen(tmp_path: Path, tar: bytes) -> Listing:
    """The layer file of a tar, checked by ``fsck.erofs`` and mounted; without the root, never the tar's."""
    image = tmp_path / "layer.erofs"
    layer_file(image, tar, step=100_000)
    fsck.check(image)
    with mounted(image, tmp_path / "mounted") as point:
        found = listing(point)
    del found[b"."]
    return found


def test_a_mounted_layer_equals_the_folder_it_was_made_of(tmp_path: Path, source: Path) -> None:
    """Entry by entry: content, mode, owner, time with nanoseconds, links, devices, attributes, holes."""
    expected = listing(source)
    del expected[b"."]
    found = seen(tmp_path, tar_of(source, "--format=posix", "--sparse", "--xattrs", "--xattrs-include=*"))
    assert found.keys() == expected.keys()
    assert {path: (found[path], expected[path]) for path in found if found[path] != expected[path]} == {}


@pytest.mark.parametrize(
    "options",
    [
        ("--format=gnu", "--sparse"),
        ("--format=gnu",),
        ("--format=posix", "--sparse", "--sparse-version=0.0"),
        ("--format=posix", "--sparse", "--sparse-version=0.1"),
    ],
)
def test_other_formats_give_the_same_files(tmp_path: Path, source: Path, options: tuple[str, ...]) -> None:
    """Without attributes and nanoseconds, where the format has none."""
    found = seen(tmp_path, tar_of(source, "--exclude=./holes/big", *options))
    expected = listing(source)
    assert found.keys() == expected.keys() - {b".", b"holes/big"}
    for path, facts in found.items():
        wanted = expected[path]
        assert (facts.kind, facts.size, facts.content) == (wanted.kind, wanted.size, wanted.content)
        assert (facts.uid, facts.gid, facts.target, facts.group) == (
            wanted.uid, wanted.gid, wanted.target, wanted.group,
        )  # fmt: skip


# ---- Random trees

_name = st.sampled_from([b"a", b"b", b"c.d", b"e" * 120, b"-", b"~\xff"])
_names = st.lists(_name, min_size=1, max_size=4).map(b"/".join)
_xattrs = st.none() | st.dictionaries(
    st.sampled_from([b"user.a", b"user.long" * 9, b"security.x"]), st.binary(max_size=700), max_size=3
)
_facts = {"mode": st.integers(0, 0o7777), "uid": st.integers(0, 2**32 - 2), "mtime": st.integers(0, 2**33)}
_member = st.one_of(
    st.builds(entry, _names, data=st.binary(max_size=2000), xattrs=_xattrs, **_facts),
    st.builds(directory, _names, xattrs=_xattrs, **_facts),
    st.builds(symlink, _names, _names, xattrs=_xattrs),
    st.builds(hard_link, _names, _names, **_facts),
    st.builds(whiteout, _names),
    st.builds(opaque, _names),
)


@given(st.lists(_member, max_size=25))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_kernel_sees_the_tree(tmp_path: Path, members: list[bytes]) -> None:
    """Whatever tree comes of some members, its file shows exactly that; a refused layer shows nothing."""
    kept: list[bytes] = []
    for member in members:
        try:
            grown(*kept, member)
        except (Corrupt, Unsupported):  # other tests say what is refused, and how
            continue
        kept.append(member)
    tar = archive(*kept)
    root, _ = grown(*kept)
    layer_file(tmp_path / "layer.erofs", tar)
    with mounted(tmp_path / "layer.erofs", tmp_path / "mounted") as point:
        found = listing(point)
    assert {path: _short(facts) for path, facts in found.items()} == _wanted(root)


def _short(facts: Facts) -> tuple[object, ...]:
    return (
        facts.kind, facts.mode, facts.uid, facts.gid, facts.size, facts.mtime_ns, facts.nlink,
        facts.target, facts.group, facts.xattrs,
    )  # fmt: skip


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
}


def _wanted(root: Node) -> dict[bytes, tuple[object, ...]]:
    paths: dict[Node, list[bytes]] = {root: [b"."]}
    stack = [(b"", root)]
    while stack:
        prefix, node = stack.pop()
        for name, child in (node.children or {}).items():
            paths.setdefault(child, []).append(prefix + name)
            if child.children is not None:
                stack.append((prefix + name + b"/", child))
    found: dict[bytes, tuple[object, ...]] = {}
    for node, names in paths.items():
        links = len(names)
        if node.children is not None:
            links = 2 + sum(child.children is not None for child in node.children.values())
        group = None if node.children is not None else min(names)
        facts = (
            _KINDS[stat.S_IFMT(node.mode)], stat.S_IMODE(node.mode), node.uid, node.gid,
            len(node.target) or node.size, node.mtime * 1_000_000_000 + node.mtime_ns, links,
            node.target or None, group, tuple(sorted((node.xattrs or {}).items())),
        )  # fmt: skip
        found.update(dict.fromkeys(names, facts))
    return found
