"""Hard links: across layers, before their targets, to odd things, with headers that disagree."""

from __future__ import annotations

from tests.support.awkward.case import Case, case
from tests.support.rawtar import archive, directory, entry, hard_link, header, padded, symlink, whiteout

_BELOW = archive(
    directory(b"d/", 0o750, uid=3),
    entry(b"d/f", data=b"lower file", mode=0o4711, uid=5, gid=6, mtime=77, xattrs={b"user.a": b"b"}),
    entry(b"top", data=b"top"),
    symlink(b"s", b"d/f"),
    symlink(b"ds", b"d"),
)


def cases() -> list[Case]:
    target = entry(b"f", data=b"target", mode=0o640, uid=1, gid=2, mtime=100, xattrs={b"user.a": b"1", b"user.b": b"2"})
    return [
        case("link-lower", _BELOW, archive(hard_link(b"l", b"d/f", mode=0o4711, uid=5, gid=6, mtime=77))),
        case("link-lower-same-directory", _BELOW, archive(hard_link(b"d/l", b"d/f"))),
        case("link-lower-directory-entry", _BELOW, archive(directory(b"d/"), hard_link(b"d/l", b"d/f"))),
        case("link-lower-through-symlink", _BELOW, archive(hard_link(b"l", b"ds/f"))),
        case("link-lower-whited-out", _BELOW, archive(whiteout(b"top"), hard_link(b"l", b"top"))),
        case("link-to-whiteout-marker", _BELOW, archive(whiteout(b"top"), hard_link(b"l", b".wh.top"))),
        case("link-plain", archive(target, hard_link(b"l", b"f", mode=0o640, uid=1, gid=2, mtime=100))),
        case("link-other-attributes", archive(target, hard_link(b"l", b"f", mode=0o4755, uid=8, gid=9, mtime=200))),
        case("link-other-xattrs", archive(target, hard_link(b"l", b"f", xattrs={b"user.a": b"new", b"user.c": b"3"}))),
        case("link-drops-setuid-by-chown", archive(entry(b"f", mode=0o4755), hard_link(b"l", b"f", mode=0o755, uid=9))),
        case("link-and-capability", archive(entry(b"f", xattrs={b"security.capability": _CAPABILITY}), hard_link(b"l", b"f", uid=1))),
        case("link-absolute-target", archive(target, hard_link(b"l", b"/f"))),
        case("link-dot-target", archive(target, hard_link(b"l", b"./f"))),
        case("link-dot-dot-target", archive(target, hard_link(b"l", b"../../f"))),
        case("link-outside", archive(target, hard_link(b"l", b"../../../../etc/passwd"))),
        case("link-inner-dot-dot", archive(target, directory(b"d/"), hard_link(b"l", b"d/../f"))),
        case("link-to-dot-dot", archive(directory(b"d/"), hard_link(b"l", b"d/.."))),
        case("link-through-symlink", archive(directory(b"d/"), entry(b"d/f", data=b"x"), symlink(b"s", b"d"), hard_link(b"l", b"s/f"))),
        case("link-to-symlink", archive(target, symlink(b"s", b"f", mtime=5), hard_link(b"l", b"s", uid=7, mode=0o600, mtime=6))),
        case("link-to-dangling-symlink", archive(symlink(b"s", b"none"), hard_link(b"l", b"s"))),
        case("link-to-directory", archive(directory(b"d/"), hard_link(b"l", b"d"))),
        case("link-to-fifo", archive(entry(b"p", b"6", mode=0o600), hard_link(b"l", b"p", mode=0o640))),
        case("link-to-device", archive(entry(b"c", b"3", device=(1, 3)), hard_link(b"l", b"c"))),
        case("link-before-target", archive(hard_link(b"l", b"f"), target)),
        case("link-to-itself", archive(target, hard_link(b"f", b"f"))),
        case("link-to-itself-missing", archive(hard_link(b"f", b"f"))),
        case("link-missing", archive(hard_link(b"l", b"nothing"))),
        case("link-empty-target", archive(target, hard_link(b"l", b""))),
        case("link-to-root", archive(target, hard_link(b"l", b"/"))),
        case("link-trailing-slash", archive(target, hard_link(b"l", b"f/"))),
        case("link-name-with-slash", archive(target, hard_link(b"l/", b"f"))),
        case("link-chain", archive(target, hard_link(b"l", b"f"), hard_link(b"m", b"l"), hard_link(b"d/n", b"m"))),
        case("link-replaces", archive(target, entry(b"l", data=b"old"), hard_link(b"l", b"f"))),
        case("link-replaces-directory", archive(target, directory(b"l/"), entry(b"l/x"), hard_link(b"l", b"f"))),
        case("link-to-own-child", archive(directory(b"d/"), entry(b"d/f"), hard_link(b"d", b"d/f"))),
        case("link-to-replaced-link", archive(target, hard_link(b"l", b"f"), hard_link(b"l", b"f", mode=0o600))),
        case("link-target-removed-later", archive(target, hard_link(b"l", b"f"), symlink(b"f", b"l"))),
        case("link-with-data", archive(target, header(b"l", b"1", link=b"f", size=4) + padded(b"data"), entry(b"after"))),
        case("link-with-data-pax", archive(target, header(b"l", b"1", link=b"f", size=600) + padded(b"z" * 600), entry(b"after"))),
        case("link-across-layers-copied-up", archive(target, hard_link(b"l", b"f")), archive(entry(b"f", data=b"new"))),
        case("link-whited-out-name", archive(target, hard_link(b"l", b"f")), archive(whiteout(b"f"))),
        case("link-both-layers", archive(target, hard_link(b"l", b"f")), archive(target, hard_link(b"l", b"f"))),
        case("link-many", archive(target, *(hard_link(b"l%d" % i, b"f", mode=0o640) for i in range(300)))),
        case("link-inside-implicit", archive(entry(b"a/f", data=b"x"), hard_link(b"b/l", b"a/f"))),
        case("link-xattr-on-symlink", archive(symlink(b"s", b"t"), hard_link(b"l", b"s", xattrs={b"user.a": b"1"}))),
    ]


_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw+ep, VFS_CAP_REVISION_2 with the effective bit."""
