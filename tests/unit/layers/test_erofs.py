"""The EROFS metadata: bytes that the format fixes, and that the same tree always gives the same."""

from __future__ import annotations

import stat
import struct
from itertools import pairwise

import pytest

from imagecached.errors import Corrupt
from imagecached.layers import erofs
from imagecached.layers.node import Node
from tests.support.rawtar import directory, entry, hard_link, symlink
from tests.unit.layers.building import grown

MOST = 1 << 26
BASE = 1 << 20


def folder(**children: Node) -> Node:
    """A directory; names are ASCII."""
    return Node(stat.S_IFDIR | 0o755, children={name.encode(): node for name, node in children.items()})


def file(size: int = 0, **more: object) -> Node:
    """A regular file of zeros."""
    return Node(stat.S_IFREG | 0o644, size=size, data=4096 if size else None, **more)  # type: ignore[arg-type]


def encoded(root: Node) -> tuple[erofs.Plan, bytes]:
    """The plan of a tree, and its metadata area for a file that has it at BASE."""
    plan = erofs.plan(root, MOST)
    return plan, b"".join(plan.encode(BASE, BASE - 4096))


def inode(area: bytes, nid: int) -> tuple[int, ...]:
    """The fields of an inode."""
    return erofs.INODE.unpack_from(area, nid << erofs.NID_BITS)


def test_an_inode_has_the_fields_of_the_node() -> None:
    """In the places that fs/erofs/erofs_fs.h gives them."""
    f = file(1000, uid=70000, gid=4_000_000_000, mtime=2**33, mtime_ns=999_999_999)
    _, area = encoded(folder(f=f))
    raw = area[f.nid << 5 :][:64]
    assert struct.unpack_from("<HHHxxQI", raw) == (1, 0, f.mode, 1000, 4096 // 512)
    assert struct.unpack_from("<IIQII", raw, 24) == (70000, 4_000_000_000, 2**33, 999_999_999, 1)


def test_the_root_is_where_the_superblock_says() -> None:
    """Also when its entries do not fit behind it in the first block."""
    for letters in range(380, 512):
        root = folder(**{"n" * 200: file(), "m" * (letters - 200): file()})
        plan, area = encoded(root)
        assert root.nid == erofs.ROOT_NID
        assert stat.S_ISDIR(inode(area, erofs.ROOT_NID)[2])
        plan.release()


def test_the_superblock() -> None:
    """Magic, 512-byte blocks, root, counts, and the one feature that is used."""
    raw = erofs.superblock(meta=BASE, inodes=7, file_bytes=BASE + 8192, uuid=b"u" * 16)
    assert len(raw) == 128
    assert struct.unpack_from("<I8xBxHQ", raw) == (0xE0F5E1E2, 9, erofs.ROOT_NID, 7)
    assert struct.unpack_from("<III16s", raw, 36) == ((BASE + 8192) // 512, BASE // 512, 0, b"u" * 16)
    assert struct.unpack_from("<I", raw, 80) == (4,)


def test_nothing_inline_crosses_a_block() -> None:
    """Small directories and link targets lie in one block with their inode, whatever comes before."""
    children = {}
    for i in range(300):
        children[f"d{i}"] = folder(**{f"{'x' * (k + i % 9)}": file() for k in range(1, 2 + i % 20)})
        children[f"l{i}"] = Node(stat.S_IFLNK | 0o777, target=b"t" * (1 + i * 2))
        children[f"f{i}"] = file(xattrs={b"user.a": b"v" * i})
    plan, area = encoded(folder(**children))
    inline = 0
    for node in plan.order:
        form, words, _, _, size, *_ = inode(area, node.nid)
        if form == erofs.FLAT_INLINE:
            xattrs = 12 + 4 * (words - 1) if words else 0
            start = node.nid << 5
            assert start // 512 == (start + 64 + xattrs + size - 1) // 512
            inline += 1
    assert inline > 400


def test_a_large_directory_is_sorted_over_its_blocks() -> None:
    """By unsigned bytes, ``.`` and ``..`` among the others; no name crosses a block."""
    names = [b"%c%d" % (first, i) for first in (1, 33, 45, 46, 47 + 1, 255) for i in range(200)]
    root = Node(stat.S_IFDIR | 0o755, children={name: file() for name in names})
    plan, area = encoded(root)
    _, _, _, _, size, block, *_ = inode(area, root.nid)
    found: list[bytes] = []
    for at in range(0, size, 512):
        page = area[block * 512 - BASE + at :][:512][: size - at]
        count = struct.unpack_from("<8xH", page)[0] // 12
        offsets = [struct.unpack_from("<8xH", page, 12 * i)[0] for i in range(count)] + [len(page)]
        found += [page[a:b].rstrip(b"\0") for a, b in pairwise(offsets)]
    assert found == sorted([*names, b".", b".."])
    assert plan.inodes == len(names) + 1


def test_links_are_counted() -> None:
    """Names of files, subdirectories of directories; and again when the tree is planned again."""
    shared = file()
    root = folder(a=shared, b=folder(c=shared, d=folder()), e=folder())
    for _ in range(2):
        plan = erofs.plan(root, MOST)
        assert (shared.nlink, root.nlink, root.children[b"b"].nlink) == (2, 4, 3)  # type: ignore[index]
        plan.release()


def test_attributes_are_encoded_sorted_with_their_prefix() -> None:
    """Each padded to four bytes; the two ACL attributes have no name of their own."""
    acl = {b"system.posix_acl_access": b"acl"}
    node = file(xattrs={b"user.b": b"12345", b"security.selinux": b"l", **acl, b"trusted.t": b""})
    _, area = encoded(folder(f=node))
    words = inode(area, node.nid)[1]
    raw = area[(node.nid << 5) + 64 :][: 12 + 4 * (words - 1)]
    assert raw[:12] == bytes(12)
    assert raw[12:] == b"".join(
        [b"\x07\x06\1\0selinuxl", b"\0\x02\3\0acl\0", b"\1\x04\0\0t\0\0\0", b"\1\x01\5\0b12345\0\0"]
    )


def test_attributes_of_other_namespaces_cannot_be_stored() -> None:
    """The tree never has such."""
    with pytest.raises(ValueError, match="cannot be stored"):
        encoded(folder(f=file(xattrs={b"system.x": b""})))


def test_the_same_tree_gives_the_same_bytes() -> None:
    """In whatever order the members came, as long as the data lies at the same place."""
    members = [
        directory(b"b"), entry(b"b/2"), entry(b"b/1"),
        symlink(b"a", b"x" * 600), directory(b"c"), hard_link(b"z", b"b/1"),
    ]  # fmt: skip
    one, _ = grown(*members)
    other, _ = grown(members[4], members[3], *members[:3], members[5])
    assert encoded(one)[1] == encoded(other)[1]


@pytest.mark.parametrize(
    "root",
    [
        Node(stat.S_IFDIR, children={b"%d" % i: file() for i in range(2000)}),
        Node(stat.S_IFDIR, children={b"%d" % i: Node(stat.S_IFLNK, target=b"x" * 4000) for i in range(20)}),
        folder(f=Node(stat.S_IFREG, size=1 << 43, data=[(1, 1, 4096), (1 << 42, 1, 4097)])),
    ],
)  # fmt: skip
def test_metadata_is_bounded(root: Node) -> None:
    """Inodes, directories, link targets, maps and realigned chunks count."""
    with pytest.raises(Corrupt, match="65536 metadata bytes"):
        erofs.plan(root, 1 << 16)
