"""Names, missing parents, symlinked parents and duplicates."""

from __future__ import annotations

from tests.support.awkward.case import Case, case
from tests.support.rawtar import (
    NOON,
    archive,
    directory,
    entry,
    gnu_long,
    hard_link,
    header,
    padded,
    pax,
    symlink,
    whiteout,
)

_BELOW = archive(
    directory(b"tmp/", 0o1777),
    directory(b"usr/", 0o755, mtime=NOON - 50),
    directory(b"usr/lib/", 0o2711, uid=5, gid=6, mtime=NOON - 60, xattrs={b"user.who": b"lib"}),
    entry(b"usr/lib/libc", data=b"libc"),
    symlink(b"lib", b"usr/lib"),
    symlink(b"abs", b"/usr/lib"),
    symlink(b"dangling", b"nowhere"),
    symlink(b"up", b"../../../usr"),
    entry(b"file", data=b"file"),
)
"""A lower layer like a distribution's: sticky tmp, symlinked lib, a directory with owner and xattr."""


def cases() -> list[Case]:
    return [*_roots(), *_parents(), *_symlinked(), *_duplicates(), *_spellings()]


def _roots() -> list[Case]:
    odd = directory(b"./", 0o700, uid=9, gid=9, mtime=5, xattrs={b"user.root": b"1"})
    return [
        case("root-entry", archive(odd, entry(b"./x"))),
        case("root-entry-second-layer", _BELOW, archive(odd, entry(b"./x"))),
        case("root-entry-slash", archive(directory(b"/", 0o700, uid=9), entry(b"x"))),
        case("root-entry-dot", archive(directory(b".", 0o700, uid=9), entry(b"x"))),
        case("root-entry-empty-name", archive(directory(b"", 0o700, uid=9), entry(b"x"))),
        case("root-entry-file", archive(entry(b".", data=b"root?"), entry(b"x"))),
        case("root-entry-symlink", archive(symlink(b"/", b"etc"), entry(b"x"))),
        case("root-entry-dot-dot", archive(directory(b"../", 0o700), entry(b"x"))),
        case("root-entry-folded", archive(directory(b"a/", 0o701), directory(b"a/..", 0o700), entry(b"x"))),
        case("root-hard-link", archive(entry(b"x"), hard_link(b"./", b"x"))),
    ]


def _parents() -> list[Case]:
    return [
        case("parent-missing", archive(entry(b"a/b/c"))),
        case("parent-missing-lower-tmp", _BELOW, archive(entry(b"tmp/x"))),
        case("parent-missing-lower-attributes", _BELOW, archive(entry(b"usr/lib/x"), entry(b"usr/y"))),
        case("parent-missing-lower-acl", archive(directory(b"d/", 0o755, xattrs={b"system.posix_acl_default": _ACL}), ), archive(entry(b"d/e/x"))),
        case("parent-after-child", archive(entry(b"a/b"), directory(b"a/", 0o700, uid=4, mtime=99))),
        case("parent-after-child-lower", _BELOW, archive(entry(b"tmp/b"), directory(b"tmp/", 0o700, uid=4, mtime=99))),
        case("parent-missing-twice", _BELOW, archive(entry(b"usr/lib/x")), archive(entry(b"usr/lib/y"))),
        case("parent-missing-entry-in-between", _BELOW, archive(directory(b"usr/lib/", 0o700)), archive(entry(b"usr/lib/y"))),
        case("parent-is-file", archive(entry(b"a"), entry(b"a/b"))),
        case("parent-is-lower-file", _BELOW, archive(entry(b"file/b"))),
        case("parent-is-own-whiteout", _BELOW, archive(whiteout(b"usr"), entry(b"usr/b"))),
        case("parent-is-fifo", archive(entry(b"a", b"6"), entry(b"a/b"))),
        case("parent-is-device", archive(entry(b"a", b"3", device=(1, 3)), entry(b"a/b"))),
    ]


_ACL = bytes.fromhex("02000000" "01000700ffffffff" "02000700e8030000" "04000500ffffffff" "10000700ffffffff" "20000500ffffffff")
"""A POSIX ACL, version 2: user::rwx, user:1000:rwx, group::r-x, mask::rwx, other::r-x."""


