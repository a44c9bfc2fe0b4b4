"""Names, missing parents, symlinked parents and duplicates."""

from __future__ import annotations

from tests.support.awkward.case import Layers
from tests.support.rawtar import (
    NOON,
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

_BELOW = [
    directory(b"tmp/", 0o1777),
    directory(b"usr/", 0o755, mtime=NOON - 50),
    directory(b"usr/lib/", 0o2711, uid=5, gid=6, mtime=NOON - 60, xattrs={b"user.who": b"lib"}),
    entry(b"usr/lib/libc", data=b"libc"),
    symlink(b"lib", b"usr/lib"),
    symlink(b"abs", b"/usr/lib"),
    symlink(b"dangling", b"nowhere"),
    symlink(b"up", b"../../../usr"),
    entry(b"file", data=b"file"),
]
"""A lower layer like a distribution's: sticky tmp, symlinked lib, a directory with owner and xattr."""


def cases() -> Layers:
    return {**_roots(), **_parents(), **_symlinked(), **_duplicates(), **_spellings()}


def _roots() -> Layers:
    odd = directory(b"./", 0o700, uid=9, gid=9, mtime=5, xattrs={b"user.root": b"1"})
    return {
        "root-entry": [[odd, entry(b"./x")]],
        "root-entry-second-layer": [_BELOW, [odd, entry(b"./x")]],
        "root-entry-slash": [[directory(b"/", 0o700, uid=9), entry(b"x")]],
        "root-entry-dot": [[directory(b".", 0o700, uid=9), entry(b"x")]],
        "root-entry-empty-name": [[directory(b"", 0o700, uid=9), entry(b"x")]],
        "root-entry-file": [[entry(b".", data=b"root?"), entry(b"x")]],
        "root-entry-symlink": [[symlink(b"/", b"etc"), entry(b"x")]],
        "root-entry-dot-dot": [[directory(b"../", 0o700), entry(b"x")]],
        "root-entry-folded": [[directory(b"a/", 0o701), directory(b"a/..", 0o700), entry(b"x")]],
        "root-hard-link": [[entry(b"x"), hard_link(b"./", b"x")]],
    }


def _parents() -> Layers:
    return {
        "parent-missing": [[entry(b"a/b/c")]],
        "parent-missing-lower-tmp": [_BELOW, [entry(b"tmp/x")]],
        "parent-missing-lower-attributes": [_BELOW, [entry(b"usr/lib/x"), entry(b"usr/y")]],
        "parent-missing-lower-acl": [
            [
                directory(b"d/", 0o755, xattrs={b"system.posix_acl_default": _ACL}),
            ],
            [entry(b"d/e/x")],
        ],
        "parent-after-child": [[entry(b"a/b"), directory(b"a/", 0o700, uid=4, mtime=99)]],
        "parent-after-child-lower": [_BELOW, [entry(b"tmp/b"), directory(b"tmp/", 0o700, uid=4, mtime=99)]],
        "parent-missing-twice": [_BELOW, [entry(b"usr/lib/x")], [entry(b"usr/lib/y")]],
        "parent-missing-entry-in-between": [_BELOW, [directory(b"usr/lib/", 0o700)], [entry(b"usr/lib/y")]],
        "parent-missing-four-layers": [
            _BELOW,
            [entry(b"usr/lib/x")],
            [entry(b"usr/a/b")],
            [entry(b"usr/lib/z")],
        ],
        "parent-missing-after-removal": [_BELOW, [whiteout(b"usr")], [entry(b"usr/x")]],
        "parent-missing-after-removal-and-return": [
            _BELOW,
            [whiteout(b"usr")],
            [directory(b"usr/", 0o700)],
            [entry(b"usr/x")],
        ],
        "parent-missing-own-acl-below-default-acl": [
            [
                directory(b"d/", xattrs={b"system.posix_acl_default": _ACL}),
                directory(b"d/e/", 0o711, xattrs={b"system.posix_acl_access": _OTHER_ACL}),
            ],
            [entry(b"d/e/x")],
        ],
        "parent-missing-setgid-lower": [
            [directory(b"d/", 0o2775, gid=9)],
            [entry(b"d/e/x"), directory(b"d/f/")],
        ],
        "parent-late-lower": [
            [directory(b"d/", 0o711, uid=7, gid=9, xattrs={b"user.below": b"1", b"user.both": b"1"})],
            [
                entry(b"d/e/x"),
                directory(b"d/", 0o700, mtime=44, xattrs={b"user.both": b"2", b"user.own": b"3"}),
            ],
        ],
        "parent-late-lower-setgid": [
            [directory(b"d/", 0o2775, gid=9)],
            [entry(b"d/e/x"), directory(b"d/", 0o700)],
        ],
        "parent-late-lower-acl": [
            [directory(b"d/", xattrs={b"system.posix_acl_access": _OTHER_ACL})],
            [entry(b"d/x"), directory(b"d/", 0o705)],
        ],
        "parent-late-lower-twice": [
            [directory(b"d/", xattrs={b"user.below": b"1"})],
            [entry(b"d/x"), directory(b"d/", 0o705)],
            [entry(b"d/y"), directory(b"d/", 0o706)],
            [entry(b"d/z")],
        ],
        "parent-missing-setgid-same-layer": [
            [directory(b"d/", 0o2775, gid=9), entry(b"d/e/x"), whiteout(b"d/n/x")]
        ],
        "parent-is-file": [[entry(b"a"), entry(b"a/b")]],
        "parent-is-lower-file": [_BELOW, [entry(b"file/b")]],
        "parent-is-own-whiteout": [_BELOW, [whiteout(b"usr"), entry(b"usr/b")]],
        "parent-is-fifo": [[entry(b"a", b"6"), entry(b"a/b")]],
        "parent-is-device": [[entry(b"a", b"3", device=(1, 3)), entry(b"a/b")]],
    }


_ACL = bytes.fromhex(
    "0200000001000700ffffffff02000700e803000004000500ffffffff10000700ffffffff20000500ffffffff"
)
"""A POSIX ACL, version 2: user::rwx, user:1000:rwx, group::r-x, mask::rwx, other::r-x."""


_OTHER_ACL = bytes.fromhex(
    "0200000001000700ffffffff02000400f401000004000100ffffffff10000500ffffffff20000100ffffffff"
)


def _symlinked() -> Layers:
    return {
        "symlinked-parent-same-layer": [
            [directory(b"usr/lib/"), symlink(b"lib", b"usr/lib"), entry(b"lib/x")]
        ],
        "symlinked-parent-same-layer-implicit": [[symlink(b"lib", b"usr/lib"), entry(b"lib/x")]],
        "symlinked-parent-absolute": [[directory(b"usr/"), symlink(b"a", b"/usr"), entry(b"a/x")]],
        "symlinked-parent-up": [[directory(b"usr/"), symlink(b"a", b"../../usr"), entry(b"a/x")]],
        "symlinked-parent-loop": [[symlink(b"a", b"b"), symlink(b"b", b"a"), entry(b"a/x")]],
        "symlinked-parent-self": [[symlink(b"a", b"a"), entry(b"a/x")]],
        "symlinked-parent-to-file": [[entry(b"f"), symlink(b"a", b"f"), entry(b"a/x")]],
        "symlinked-parent-chain": [
            [directory(b"d/"), symlink(b"a", b"b"), symlink(b"b", b"c"), symlink(b"c", b"d"), entry(b"a/x")]
        ],
        "symlinked-parent-to-root": [[symlink(b"a", b"/"), entry(b"a/x")]],
        "symlinked-parent-to-dot": [[symlink(b"a", b"."), entry(b"a/x")]],
        "symlinked-parent-inner": [
            [
                directory(b"d/"),
                directory(b"d/real/"),
                symlink(b"d/s", b"real"),
                entry(b"d/s/x"),
                entry(b"d/s/n/y"),
            ]
        ],
        "symlinked-parent-lower": [_BELOW, [entry(b"lib/x")]],
        "symlinked-parent-lower-twice": [_BELOW, [entry(b"lib/x"), entry(b"lib/y"), entry(b"usr/lib/z")]],
        "symlinked-parent-lower-absolute": [_BELOW, [entry(b"abs/x")]],
        "symlinked-parent-lower-up": [_BELOW, [entry(b"up/lib/x")]],
        "symlinked-parent-lower-dangling": [_BELOW, [entry(b"dangling/x")]],
        "symlinked-parent-lower-directory-entry": [_BELOW, [directory(b"lib/", 0o700), entry(b"lib/x")]],
        "symlinked-parent-lower-third-layer": [_BELOW, [entry(b"lib/x")], [entry(b"lib/y")]],
        "symlinked-parent-own-to-lower": [
            _BELOW,
            [symlink(b"s", b"usr/lib"), entry(b"s/x"), entry(b"s/n/y")],
        ],
        "symlinked-parent-own-to-lower-symlink": [_BELOW, [symlink(b"s", b"lib"), entry(b"s/x")]],
        "symlinked-parent-lower-made-again": [
            _BELOW,
            [entry(b"lib/x")],
            [symlink(b"lib", b"usr/lib")],
            [entry(b"lib/y")],
        ],
        "symlinked-parent-target-in-other-layer": [
            [directory(b"real/", 0o711, uid=4)],
            [symlink(b"s", b"real")],
            [entry(b"s/x")],
        ],
        "symlinked-parent-through-implicit": [_BELOW, [entry(b"usr/lib/a")], [entry(b"lib/x")]],
        "symlink-to-directory-then-directory": [
            [directory(b"d/"), symlink(b"s", b"d"), directory(b"s/", 0o700), entry(b"s/x")]
        ],
        "directory-dot-dot-in-middle": [
            [directory(b"a/"), symlink(b"a/s", b"../b"), directory(b"b/"), entry(b"a/s/../x")]
        ],
        "directory-times-through-symlink": [
            [
                directory(b"a/", mtime=11),
                directory(b"b/", mtime=22),
                symlink(b"a2", b"b", mtime=33),
                directory(b"a2/x/", mtime=44),
            ]
        ],
    }


def _duplicates() -> Layers:
    made = {
        "file": entry(b"n", data=b"first", mode=0o4755, uid=1, mtime=10),
        "directory": directory(b"n/", 0o2750, uid=2, mtime=20, xattrs={b"user.d": b"1"})
        + entry(b"n/child", mtime=21),
        "symlink": symlink(b"n", b"t", uid=3, mtime=30),
        "fifo": entry(b"n", b"6", mode=0o600, uid=4, mtime=40),
        "device": entry(b"n", b"3", mode=0o600, device=(1, 5), mtime=50),
        "link": hard_link(b"n", b"t", mode=0o600, mtime=60),
    }
    base = directory(b"t2/") + entry(b"t", data=b"target")
    again = directory(b"n/", 0o700, uid=8, mtime=80, xattrs={b"user.other": b"2"})
    return {
        **{f"duplicate-{a}-{b}": [[base, made[a], made[b]]] for a in made for b in made},
        "duplicate-directory-merged": [[made["directory"], again]],
        "duplicate-directory-lower": [[made["directory"]], [again]],
        "duplicate-file-other-spelling": [
            [entry(b"n", data=b"1"), entry(b"./n", data=b"22"), entry(b"//n", data=b"333")]
        ],
        "duplicate-directory-file-directory": [[made["directory"], made["file"], again]],
        "duplicate-linked-file-replaced": [
            [entry(b"a", data=b"a"), hard_link(b"b", b"a"), entry(b"a", data=b"new")]
        ],
        "duplicate-directory-then-symlink-to-directory": [
            [directory(b"n/", mtime=5), directory(b"o/", mtime=6), symlink(b"n", b"o", mtime=7)]
        ],
        "duplicate-directory-then-dangling-symlink": [
            [directory(b"n/", mtime=5), symlink(b"n", b"o", mtime=7)]
        ],
        "duplicate-tree-replaced-by-file": [[directory(b"n/"), directory(b"n/m/"), entry(b"n")]],
    }


def _spellings() -> Layers:
    long_name = b"x" * 255
    deep = b"/".join([b"d" * 200] * 19)
    return {
        "name-absolute": [[entry(b"/a/b"), directory(b"//c//d/")]],
        "name-dots": [[entry(b"./a/./b"), entry(b"a//c")]],
        "name-dot-dot-outside": [[entry(b"../x"), entry(b"../../y/z"), entry(b"/../w")]],
        "name-dot-dot-inside": [[entry(b"a/../b"), entry(b"c/d/../../e/f")]],
        "name-newline": [[entry(b"a\nb"), entry(b"tab\there")]],
        "name-invalid-utf8": [[entry(b"\xff\xfe\x80"), directory(b"d\xc3/"), entry(b"d\xc3/\x01")]],
        "name-invalid-utf8-pax": [[pax({b"path": b"p\xff\xfe"}), header(b"short")]],
        "name-utf8-normal-forms": [[entry("é".encode()), entry("e\u0301".encode())]],
        "name-nul-in-pax": [[pax({b"path": b"a\0b"}), header(b"short"), entry(b"other")]],
        "name-nul-in-pax-link": [[pax({b"linkpath": b"a\0b"}), header(b"s", b"2"), entry(b"other")]],
        "name-nul-in-header": [[header(b"a\0b"), entry(b"other")]],
        "name-nul-in-gnu-long": [[gnu_long(b"a\0b", b"L"), header(b"short"), entry(b"other")]],
        "name-backslash-colon": [[entry(b"a\\b"), entry(b"c:d"), entry(b" "), entry(b"-rf")]],
        "name-255": [
            [entry(long_name), directory(long_name[:-1] + b"y/"), entry(long_name[:-1] + b"y/" + long_name)]
        ],
        "name-256": [[entry(b"x" * 256), entry(b"other")]],
        "name-256-directory": [[entry(b"y" * 256 + b"/z")]],
        "path-3900": [[entry(deep + b"/end")]],
        "path-1500-deep": [[entry(b"d/" * 1500 + b"end")]],
        "path-4096-and-more": [[entry(deep + b"/" + b"e" * 200 + b"/" + b"f" * 200)]],
        "path-5000-shallow-after-clean": [[entry(b"./" * 2500 + b"x")]],
        "name-ustar-prefix": [[header(b"n" * 100, prefix=b"p" * 100 + b"/" + b"q" * 54)]],
        "name-gnu-long": [
            [
                gnu_long(b"g" * 150, b"L"),
                header(b"cut"),
                gnu_long(b"t" * 150, b"K"),
                gnu_long(b"l" * 140, b"L"),
                header(b"cut", b"2", link=b"cut"),
            ]
        ],
        "name-v7": [[header(b"v7", magic=bytes(8)), header(b"v7d/", magic=bytes(8)), entry(b"v7d/x")]],
        "name-v7-old-directory": [[header(b"olddir/", b"\0", mode=0o700), entry(b"olddir/x")]],
        "name-file-with-slash": [[header(b"slashed/", b"0", size=3) + padded(b"abc"), entry(b"after")]],
        "name-symlink-with-slash": [[symlink(b"s/", b"t")]],
        "name-pax-slash-file": [[pax({b"path": b"slashed/"}), header(b"x", b"0"), entry(b"after")]],
        "name-pax-empty-path": [[pax({b"path": b""}), header(b"kept"), entry(b"after")]],
        "name-empty": [[header(b""), entry(b"after")]],
        "name-many": [[*(entry(b"m%d" % i) for i in range(1500))]],
        "symlink-long-target": [[symlink(b"s", b"t" * 4000)]],
        "symlink-target-4095": [[symlink(b"s", b"t/" * 2047 + b"t")]],
        "symlink-target-4096": [[symlink(b"s", b"t/" * 2048), entry(b"after")]],
        "symlink-empty-target": [[symlink(b"s", b""), entry(b"after")]],
        "symlink-outside": [[symlink(b"s", b"../../../../etc/passwd"), symlink(b"t", b"/etc/shadow")]],
        "symlink-odd-bytes": [[symlink(b"s", b"\xff\n //x/../")]],
    }
