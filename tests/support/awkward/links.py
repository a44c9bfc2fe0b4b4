"""Hard links: across layers, before their targets, to odd things, with headers that disagree."""

from __future__ import annotations

from tests.support.awkward.case import Layers
from tests.support.rawtar import directory, entry, hard_link, header, padded, symlink, whiteout

_BELOW = [
    directory(b"d/", 0o750, uid=3),
    entry(b"d/f", data=b"lower file", mode=0o4711, uid=5, gid=6, mtime=77, xattrs={b"user.a": b"b"}),
    entry(b"top", data=b"top"),
    symlink(b"s", b"d/f"),
    symlink(b"ds", b"d"),
]


def cases() -> Layers:
    target = entry(
        b"f", data=b"target", mode=0o640, uid=1, gid=2, mtime=100, xattrs={b"user.a": b"1", b"user.b": b"2"}
    )
    return {
        "link-lower": [_BELOW, [hard_link(b"l", b"d/f", mode=0o4711, uid=5, gid=6, mtime=77)]],
        "link-lower-same-directory": [_BELOW, [hard_link(b"d/l", b"d/f")]],
        "link-lower-directory-entry": [_BELOW, [directory(b"d/"), hard_link(b"d/l", b"d/f")]],
        "link-lower-through-symlink": [_BELOW, [hard_link(b"l", b"ds/f")]],
        "link-lower-whited-out": [_BELOW, [whiteout(b"top"), hard_link(b"l", b"top")]],
        "link-to-whiteout-marker": [_BELOW, [whiteout(b"top"), hard_link(b"l", b".wh.top")]],
        "link-plain": [[target, hard_link(b"l", b"f", mode=0o640, uid=1, gid=2, mtime=100)]],
        "link-other-attributes": [[target, hard_link(b"l", b"f", mode=0o4755, uid=8, gid=9, mtime=200)]],
        "link-other-xattrs": [[target, hard_link(b"l", b"f", xattrs={b"user.a": b"new", b"user.c": b"3"})]],
        "link-drops-setuid-by-chown": [[entry(b"f", mode=0o4755), hard_link(b"l", b"f", mode=0o755, uid=9)]],
        "link-and-capability": [
            [entry(b"f", xattrs={b"security.capability": _CAPABILITY}), hard_link(b"l", b"f", uid=1)]
        ],
        "link-absolute-target": [[target, hard_link(b"l", b"/f")]],
        "link-dot-target": [[target, hard_link(b"l", b"./f")]],
        "link-dot-dot-target": [[target, hard_link(b"l", b"../../f")]],
        "link-outside": [[target, hard_link(b"l", b"../../../../etc/passwd")]],
        "link-inner-dot-dot": [[target, directory(b"d/"), hard_link(b"l", b"d/../f")]],
        "link-to-dot-dot": [[directory(b"d/"), hard_link(b"l", b"d/..")]],
        "link-through-symlink": [
            [directory(b"d/"), entry(b"d/f", data=b"x"), symlink(b"s", b"d"), hard_link(b"l", b"s/f")]
        ],
        "link-to-symlink": [
            [target, symlink(b"s", b"f", mtime=5), hard_link(b"l", b"s", uid=7, mode=0o600, mtime=6)]
        ],
        "link-to-dangling-symlink": [[symlink(b"s", b"none"), hard_link(b"l", b"s")]],
        "link-to-directory": [[directory(b"d/"), hard_link(b"l", b"d")]],
        "link-to-fifo": [[entry(b"p", b"6", mode=0o600), hard_link(b"l", b"p", mode=0o640)]],
        "link-to-device": [[entry(b"c", b"3", device=(1, 3)), hard_link(b"l", b"c")]],
        "link-before-target": [[hard_link(b"l", b"f"), target]],
        "link-to-itself": [[target, hard_link(b"f", b"f")]],
        "link-to-itself-missing": [[hard_link(b"f", b"f")]],
        "link-missing": [[hard_link(b"l", b"nothing")]],
        "link-empty-target": [[target, hard_link(b"l", b"")]],
        "link-to-root": [[target, hard_link(b"l", b"/")]],
        "link-trailing-slash": [[target, hard_link(b"l", b"f/")]],
        "link-name-with-slash": [[target, hard_link(b"l/", b"f")]],
        "link-chain": [[target, hard_link(b"l", b"f"), hard_link(b"m", b"l"), hard_link(b"d/n", b"m")]],
        "link-replaces": [[target, entry(b"l", data=b"old"), hard_link(b"l", b"f")]],
        "link-replaces-directory": [[target, directory(b"l/"), entry(b"l/x"), hard_link(b"l", b"f")]],
        "link-to-own-child": [[directory(b"d/"), entry(b"d/f"), hard_link(b"d", b"d/f")]],
        "link-to-replaced-link": [[target, hard_link(b"l", b"f"), hard_link(b"l", b"f", mode=0o600)]],
        "link-target-removed-later": [[target, hard_link(b"l", b"f"), symlink(b"f", b"l")]],
        "link-with-data": [
            [target, header(b"l", b"1", link=b"f", size=4) + padded(b"data"), entry(b"after")]
        ],
        "link-with-data-pax": [
            [target, header(b"l", b"1", link=b"f", size=600) + padded(b"z" * 600), entry(b"after")]
        ],
        "link-across-layers-copied-up": [[target, hard_link(b"l", b"f")], [entry(b"f", data=b"new")]],
        "link-whited-out-name": [[target, hard_link(b"l", b"f")], [whiteout(b"f")]],
        "link-both-layers": [[target, hard_link(b"l", b"f")], [target, hard_link(b"l", b"f")]],
        "link-many": [[target, *(hard_link(b"l%d" % i, b"f", mode=0o640) for i in range(300))]],
        "link-inside-implicit": [[entry(b"a/f", data=b"x"), hard_link(b"b/l", b"a/f")]],
        "link-xattr-on-symlink": [[symlink(b"s", b"t"), hard_link(b"l", b"s", xattrs={b"user.a": b"1"})]],
    }


_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
"""cap_net_raw+ep, VFS_CAP_REVISION_2 with the effective bit."""
