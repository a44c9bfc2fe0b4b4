"""Layers to test with: members, trees and files from tars, and files mounted by the kernel."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagecached.layers.layerfile import LayerInfo, LayerWriter
from imagecached.layers.limits import Limits
from imagecached.layers.node import Node
from imagecached.layers.notes import Notes
from imagecached.layers.tar import Member, Scanner
from imagecached.layers.tree import Tree, clean
from tests.support.rawtar import archive

LIMITS = Limits()
_MS_RDONLY = 1
_libc = ctypes.CDLL(None, use_errno=True)


def scanned(tar: bytes, *, limits: Limits = LIMITS, step: int = 1 << 20) -> list[Member]:
    """The members of an archive, fed in pieces of ``step`` bytes; data offsets are those of the archive."""
    found: list[Member] = []
    scanner = Scanner(found.append, limits)
    for start in range(0, len(tar), step):
        scanner.feed(tar[start : start + step])
    scanner.finish()
    assert scanner.entries == len(found)
    return found


def contents(tar: bytes, member: Member) -> bytes:
    """A file's bytes, holes filled with zeros."""
    if not isinstance(member.data, list):
        return b"" if member.data is None else tar[member.data : member.data + member.size]
    whole = bytearray(member.size)
    for logical, length, offset in member.data:
        whole[logical : logical + length] = tar[offset : offset + length]
    return bytes(whole)


def grown(*members: bytes, limits: Limits = LIMITS) -> tuple[Node, Notes]:
    """The tree of a layer with these members, and its notes."""
    tree = Tree(limits)
    scanner = Scanner(tree.apply, limits)
    scanner.feed(archive(*members))
    scanner.finish()
    return tree.root, tree.finish()


def at(root: Node, path: bytes) -> Node:
    """The inode at a path, KeyError if there is none."""
    node = root
    for part in clean(path):
        assert node.children is not None
        node = node.children[part]
    return node


def names(root: Node) -> list[bytes]:
    """All paths of a tree, sorted."""
    found: list[bytes] = []
    stack = [(b"", root)]
    while stack:
        prefix, node = stack.pop()
        for name, child in (node.children or {}).items():
            found.append(prefix + name)
            stack.append((prefix + name + b"/", child))
    return sorted(found)


def layer_file(path: Path, tar: bytes, *, limits: Limits = LIMITS, step: int = 1 << 20) -> LayerInfo:
    """Write the layer file of a tar."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        writer = LayerWriter(fd, limits, None)
        for start in range(0, len(tar), step):
            writer.feed(tar[start : start + step])
        return writer.finish()
    finally:
        os.close(fd)


@contextmanager
def mounted(image: Path, directory: Path) -> Iterator[Path]:
    """The file, mounted file-backed with direct I/O; needs root and Linux 6.13."""
    directory.mkdir(exist_ok=True)
    if _libc.mount(os.fsencode(image), os.fsencode(directory), b"erofs", _MS_RDONLY, b"directio"):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(image))
    try:
        yield directory
    finally:
        if _libc.umount2(os.fsencode(directory), 0):
            raise OSError(ctypes.get_errno(), "umount", str(directory))
