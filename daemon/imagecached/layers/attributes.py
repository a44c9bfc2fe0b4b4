"""Owner, mode, time and extended attributes of an inode, set with the side effects of the system calls.

Unpacking sets them by lchown, lsetxattr, chmod and utimensat. The kernel reacts: a change of owner drops
file capabilities, a chmod rewrites the ACL, attributes of unknown namespaces are "not supported" and
skipped. A value which the kernel refuses is Corrupt, as the reference refuses the layer then; only the size
of all attributes of an inode is bounded by EROFS here, not by ext4's one block.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from imagecached.errors import Corrupt
from imagecached.layers import acl
from imagecached.layers.limits import shown

if TYPE_CHECKING:
    from imagecached.layers.node import Node

CAPABILITY: Final = b"security.capability"
OPAQUE: Final = b"trusted.overlay.opaque"
_USER: Final = b"user."
_TRUSTED: Final = b"trusted."
_SECURITY: Final = b"security."
_CAPABILITY_HEADERS: Final = {20: b"\x02", 24: b"\x03"}  # size → revision, the header's highest byte
_NAME_BYTES: Final = 255  # XATTR_NAME_MAX
_VALUE_BYTES: Final = 65535  # EROFS; the kernel takes one byte more
_ALL_BYTES: Final = 4 * 65535 - 16  # EROFS counts an inode's attributes in 65,535 words


def set_all(
    node: Node,
    name: bytes,
    *,
    mode: int,
    uid: int,
    gid: int,
    mtime: tuple[int, int],
    xattrs: dict[bytes, bytes] | None,
) -> None:
    """What a directory member does to a directory that is there, a link member to its target. -1: keep."""
    if uid >= 0:
        node.uid = uid
    if gid >= 0:
        node.gid = gid
    if node.xattrs and node.children is None:
        node.xattrs.pop(CAPABILITY, None)
    if xattrs:
        set_xattrs(node, name, xattrs)
    if not stat.S_ISLNK(node.mode):
        chmod(node, mode)
    node.mtime, node.mtime_ns = mtime


def chmod(node: Node, mode: int) -> None:
    """Set the permission bits; an access ACL follows them."""
    node.mode = stat.S_IFMT(node.mode) | mode
    if node.xattrs and acl.ACCESS in node.xattrs:
        _put(node.xattrs, acl.ACCESS, acl.chmod(acl.parse(node.xattrs[acl.ACCESS]), mode))


def set_xattrs(node: Node, name: bytes, xattrs: dict[bytes, bytes]) -> None:
    """Set those that the kernel would take on such an inode; call :func:`chmod` afterwards."""
    held = dict(node.xattrs or {})
    for key, value in xattrs.items():
        if key.startswith(_TRUSTED):
            continue
        if not 0 < len(key) <= _NAME_BYTES or len(value) > _VALUE_BYTES:
            raise Corrupt(f"tar member {shown(name)}: extended attribute {shown(key)} is too long")
        if key in (acl.ACCESS, acl.DEFAULT):
            _set_acl(node, name, held, key, value)
        elif key.startswith(_USER):
            if node.children is not None or stat.S_IFMT(node.mode) in (stat.S_IFREG, 0):
                held[_checked(key, _USER, name)] = value
        elif key.startswith(_SECURITY):
            if key == CAPABILITY and value[3:4] != _CAPABILITY_HEADERS.get(len(value)):
                raise Corrupt(f"tar member {shown(name)}: malformed file capability")
            held[_checked(key, _SECURITY, name)] = value
    if sum(16 + len(key) + len(value) for key, value in held.items()) > _ALL_BYTES:
        raise Corrupt(f"tar member {shown(name)}: more than {_ALL_BYTES} bytes of extended attributes")
    node.xattrs = held or None


def inherit(node: Node, parent: Node) -> None:
    """Give a new inode what its directory's default ACL asks for."""
    if (
        parent.xattrs is None
        or (default := parent.xattrs.get(acl.DEFAULT)) is None
        or stat.S_ISLNK(node.mode)
    ):
        return
    found = acl.inherited(default, stat.S_IMODE(node.mode), directory=node.children is not None)
    if found:
        node.xattrs = {**(node.xattrs or {}), **found}


def _checked(key: bytes, prefix: bytes, name: bytes) -> bytes:
    if len(key) == len(prefix):
        raise Corrupt(f"tar member {shown(name)}: extended attribute {shown(key)} has no name")
    return key


def _set_acl(node: Node, name: bytes, held: dict[bytes, bytes], key: bytes, value: bytes) -> None:
    if stat.S_ISLNK(node.mode) or not acl.known_version(value):
        return
    try:
        entries = acl.parse(value)
    except ValueError as error:
        raise Corrupt(f"tar member {shown(name)}: {error}") from error
    if key == acl.DEFAULT and entries and node.children is None:
        raise Corrupt(f"tar member {shown(name)}: default ACL on what is no directory")
    _put(held, key, entries if key == acl.DEFAULT or len(entries) > 3 else [])


def _put(held: dict[bytes, bytes], key: bytes, entries: list[acl.Entry]) -> None:
    if entries:
        held[key] = acl.pack(entries)
    else:
        held.pop(key, None)
