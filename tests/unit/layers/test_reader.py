"""What the writer wrote, read back without the kernel; and files that nobody wrote."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecached.errors import Corrupt
from imagecached.layers.erofs import INODE, ROOT_NID
from imagecached.layers.layerfile import DATA_OFFSET, Header, write_image
from imagecached.layers.limits import Limits
from imagecached.layers.node import Extent, Node
from imagecached.layers.notes import Notes
from imagecached.layers.reader import LayerReader
from imagecached.oci.digest import Digest
from tests.support.layerfiles import layer_file
from tests.support.tars import device, directory, file, hardlink, opaque, symlink, whiteout

BLOCK = 512
DATA_BLOCKS = 64
DATA = random.Random(1).randbytes(DATA_BLOCKS * BLOCK)


def build(path: Path, root: Node, notes: Notes | None = None) -> Header:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        os.pwrite(fd, DATA, DATA_OFFSET)
        return write_image(
            fd,
            root,
            notes or Notes(),
            data_end=DATA_OFFSET + len(DATA),
            tar_bytes=len(DATA),
            entries=1,
            limits=Limits(),
            diff_id=Digest.of(b"test"),
        )
    finally:
        os.close(fd)


names = st.binary(min_size=1, max_size=20).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
) | st.integers(200, 255).map(lambda count: b"n" * count)
xattrs = st.none() | st.dictionaries(
    st.sampled_from(
        [b"user.a", b"security.capability", b"trusted.overlay.opaque", b"system.posix_acl_access"]
    )
    | st.binary(min_size=1, max_size=200).map(lambda name: b"user." + name.replace(b"\0", b"x")),
    st.binary(max_size=900),
    min_size=1,
    max_size=4,
)


@st.composite
def extents(draw: st.DrawFn) -> tuple[int, list[Extent]]:
    """The size of a sparse file and its pieces, at any alignment."""
    size = draw(st.integers(1, 200_000))
    edges = sorted(draw(st.sets(st.integers(0, size), min_size=2, max_size=8)))
    found: list[Extent] = []
    for start, end in zip(edges[::2], edges[1::2], strict=False):
        length = min(end - start, len(DATA))
        found.append((start, length, DATA_OFFSET + draw(st.integers(0, len(DATA) - length))))
    return size, found


@st.composite
def leaves(draw: st.DrawFn) -> Node:
    kind = draw(st.sampled_from(["file", "sparse", "link", "device", "fifo"]))
    node = Node(
        draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 1)),
        gid=draw(st.integers(0, 2**32 - 1)),
        mtime=draw(st.integers(0, 2**33)),
        mtime_ns=draw(st.integers(0, 999_999_999)),
        xattrs=draw(xattrs),
    )
    if kind == "file":
        node.mode |= stat.S_IFREG
        block = draw(st.integers(0, DATA_BLOCKS - 1))
        node.size = draw(st.integers(0, (DATA_BLOCKS - block) * BLOCK))
        node.data = DATA_OFFSET + block * BLOCK if node.size else None
    elif kind == "sparse":
        node.mode |= stat.S_IFREG
        node.size, node.data = draw(extents())
    elif kind == "link":
        node.mode |= stat.S_IFLNK
        node.target = draw(st.binary(min_size=1, max_size=40)) * draw(st.sampled_from([1, 1, 100]))
    elif kind == "device":
        node.mode |= draw(st.sampled_from([stat.S_IFCHR, stat.S_IFBLK]))
        node.rdev = os.makedev(draw(st.integers(0, 4095)), draw(st.integers(0, (1 << 20) - 1)))
    else:
        node.mode |= stat.S_IFIFO
    return node


@st.composite
def directories(draw: st.DrawFn, below: st.SearchStrategy[Node]) -> Node:
    children = draw(st.dictionaries(names, below, max_size=6))
    if draw(st.booleans()):
        shared = draw(leaves())
        children |= dict.fromkeys(draw(st.sets(names, min_size=2, max_size=3)), shared)
    if draw(st.integers(0, 9)) == 0:
        children |= {b"many%d" % number: Node(stat.S_IFIFO) for number in range(300)}
    return Node(stat.S_IFDIR | draw(st.integers(0, 0o7777)), xattrs=draw(xattrs), children=children)


trees = directories(st.recursive(leaves(), directories, max_leaves=15))


def content(node: Node) -> bytes:
    if not isinstance(node.data, list):
        start = (node.data or DATA_OFFSET) - DATA_OFFSET
        return DATA[start : start + node.size]
    found = bytearray(node.size)
    for logical, length, offset in node.data:
        found[logical : logical + length] = DATA[offset - DATA_OFFSET : offset - DATA_OFFSET + length]
    return bytes(found)


def flattened(path: bytes, node: Node) -> list[tuple[bytes, Node]]:
    found = [(path, node)]
    for name, below in sorted((node.children or {}).items()):
        found += flattened(path + b"/" + name if path else name, below)
    return found


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_reads_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Every path, attribute, byte and hard link; walk and lookup agree."""
    root = data.draw(trees)
    path = tmp_path_factory.mktemp("reader") / "layer"
    build(path, root)
    with LayerReader(path) as reader:
        found = list(reader.walk())
        expected = flattened(b"", root)
        assert [name for name, _ in found] == [name for name, _ in expected]
        inodes: dict[Node, int] = {}
        for (name, entry), (_, node) in zip(found, expected, strict=True):
            assert reader.lookup(name) == entry
            assert inodes.setdefault(node, entry.nid) == entry.nid
            for field in ("mode", "uid", "gid", "mtime", "mtime_ns", "rdev", "size", "target", "nlink"):
                assert getattr(entry, field) == getattr(node, field), (name, field)
            assert entry.xattrs == (node.xattrs or {})
            if stat.S_ISREG(node.mode):
                assert b"".join(reader.read(entry)) == content(node)
        assert len(set(inodes.values())) == len(inodes)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), source=st.randoms(use_true_random=False))
