"""The tree: what each member does to what was there, and what only lower layers can answer."""

from __future__ import annotations

import os
import stat

import pytest

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers import paths
from imagecached.layers.limits import Limits
from imagecached.layers.node import Node, is_whiteout
from imagecached.layers.notes import LinkNote, Notes, relink
from imagecached.layers.paths import clean
from tests.support.rawtar import (
    BLOCK_DEVICE,
    CHAR,
    FIFO,
    NOON,
    directory,
    entry,
    hard_link,
    header,
    opaque,
    pax,
    symlink,
    whiteout,
)
from tests.unit.layers.building import at, grown, names

OPAQUE = {b"trusted.overlay.opaque": b"y"}


# ---- Members


def test_each_type_becomes_its_inode() -> None:
    """Files, directories, links, devices and fifos, with owner, mode and time."""
    root, notes = grown(
        directory(b"d/", 0o1777, uid=1, gid=2, mtime=5),
        entry(b"d/f", data=b"abc", mode=0o4755, uid=3, gid=4),
        symlink(b"d/s", b"../x", uid=7),
        entry(b"d/c", CHAR, device=(4, 300), mode=0o620),
        entry(b"d/b", BLOCK_DEVICE, device=(8, 1)),
        entry(b"d/p", FIFO, device=(9, 9)),
    )
    d, f, s = at(root, b"d"), at(root, b"d/f"), at(root, b"d/s")
    assert (d.mode, d.uid, d.gid, d.mtime) == (stat.S_IFDIR | 0o1777, 1, 2, 5)
    assert (f.mode, f.uid, f.gid, f.size, f.mtime) == (stat.S_IFREG | 0o4755, 3, 4, 3, NOON)
    assert (s.mode, s.target, s.uid) == (stat.S_IFLNK | 0o777, b"../x", 7)
    assert (at(root, b"d/c").mode, at(root, b"d/c").rdev) == (stat.S_IFCHR | 0o620, os.makedev(4, 300))
    assert (stat.S_IFMT(at(root, b"d/b").mode), at(root, b"d/b").rdev) == (stat.S_IFBLK, os.makedev(8, 1))
    assert (stat.S_IFMT(at(root, b"d/p").mode), at(root, b"d/p").rdev) == (stat.S_IFIFO, 0)
    assert notes == Notes()


@pytest.mark.parametrize("kind", [b"7", b"s", b"D", b"M", b"V", b"\xff"])
def test_other_types_are_unsupported(kind: bytes) -> None:
    """As the reference says of them; contiguous files included."""
    with pytest.raises(Unsupported, match="type"):
        grown(entry(b"f", kind))


def test_the_root_keeps_its_attributes() -> None:
    """An entry for it sets nothing, however it is spelt."""
    root, _ = grown(
        directory(b"./", 0o700, uid=5), directory(b"/", 0o700), entry(b".."), entry(b"", data=b"x")
    )
    assert (root.mode, root.uid, root.mtime, names(root)) == (stat.S_IFDIR | 0o755, 0, 0, [])


@pytest.mark.parametrize(
    "name", [b"a/b", b"./a/b", b"/a/b", b"//a//b", b"a/./b", b"x/../a/b", b"../../a/b", b"a/c/../b", b"a/b/."]
)
def test_names_are_cleaned_as_text(name: bytes) -> None:
    """Nothing leads outside, and a cleaned component is never made."""
    root, notes = grown(entry(name))
    assert names(root) == [b"a", b"a/b"]
    assert notes.implicit == [b"a"]


def test_a_later_member_replaces_an_earlier() -> None:
    """Whole trees too; only a directory over a directory merges."""
    root, _ = grown(
        entry(b"x", data=b"1"),
        directory(b"d", 0o700, mtime=1),
        entry(b"d/f"),
        directory(b"d", 0o750, mtime=2, xattrs={b"user.a": b"1"}),
        directory(b"x"),
        entry(b"x/y"),
        entry(b"x", data=b"22"),
    )
    assert names(root) == [b"d", b"d/f", b"x"]
    assert (at(root, b"d").mode & 0o7777, at(root, b"d").mtime, at(root, b"d").xattrs) == (
        0o750,
        2,
        {b"user.a": b"1"},
    )
    assert at(root, b"x").size == 2