def _symlinked() -> list[Case]:
    return [
        case("symlinked-parent-same-layer", archive(directory(b"usr/lib/"), symlink(b"lib", b"usr/lib"), entry(b"lib/x"))),
        case("symlinked-parent-same-layer-implicit", archive(symlink(b"lib", b"usr/lib"), entry(b"lib/x"))),
        case("symlinked-parent-absolute", archive(directory(b"usr/"), symlink(b"a", b"/usr"), entry(b"a/x"))),
        case("symlinked-parent-up", archive(directory(b"usr/"), symlink(b"a", b"../../usr"), entry(b"a/x"))),
        case("symlinked-parent-loop", archive(symlink(b"a", b"b"), symlink(b"b", b"a"), entry(b"a/x"))),
        case("symlinked-parent-self", archive(symlink(b"a", b"a"), entry(b"a/x"))),
        case("symlinked-parent-to-file", archive(entry(b"f"), symlink(b"a", b"f"), entry(b"a/x"))),
        case("symlinked-parent-chain", archive(directory(b"d/"), symlink(b"a", b"b"), symlink(b"b", b"c"), symlink(b"c", b"d"), entry(b"a/x"))),
        case("symlinked-parent-to-root", archive(symlink(b"a", b"/"), entry(b"a/x"))),
        case("symlinked-parent-to-dot", archive(symlink(b"a", b"."), entry(b"a/x"))),
        case("symlinked-parent-inner", archive(directory(b"d/"), directory(b"d/real/"), symlink(b"d/s", b"real"), entry(b"d/s/x"), entry(b"d/s/n/y"))),
        case("symlinked-parent-lower", _BELOW, archive(entry(b"lib/x"))),
        case("symlinked-parent-lower-twice", _BELOW, archive(entry(b"lib/x"), entry(b"lib/y"), entry(b"usr/lib/z"))),
        case("symlinked-parent-lower-absolute", _BELOW, archive(entry(b"abs/x"))),
        case("symlinked-parent-lower-up", _BELOW, archive(entry(b"up/lib/x"))),
        case("symlinked-parent-lower-dangling", _BELOW, archive(entry(b"dangling/x"))),
        case("symlinked-parent-lower-directory-entry", _BELOW, archive(directory(b"lib/", 0o700), entry(b"lib/x"))),
        case("symlinked-parent-lower-third-layer", _BELOW, archive(entry(b"lib/x")), archive(entry(b"lib/y"))),
        case("symlink-to-directory-then-directory", archive(directory(b"d/"), symlink(b"s", b"d"), directory(b"s/", 0o700), entry(b"s/x"))),
        case("directory-dot-dot-in-middle", archive(directory(b"a/"), symlink(b"a/s", b"../b"), directory(b"b/"), entry(b"a/s/../x"))),
        case("directory-times-through-symlink", archive(directory(b"a/", mtime=11), directory(b"b/", mtime=22), symlink(b"a2", b"b", mtime=33), directory(b"a2/x/", mtime=44))),
    ]


def _duplicates() -> list[Case]:
    made = {
        "file": entry(b"n", data=b"first", mode=0o4755, uid=1, mtime=10),
        "directory": directory(b"n/", 0o2750, uid=2, mtime=20, xattrs={b"user.d": b"1"}) + entry(b"n/child", mtime=21),
        "symlink": symlink(b"n", b"t", uid=3, mtime=30),
        "fifo": entry(b"n", b"6", mode=0o600, uid=4, mtime=40),
        "device": entry(b"n", b"3", mode=0o600, device=(1, 5), mtime=50),
        "link": hard_link(b"n", b"t", mode=0o600, mtime=60),
    }
    base = directory(b"t2/") + entry(b"t", data=b"target")
    pairs = [
        case(f"duplicate-{a}-{b}", archive(base, made[a], made[b]))
        for a in made
        for b in made
    ]
    again = directory(b"n/", 0o700, uid=8, mtime=80, xattrs={b"user.other": b"2"})
    return [
        *pairs,
        case("duplicate-directory-merged", archive(made["directory"], again)),
        case("duplicate-directory-lower", archive(made["directory"]), archive(again)),
        case("duplicate-file-other-spelling", archive(entry(b"n", data=b"1"), entry(b"./n", data=b"22"), entry(b"//n", data=b"333"))),
        case("duplicate-directory-file-directory", archive(made["directory"], made["file"], again)),
        case("duplicate-linked-file-replaced", archive(entry(b"a", data=b"a"), hard_link(b"b", b"a"), entry(b"a", data=b"new"))),
        case("duplicate-directory-then-symlink-to-directory", archive(directory(b"n/", mtime=5), directory(b"o/", mtime=6), symlink(b"n", b"o", mtime=7))),
        case("duplicate-directory-then-dangling-symlink", archive(directory(b"n/", mtime=5), symlink(b"n", b"o", mtime=7))),
        case("duplicate-tree-replaced-by-file", archive(directory(b"n/"), directory(b"n/m/"), entry(b"n"))),
    ]