def test_a_damaged_file_gives_corrupt_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, source: random.Random
) -> None:
    """Bytes changed anywhere in the metadata: a result or Corrupt, in bounded time."""
    root = data.draw(trees)
    path = tmp_path_factory.mktemp("reader") / "layer"
    header = build(path, root)
    raw = bytearray(path.read_bytes())
    for _ in range(source.choice((1, 3, 30))):
        at = source.randrange(header.image.offset, header.image.end)
        raw[at] = source.choice((0, 0xFF, raw[at] ^ 1 << source.randrange(8), source.randrange(256)))
    path.write_bytes(raw)
    try:
        with LayerReader(path) as reader:
            for name, entry in reader.walk():
                reader.lookup(name)
                reader.resolve(name)
                if entry.size < 1 << 20:
                    b"".join(reader.read(entry))
    except Corrupt:
        pass


def test_a_truncated_or_foreign_file_is_corrupt(tmp_path: Path) -> None:
    """Not the right length, not our header, no header at all."""
    path = tmp_path / "layer"
    build(path, Node(stat.S_IFDIR, children={}))
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"x", whole[:500], b"", b"{}".ljust(5000), os.urandom(8192)):
        path.write_bytes(data)
        with pytest.raises(Corrupt):
            LayerReader(path)


def test_directories_in_a_circle_are_corrupt(tmp_path: Path) -> None:
    """A directory that holds its own parent does not make the walk endless."""
    path = tmp_path / "layer"
    inner = Node(stat.S_IFDIR, children={b"leaf": Node(stat.S_IFDIR, children={})})
    header = build(path, Node(stat.S_IFDIR, children={b"d": inner}))
    with LayerReader(path) as reader:
        leaf = reader.lookup(b"d/leaf")
        assert leaf is not None
    raw = path.read_bytes()
    start = header.image.offset
    needle = leaf.nid.to_bytes(8, "little")
    head, tail = raw[:start], raw[start:]
    path.write_bytes(head + tail.replace(needle, ROOT_NID.to_bytes(8, "little")))
    with LayerReader(path) as reader, pytest.raises(Corrupt, match="two places"):
        list(reader.walk())


def test_a_root_that_is_no_directory_is_corrupt(tmp_path: Path) -> None:
    """The one inode that everything starts from."""
    path = tmp_path / "layer"
    header = build(path, Node(stat.S_IFDIR, children={}))
    raw = bytearray(path.read_bytes())
    INODE.pack_into(raw, header.image.offset + (ROOT_NID << 5), 1, 0, stat.S_IFREG, 0, 0, 0, 0, 0, 0, 0, 0, 1)
    path.write_bytes(raw)
    with LayerReader(path) as reader, pytest.raises(Corrupt, match="root"):
        reader.lookup(b"")


