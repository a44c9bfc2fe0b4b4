"""Whiteouts and opaque directories, in every order and on every layer."""

from __future__ import annotations

from tests.support.awkward.case import Layer, Layers
from tests.support.rawtar import directory, entry, hard_link, opaque, symlink, whiteout

_BELOW = [
    directory(b"d/", 0o750, uid=3),
    entry(b"d/old", data=b"old"),
    directory(b"d/sub/", 0o711),
    entry(b"d/sub/deep", data=b"deep"),
    entry(b"f", data=b"lower"),
    symlink(b"s", b"d"),
]
"""A lower layer with a file, a directory of two levels and a symlink to it."""


def cases() -> Layers:
    return {**{name: [_BELOW, layer] for name, layer in _above().items()}, **_bottom(), **_several()}


def _above() -> dict[str, Layer]:
    return {
        "whiteout-file": [whiteout(b"f")],
        "whiteout-owner": [whiteout(b"f", uid=7, gid=8, mode=0o4755)],
        "whiteout-directory": [whiteout(b"d")],
        "whiteout-child-of-directory-without-entry": [whiteout(b"d/old")],
        "whiteout-child-with-entry": [directory(b"d/", 0o700), whiteout(b"d/old")],
        "whiteout-of-nothing": [whiteout(b"nothing")],
        "whiteout-of-nothing-in-new-directory": [whiteout(b"new/nothing")],
        "whiteout-of-nothing-in-new-directory-with-entry": [directory(b"new/"), whiteout(b"new/n")],
        "whiteout-then-file": [whiteout(b"f"), entry(b"f", data=b"new")],
        "file-then-whiteout": [entry(b"f", data=b"new"), whiteout(b"f")],
        "whiteout-then-directory": [whiteout(b"d"), directory(b"d/"), entry(b"d/new")],
        "whiteout-then-child-without-entry": [whiteout(b"d"), entry(b"d/new")],
        "child-then-whiteout-of-parent": [entry(b"d/new"), whiteout(b"d")],
        "directory-then-whiteout": [directory(b"d/"), whiteout(b"d")],
        "whiteout-file-then-directory": [whiteout(b"f"), directory(b"f/"), entry(b"f/x")],
        "whiteout-twice": [whiteout(b"f"), whiteout(b"f")],
        "whiteout-through-symlink": [whiteout(b"s/old")],
        "whiteout-through-own-symlink": [symlink(b"t", b"d"), directory(b"d/"), whiteout(b"t/old")],
        "whiteout-root-level-dot": [entry(b"./.wh.f")],
        "whiteout-absolute": [entry(b"/.wh.f")],
        "whiteout-as-directory": [directory(b".wh.d/")],
        "whiteout-as-directory-then-child": [directory(b".wh.d/"), entry(b".wh.d/x")],
        "whiteout-as-symlink": [symlink(b".wh.f", b"x")],
        "whiteout-as-hard-link": [entry(b"g"), hard_link(b".wh.f", b"g")],
        "whiteout-with-data": [entry(b".wh.f", data=b"data"), entry(b"after")],
        "whiteout-with-xattr": [entry(b".wh.f", xattrs={b"user.a": b"b"})],
        "whiteout-empty-name": [entry(b".wh.")],
        "whiteout-empty-name-in-directory": [directory(b"d/"), entry(b"d/.wh.")],
        "whiteout-dot": [directory(b"d/"), entry(b"d/.wh..")],
        "whiteout-dot-dot": [directory(b"d/"), entry(b"d/.wh...")],
        "whiteout-of-whiteout-name": [entry(b".wh..wh.f")],
        "whiteout-aufs-names": [
            directory(b".wh..wh.plnk/"),
            entry(b".wh..wh.aufs"),
            directory(b".wh..wh.orph/"),
        ],
        "whiteout-aufs-content": [directory(b".wh..wh.plnk/"), entry(b".wh..wh.plnk/1.2", data=b"x")],
        "whiteout-parent-lower-file": [whiteout(b"f/x")],
        "whiteout-below-whiteout": [whiteout(b"d"), whiteout(b"d/old")],
        "opaque-first": [directory(b"d/"), opaque(b"d"), entry(b"d/new")],
        "opaque-last": [directory(b"d/"), entry(b"d/new"), opaque(b"d")],
        "opaque-before-directory": [opaque(b"d"), directory(b"d/", 0o700), entry(b"d/new")],
        "opaque-without-entry": [opaque(b"d")],
        "opaque-with-child-without-entry": [opaque(b"d"), entry(b"d/new")],
        "opaque-nested": [opaque(b"d/sub"), entry(b"d/sub/new")],
        "opaque-root": [opaque(b""), entry(b"new")],
        "opaque-new-directory": [directory(b"n/"), opaque(b"n"), entry(b"n/x")],
        "opaque-twice": [directory(b"d/"), opaque(b"d"), opaque(b"d")],
        "opaque-and-whiteout": [directory(b"d/"), opaque(b"d"), whiteout(b"d/old"), entry(b"d/new")],
        "opaque-in-file": [entry(b"n"), entry(b"n/.wh..wh..opq")],
        "opaque-lower-file": [opaque(b"f")],
        "opaque-through-symlink": [directory(b"d/"), symlink(b"t", b"d"), opaque(b"t")],
        "opaque-lower-symlink": [opaque(b"s")],
        "opaque-then-replaced": [directory(b"d/"), opaque(b"d"), entry(b"d"), directory(b"d/")],
        "opaque-as-directory": [directory(b"d/"), directory(b"d/.wh..wh..opq/"), entry(b"d/n")],
        "lower-directory-becomes-file": [entry(b"d", data=b"x")],
        "lower-directory-becomes-symlink": [symlink(b"d", b"f")],
        "lower-file-becomes-directory": [directory(b"f/"), entry(b"f/x")],
        "lower-file-becomes-implicit-directory": [entry(b"f/x")],
    }