def test_a_global_header_removes_what_has_its_name() -> None:
    """It counts as an entry up to the last step: parents are made too."""
    root, notes = grown(entry(b"t/g"), pax({b"path": b"t"}, b"g"), pax({b"path": b"n/g"}, b"g"))
    assert names(root) == [b"n"]
    assert notes.implicit == [b"n"]


def test_owners_that_are_not_given() -> None:
    """All ones leave the owner: root for a new inode, the group of a set-group-id directory."""
    root, _ = grown(
        directory(b"d", 0o2755, gid=50),
        entry(b"d/f", uid=2**32 - 1, gid=2**32 - 1),
        entry(b"f", uid=2**32 - 1, gid=2**32 - 1),
        entry(b"d/i/x"),
    )
    assert [(at(root, path).uid, at(root, path).gid) for path in (b"d/f", b"f", b"d/i")] == [
        (0, 50),
        (0, 0),
        (0, 50),
    ]
    assert at(root, b"d/i").mode == stat.S_IFDIR | 0o755


def test_device_numbers_are_cut() -> None:
    """To 12 and 20 bits, so that 4096:0 is a whiteout."""
    root, notes = grown(
        entry(b"c", CHAR, device=(4096 + 1, (1 << 20) + 2)), entry(b"w", CHAR, device=(4096, 0))
    )
    assert at(root, b"c").rdev == os.makedev(1, 2)
    assert is_whiteout(at(root, b"w"))
    assert notes.whiteouts == [b""]


@pytest.mark.parametrize(
    "member",
    [
        symlink(b"s", b""),
        symlink(b"s", b"t" * 4096),
        entry(b"n" * 256),
        entry(b"n" * 256 + b"/f"),
        whiteout(b"n" * 256),
        pax({b"GNU.sparse.major": b"0", b"GNU.sparse.minor": b"0", b"GNU.sparse.numblocks": b"0",
             b"GNU.sparse.name": b"a\0b"}) + header(b"f"),
    ],
)  # fmt: skip
def test_names_that_no_kernel_takes(member: bytes) -> None:
    """Empty or too long."""
    with pytest.raises(Corrupt, match="tar member"):
        grown(member)


# ---- Parents


def test_missing_parents_are_made_and_noted() -> None:
    """0755 root:root at the epoch, until an entry for them comes."""
    root, notes = grown(entry(b"a/b/c/f"), directory(b"a/b", 0o700, uid=5))
    assert notes == Notes(implicit=[b"a", b"a/b/c"], late=[b"a/b"])
    assert (at(root, b"a").mode, at(root, b"a").uid, at(root, b"a").mtime) == (stat.S_IFDIR | 0o755, 0, 0)
    assert at(root, b"a/b").uid == 5


def test_symbolic_links_are_followed_inside_the_layer() -> None:
    """In parents, not in the name itself; absolute ones and climbing ones stay in the layer."""
    root, notes = grown(
        directory(b"usr/lib"),
        symlink(b"lib", b"usr/lib"),
        symlink(b"abs", b"/usr/lib"),
        symlink(b"out", b"../../../usr"),
        symlink(b"usr/up", b".."),
        entry(b"lib/a"),
        entry(b"abs/b"),
        entry(b"out/lib/c"),
        entry(b"usr/up/lib/d"),
        symlink(b"dangling", b"made/here"),
        entry(b"dangling/e"),
        entry(b"lib", data=b"now a file"),
    )
    assert [path for path in names(root) if path.startswith(b"usr/lib/")] == [
        b"usr/lib/a", b"usr/lib/b", b"usr/lib/c", b"usr/lib/d",
    ]  # fmt: skip
    assert b"made/here/e" in names(root)
    assert notes.implicit == [b"made", b"made/here", b"usr"]
    assert at(root, b"lib").size == 10