@pytest.fixture
def reader(tmp_path: Path) -> LayerReader:
    return LayerReader(
        layer_file(
            tmp_path / "layer",
            directory("usr", mode=0o711),
            directory("usr/bin", mode=0o700),
            file("usr/bin/tool", b"tool", mode=0o755),
            symlink("bin", "usr/bin"),
            symlink("abs", "/usr/../bin"),
            symlink("usr/up", "../../bin"),
            symlink("to-file", "usr/bin/tool"),
            symlink("dangling", "nowhere/at/all"),
            symlink("loop", "loop"),
            hardlink("again", "usr/bin/tool"),
            device("null", 1, 3),
            whiteout("usr/gone"),
            file("late/child"),
            opaque("usr/bin"),
        )
    )


def test_resolve_follows_links_inside_the_layer(reader: LayerReader) -> None:
    """Relative, absolute, climbing and last ones; nothing leaves the layer."""
    with reader:
        for path in (b"usr/bin", b"bin", b"abs", b"usr/up", b"./usr//bin/", b"/bin", b"../../bin/."):
            assert reader.resolve(path) == (b"usr/bin", reader.lookup(b"usr/bin"))
        for path in (b"bin/tool", b"to-file", b"usr/up/tool", b"to-file/below", b"to-file/../x"):
            assert reader.resolve(path) == (b"usr/bin/tool", reader.lookup(b"usr/bin/tool"))
        assert reader.resolve(b"") == (b"", reader.root)
        assert reader.resolve(b"dangling") is None
        assert reader.resolve(b"bin/none/deeper") is None
        with pytest.raises(Corrupt, match="too many symbolic links"):
            reader.resolve(b"loop/x")


def test_lookup_follows_nothing(reader: LayerReader) -> None:
    """A path through a link or a file is not there."""
    with reader:
        link = reader.lookup(b"bin")
        assert link is not None
        assert link.target == b"usr/bin"
        for path in (b"bin/tool", b"usr/bin/tool/x", b"none", b"usr/none", b"usr/"):
            assert reader.lookup(path) is None


def test_whiteouts_opaque_marks_and_notes(reader: LayerReader) -> None:
    """What a chain needs to know of a layer."""
    with reader:
        gone, bin_, null = (reader.lookup(path) for path in (b"usr/gone", b"usr/bin", b"null"))
        assert gone
        assert bin_
        assert null
        assert gone.is_whiteout
        assert not null.is_whiteout
        assert bin_.is_opaque
        assert not reader.root.is_opaque
        assert reader.notes.implicit == [b"late"]
        assert reader.notes.whiteouts == [b"usr"]
        again = reader.lookup(b"again")
        assert again is not None
        assert (again.nlink, b"".join(reader.read(again))) == (2, b"tool")


@pytest.mark.parametrize("count", range(1, 45))
def test_a_root_of_any_size_is_where_the_superblock_says(tmp_path: Path, count: int) -> None:
    """Its names are inline only when they fit behind it in the first block."""
    children = {b"%03d" % number: Node(stat.S_IFIFO) for number in range(count)}
    build(tmp_path / "layer", Node(stat.S_IFDIR, children=children))
    with LayerReader(tmp_path / "layer") as reader:
        assert [name for name, _ in reader.children(reader.root)] == sorted(children)


def test_large_directories_are_bisected(tmp_path: Path) -> None:
    """Every one of many names is found, and none that is not there."""
    children = {b"%05d" % number: Node(stat.S_IFREG | 0o644) for number in range(0, 20_000, 2)}
    build(tmp_path / "layer", Node(stat.S_IFDIR, children={b"d": Node(stat.S_IFDIR, children=children)}))
    with LayerReader(tmp_path / "layer") as reader:
        parent = reader.lookup(b"d")
        assert parent is not None
        for number in (0, 2, 9998, 19_998, *range(4000, 4200, 2)):
            assert reader.child(parent, b"%05d" % number) is not None
            assert reader.child(parent, b"%05d" % (number + 1)) is None
        assert reader.child(parent, b"") is None
        assert reader.child(parent, b"~") is None