def _bottom() -> Layers:
    return {
        "bottom-whiteout-of-nothing": [[whiteout(b"f"), entry(b"g")]],
        "bottom-whiteout-after-file": [[entry(b"f"), whiteout(b"f"), entry(b"g")]],
        "bottom-whiteout-before-file": [[whiteout(b"f"), entry(b"f"), entry(b"g")]],
        "bottom-whiteout-after-tree": [[directory(b"d/"), entry(b"d/x"), whiteout(b"d")]],
        "bottom-whiteout-after-implicit-tree": [[entry(b"d/x"), whiteout(b"d")]],
        "bottom-whiteout-of-a-link": [[entry(b"f", data=b"1"), hard_link(b"g", b"f"), whiteout(b"f")]],
        "bottom-whiteout-in-implicit-directory": [[whiteout(b"d/x"), entry(b"g")]],
        "bottom-opaque-first": [[directory(b"d/"), opaque(b"d"), entry(b"d/x")]],
        "bottom-opaque-last": [
            [directory(b"d/"), entry(b"d/x"), directory(b"d/s/"), entry(b"d/s/y"), opaque(b"d")]
        ],
        "bottom-opaque-implicit-child": [[directory(b"d/"), entry(b"d/s/y"), entry(b"d/z"), opaque(b"d")]],
        "bottom-opaque-missing-directory": [[opaque(b"d"), entry(b"g")]],
        "bottom-opaque-root": [[entry(b"a"), entry(b"s/b"), opaque(b""), entry(b"c")]],
        "bottom-whiteout-empty-name": [[entry(b".wh.")]],
        "bottom-whiteout-of-whiteout-name": [[entry(b".wh..wh.f"), entry(b"g")]],
    }


def _several() -> Layers:
    return {
        "whiteout-long-name": [[entry(b"n" * 255)], [entry(b".wh." + b"n" * 255)]],
        "child-below-whiteout-lower-layer": [_BELOW, [whiteout(b"d")], [entry(b"d/sub/x")]],
        "child-below-opaque-lower-layer": [_BELOW, [directory(b"d/"), opaque(b"d")], [entry(b"d/sub/x")]],
        "hidden-parent-restored-by-entry": [
            _BELOW,
            [whiteout(b"d")],
            [directory(b"d/", 0o701), entry(b"d/x")],
        ],
        "opaque-middle": [
            _BELOW,
            [directory(b"d/"), opaque(b"d"), entry(b"d/mid")],
            [directory(b"d/", 0o700), entry(b"d/top")],
        ],
        "middle-whiteout-file-then-recreated": [_BELOW, [whiteout(b"f")], [entry(b"f", data=b"third")]],
        "middle-whiteout-directory-recreated-as-file": [
            _BELOW,
            [whiteout(b"d")],
            [entry(b"d", data=b"third")],
        ],
        "lower-directory-becomes-file-becomes-directory": [
            _BELOW,
            [entry(b"d")],
            [directory(b"d/"), entry(b"d/new")],
        ],
        "lower-directory-becomes-file-becomes-implicit": [_BELOW, [entry(b"d")], [entry(b"d/new")]],
    }