def test_a_replaced_link_leads_elsewhere_afterwards() -> None:
    """What a name's directory part means is not remembered beyond that."""
    root, _ = grown(
        directory(b"one"), directory(b"two"),
        symlink(b"l", b"one"), entry(b"l/a"), symlink(b"l", b"two"), entry(b"l/b"),
        directory(b"l"), entry(b"l/c"),
    )  # fmt: skip
    assert names(root) == [b"l", b"l/c", b"one", b"one/a", b"two", b"two/b"]


def test_climbing_out_of_a_link_behind_a_link_goes_by_the_text() -> None:
    """The reference joins the texts; the kernel would start from where the first link leads."""
    root, _ = grown(
        directory(b"x"), directory(b"deep/er/dir"),
        symlink(b"a", b"x/s"), symlink(b"x/s", b"../deep/er/dir"), symlink(b"deep/er/dir/b", b"../z"),
        entry(b"a/b/f"),
    )  # fmt: skip
    assert b"x/z/f" in names(root)


@pytest.mark.parametrize(
    "members",
    [
        (entry(b"f"), entry(b"f/x")),
        (entry(b"f"), entry(b"f/x/y")),
        (entry(b"p", FIFO), entry(b"p/x/y")),
        (entry(b"f"), symlink(b"s", b"f"), entry(b"s/x")),
        (symlink(b"s", b"s"), entry(b"s/x")),
        (symlink(b"a", b"b/c"), symlink(b"b", b"a/c"), entry(b"a/x")),
    ],
)
def test_parents_that_cannot_be(members: tuple[bytes, ...]) -> None:
    """Below a file, behind a loop."""
    with pytest.raises(Corrupt, match=r"parent is not a directory|symbolic links"):
        grown(*members)


# ---- Times of directories


def test_times_of_directories_are_set_at_the_end_by_name() -> None:
    """What took a directory's place has its time then; links are followed."""
    root, _ = grown(
        directory(b"a", mtime=111), entry(b"a", mtime=222),
        directory(b"b", mtime=333), directory(b"c", mtime=444), symlink(b"b", b"c", mtime=555),
    )  # fmt: skip
    assert at(root, b"a").mtime == 111
    assert (at(root, b"c").mtime, at(root, b"b").mtime) == (444, 555)
    root, _ = grown(directory(b"c", mtime=444), directory(b"b", mtime=333), symlink(b"b", b"c", mtime=555))
    assert at(root, b"c").mtime == 333


def test_a_directory_must_be_there_at_the_end() -> None:
    """Else the reference cannot set its time."""
    with pytest.raises(Corrupt, match="gone at the end"):
        grown(directory(b"a"), directory(b"a/b"), pax({b"path": b"a"}, b"g"))


# ---- Whiteouts


def test_whiteouts_and_opaque_marks() -> None:
    """A 0:0 character device, an attribute; the directories that hold whiteouts are noted."""
    root, notes = grown(
        whiteout(b"gone"), whiteout(b"d/gone", uid=5, gid=6), directory(b"d"), opaque(b"d"), opaque(b""),
    )  # fmt: skip
    assert is_whiteout(at(root, b"gone"))
    assert (at(root, b"d/gone").uid, at(root, b"d/gone").gid) == (5, 6)
    assert at(root, b"d").xattrs == OPAQUE
    assert root.xattrs == OPAQUE
    assert notes == Notes(whiteouts=[b"", b"d"], late=[b"d"])


def test_marks_count_whatever_their_type() -> None:
    """Also names that only begin like a mark."""
    root, notes = grown(
        directory(b".wh.d/"), symlink(b".wh.s", b"x"), entry(b".wh..wh.plnk/1.2"), opaque(b"o")
    )
    assert names(root) == [b".wh..wh.plnk", b".wh..wh.plnk/1.2", b"d", b"o", b"s"]
    assert notes.implicit == [b".wh..wh.plnk", b"o"]


@pytest.mark.parametrize("name", [b".wh.", b"d/.wh..", b".wh..."])
def test_a_whiteout_needs_a_name(name: bytes) -> None:
    """Nothing, . and .. are none."""
    with pytest.raises(Corrupt, match="whiteout of nothing"):
        grown(entry(name))