def _spellings() -> list[Case]:
    long_name = b"x" * 255
    deep = b"/".join([b"d" * 200] * 19)
    return [
        case("name-absolute", archive(entry(b"/a/b"), directory(b"//c//d/"))),
        case("name-dots", archive(entry(b"./a/./b"), entry(b"a//c"))),
        case("name-dot-dot-outside", archive(entry(b"../x"), entry(b"../../y/z"), entry(b"/../w"))),
        case("name-dot-dot-inside", archive(entry(b"a/../b"), entry(b"c/d/../../e/f"))),
        case("name-newline", archive(entry(b"a\nb"), entry(b"tab\there"))),
        case("name-invalid-utf8", archive(entry(b"\xff\xfe\x80"), directory(b"d\xc3/"), entry(b"d\xc3/\x01"))),
        case("name-invalid-utf8-pax", archive(pax({b"path": b"p\xff\xfe"}), header(b"short"))),
        case("name-utf8-normal-forms", archive(entry("é".encode()), entry("e\u0301".encode()))),
        case("name-nul-in-pax", archive(pax({b"path": b"a\0b"}), header(b"short"), entry(b"other"))),
        case("name-nul-in-pax-link", archive(pax({b"linkpath": b"a\0b"}), header(b"s", b"2"), entry(b"other"))),
        case("name-nul-in-header", archive(header(b"a\0b"), entry(b"other"))),
        case("name-nul-in-gnu-long", archive(gnu_long(b"a\0b", b"L"), header(b"short"), entry(b"other"))),
        case("name-backslash-colon", archive(entry(b"a\\b"), entry(b"c:d"), entry(b" "), entry(b"-rf"))),
        case("name-255", archive(entry(long_name), directory(long_name[:-1] + b"y/"), entry(long_name[:-1] + b"y/" + long_name))),
        case("name-256", archive(entry(b"x" * 256), entry(b"other"))),
        case("name-256-directory", archive(entry(b"y" * 256 + b"/z"))),
        case("path-3900", archive(entry(deep + b"/end"))),
        case("path-4096-and-more", archive(entry(deep + b"/" + b"e" * 200 + b"/" + b"f" * 200))),
        case("path-5000-shallow-after-clean", archive(entry(b"./" * 2500 + b"x"))),
        case("name-ustar-prefix", archive(header(b"n" * 100, prefix=b"p" * 100 + b"/" + b"q" * 54))),
        case("name-gnu-long", archive(gnu_long(b"g" * 150, b"L"), header(b"cut"), gnu_long(b"t" * 150, b"K"), gnu_long(b"l" * 140, b"L"), header(b"cut", b"2", link=b"cut"))),
        case("name-v7", archive(header(b"v7", magic=bytes(8)), header(b"v7d/", magic=bytes(8)), entry(b"v7d/x"))),
        case("name-v7-old-directory", archive(header(b"olddir/", b"\0", mode=0o700), entry(b"olddir/x"))),
        case("name-file-with-slash", archive(header(b"slashed/", b"0", size=3) + padded(b"abc"), entry(b"after"))),
        case("name-symlink-with-slash", archive(symlink(b"s/", b"t"))),
        case("name-pax-slash-file", archive(pax({b"path": b"slashed/"}), header(b"x", b"0"), entry(b"after"))),
        case("name-pax-empty-path", archive(pax({b"path": b""}), header(b"kept"), entry(b"after"))),
        case("name-empty", archive(header(b""), entry(b"after"))),
        case("name-hash-collisions", archive(*(entry(b"h%d" % i) for i in range(1500)))),
        case("symlink-long-target", archive(symlink(b"s", b"t" * 4000))),
        case("symlink-target-4095", archive(symlink(b"s", b"t/" * 2047 + b"t"))),
        case("symlink-target-4096", archive(symlink(b"s", b"t/" * 2048), entry(b"after"))),
        case("symlink-empty-target", archive(symlink(b"s", b""), entry(b"after"))),
        case("symlink-outside", archive(symlink(b"s", b"../../../../etc/passwd"), symlink(b"t", b"/etc/shadow"))),
        case("symlink-odd-bytes", archive(symlink(b"s", b"\xff\n //x/../"))),
    ]