def test_a_member_replaces_a_whiteout() -> None:
    """A directory too, which then merges with what lower layers have."""
    root, notes = grown(whiteout(b"f"), entry(b"f"), whiteout(b"d"), directory(b"d"))
    assert stat.S_ISREG(at(root, b"f").mode)
    assert at(root, b"d").xattrs is None
    assert notes == Notes()


@pytest.mark.parametrize(
    "members",
    [
        (entry(b"f"), whiteout(b"f")),
        (entry(b"d/f"), whiteout(b"d")),
        (whiteout(b"f"), whiteout(b"f")),
        (whiteout(b"d"), entry(b"d/f")),
    ],
)
def test_layers_that_work_at_the_bottom_only(members: tuple[bytes, ...]) -> None:
    """There a whiteout removes what the layer itself made; further up the reference refuses."""
    _, notes = grown(*members)
    assert "whiteout" in notes.bottom_only
    assert notes.never_bottom == ""


def test_layers_that_do_not_work_at_the_bottom() -> None:
    """A link to a whiteout, and an opaque mark above directories without entry."""
    root, notes = grown(whiteout(b"w"), hard_link(b"l", b"w"))
    assert is_whiteout(at(root, b"l"))
    assert "link to a whiteout" in notes.never_bottom
    _, notes = grown(entry(b"d/i/f"), opaque(b"d"))
    assert "opaque" in notes.never_bottom
    _, notes = grown(entry(b"d/f"), opaque(b"d"))
    assert notes.never_bottom == ""


def test_layers_that_work_nowhere() -> None:
    """Both at once is refused outright."""
    with pytest.raises(Corrupt, match="whiteout of what"):
        grown(entry(b"f"), whiteout(b"f"), hard_link(b"l", b"f"))


# ---- Hard links


def test_a_link_shares_the_inode_and_sets_its_attributes() -> None:
    """Owner, mode, time and attributes of the link member win; a change of owner drops capabilities."""
    capability = b"\x01\0\0\x02" + bytes(16)
    root, _ = grown(
        entry(b"f", data=b"abc", mode=0o755, xattrs={b"security.capability": capability, b"user.a": b"1"}),
        hard_link(b"d/l", b"./f", mode=0o4711, uid=9, mtime=77, xattrs={b"user.b": b"2"}),
        hard_link(b"m", b"/d/../d/l", mode=0o711, uid=2**32 - 1),
    )
    f = at(root, b"f")
    assert at(root, b"d/l") is f
    assert at(root, b"m") is f
    assert (f.mode, f.uid, f.size, f.mtime) == (stat.S_IFREG | 0o711, 9, 3, NOON)
    assert f.xattrs == {b"user.a": b"1", b"user.b": b"2"}


def test_a_link_to_a_symbolic_link_is_one() -> None:
    """Not to where it leads; its parent's links are followed. Its mode stays."""
    root, _ = grown(
        directory(b"t"), symlink(b"s", b"t"), symlink(b"t/in", b"x"),
        hard_link(b"l", b"s", mode=0o600), hard_link(b"m", b"s/in"),
    )  # fmt: skip
    assert at(root, b"l") is at(root, b"s")
    assert at(root, b"m") is at(root, b"t/in")
    assert at(root, b"l").mode == stat.S_IFLNK | 0o777


def test_a_link_into_a_lower_layer_is_noted() -> None:
    """With all its names in this layer and its attributes; nothing is in the tree."""
    root, notes = grown(
        hard_link(b"b/l", b"usr/bin/f", mode=0o4755, uid=3, gid=2**32 - 1, xattrs={b"user.a": b"1"}),
        hard_link(b"a/l", b"b/l", mode=0o755, uid=4, gid=2**32 - 1),
        entry(b"b/other"),
    )
    assert names(root) == [b"a", b"b", b"b/other"]
    assert notes.links == [LinkNote([b"a/l", b"b/l"], b"usr/bin/f", 0o755, 4, -1, NOON, 0, {b"user.a": b"1"})]
    assert notes.implicit == [b"a", b"b"]


def test_a_replaced_link_is_not_noted() -> None:
    """Nor one whose directory went away."""
    _, notes = grown(
        hard_link(b"l", b"x"), entry(b"l"),
        hard_link(b"d/l", b"x"), entry(b"d"),
        hard_link(b"m", b"x"), symlink(b"m", b"y"),
    )  # fmt: skip
    assert notes == Notes()


def test_relink_does_what_the_link_member_does() -> None:
    """To an inode of a lower layer."""
    node = Node(stat.S_IFREG | 0o600, uid=1, gid=2, xattrs={b"security.capability": b"x", b"user.k": b"v"})
    relink(node, LinkNote([b"l"], b"f", 0o755, 5, -1, 10, 11, {b"user.n": b"w"}))
    assert (node.mode, node.uid, node.gid, node.mtime, node.mtime_ns) == (stat.S_IFREG | 0o755, 5, 2, 10, 11)
    assert node.xattrs == {b"user.k": b"v", b"user.n": b"w"}


@pytest.mark.parametrize(
    "members",
    [
        (directory(b"d"), hard_link(b"l", b"d")),
        (hard_link(b"l", b""),),
        (hard_link(b"l", b"/"),),
        (hard_link(b"l", b".."),),
        (hard_link(b"l", b"l"),),
        (entry(b"l"), hard_link(b"l", b"l")),
        (entry(b"f"), hard_link(b"l", b"f/x")),
        (whiteout(b"w"), hard_link(b"l", b"w/x")),
        (opaque(b"o"), hard_link(b"l", b"o/x")),
        (opaque(b"o"), directory(b"o/d"), hard_link(b"l", b"o/d/x")),
    ],
)
def test_links_that_cannot_be(members: tuple[bytes, ...]) -> None:
    """To a directory, to itself, or to what this layer hides from the layers below."""
    with pytest.raises(Corrupt, match="tar member 'l'"):
        grown(*members)


# ---- Bounds


@pytest.mark.parametrize(
    ("limits", "members", "named"),
    [
        (Limits(path_bytes=300), (entry(b"a/" * 160 + b"f"),), "300 path bytes"),
        (Limits(depth=5), (entry(b"a/b/c/d/e/f"),), "5 depth"),
        (Limits(entries=3), (entry(b"a/b/c/d/f"),), "3 entries"),
        (Limits(metadata_bytes=4000), (symlink(b"a", b"x" * 600), symlink(b"b", b"x" * 600)), "1000 text"),
        (Limits(metadata_bytes=4000), (entry(b"a", xattrs={b"user.a": b"x" * 999}), entry(b"b")), "1000 te"),
    ],
)  # fmt: skip
def test_limits_are_named_with_the_member(limits: Limits, members: tuple[bytes, ...], named: str) -> None:
    """Also for directories that no member names."""
    with pytest.raises(Corrupt, match=f"tar member .*more than {named}"):
        grown(*members, limits=limits)


def test_a_long_name_may_be_short_when_cleaned() -> None:
    """The bound is on the path that is meant."""
    root, _ = grown(entry(b"./" * 3000 + b"f"))
    assert names(root) == [b"f"]


def test_the_work_for_symbolic_links_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long chains behind every name may cost only so many look-ups in all."""
    chain = [symlink(b"l%d" % i, b"l%d" % (i + 1)) for i in range(30)]
    layer = [*chain, directory(b"l30"), *[entry(b"l0/%d/f" % i) for i in range(10)]]
    grown(*layer)
    monkeypatch.setattr(paths, "_STEPS", 100)
    with pytest.raises(Corrupt, match="too many symbolic links or nested directories"):
        grown(*layer)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"", []),
        (b"/", []),
        (b"a//b/", [b"a", b"b"]),
        (b"../a", [b"a"]),
        (b"a/../../b/.", [b"b"]),
        (b".a", [b".a"]),
    ],
)
def test_clean(name: bytes, parts: list[bytes]) -> None:
    """Text only; the root is as far up as it goes."""
    assert clean(name) == parts
