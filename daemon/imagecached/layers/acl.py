"""POSIX ACLs in their extended-attribute form, as a Linux file system gives them back.

The kernel does not store an ACL as it was written: it refuses malformed ones, folds the permission bits in,
drops an access ACL that says no more than those bits, rewrites it at chmod, and hands a directory's default
ACL to what is made inside. Encoding: ``<version 2><tag perm id>…``, little endian (linux/posix_acl_xattr.h).
"""

from __future__ import annotations

import struct
from typing import Final

ACCESS: Final = b"system.posix_acl_access"
DEFAULT: Final = b"system.posix_acl_default"

Entry = tuple[int, int, int]
"""(tag, permissions, id)"""

_USER_OBJ: Final = 0x01
_USER: Final = 0x02
_GROUP_OBJ: Final = 0x04
_GROUP: Final = 0x08
_MASK: Final = 0x10
_OTHER: Final = 0x20
_NO_ID: Final = 0xFFFFFFFF
_VERSION: Final = b"\x02\0\0\0"
_ENTRY: Final = struct.Struct("<HHI")
_ORDER: Final = {_USER_OBJ: 0, _USER: 1, _GROUP_OBJ: 2, _GROUP: 3, _MASK: 4, _OTHER: 5}
_ONCE: Final = (_USER_OBJ, _GROUP_OBJ, _MASK, _OTHER)


def known_version(value: bytes) -> bool:
    """Whether the kernel knows the encoding (else it says "not supported", and unpacking goes on)."""
    return len(value) < len(_VERSION) or value.startswith(_VERSION)


def parse(value: bytes) -> list[Entry]:
    """The entries of an ACL; empty means "remove it". ValueError where the kernel says EINVAL."""
    if not value:
        return []
    if not value.startswith(_VERSION) or (len(value) - len(_VERSION)) % _ENTRY.size:
        raise ValueError("malformed ACL")
    entries = [
        (tag, perm, who if tag in (_USER, _GROUP) else _NO_ID)
        for tag, perm, who in _ENTRY.iter_unpack(value[len(_VERSION) :])
    ]
    if entries:
        _check(entries)
    return entries


def _check(entries: list[Entry]) -> None:
    tags = [tag for tag, _, _ in entries]
    ranks = [_ORDER.get(tag, -1) for tag in tags]
    if -1 in ranks or ranks != sorted(ranks):
        raise ValueError("ACL entries unknown or out of order")
    if any(tags.count(tag) > 1 for tag in _ONCE) or not {_USER_OBJ, _GROUP_OBJ, _OTHER} <= set(tags):
        raise ValueError("ACL without, or with too many, base entries")
    if (_USER in tags or _GROUP in tags) and _MASK not in tags:
        raise ValueError("ACL without mask")
    if any(perm > 7 or (tag in (_USER, _GROUP) and who == _NO_ID) for tag, perm, who in entries):
        raise ValueError("ACL with invalid permissions or id")


def pack(entries: list[Entry]) -> bytes:
    """The attribute's value."""
    return _VERSION + b"".join(_ENTRY.pack(*entry) for entry in entries)


def chmod(entries: list[Entry], mode: int) -> list[Entry]:
    """The access ACL after a chmod to ``mode``; empty when it says no more than the mode."""
    if len(entries) <= 3:
        return []
    group = _MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP_OBJ
    bits = {_USER_OBJ: mode >> 6 & 7, group: mode >> 3 & 7, _OTHER: mode & 7}
    return [(tag, bits.get(tag, perm), who) for tag, perm, who in entries]


def inherited(default: bytes, mode: int, *, directory: bool) -> dict[bytes, bytes]:
    """The attributes of an inode of ``mode`` made in a directory whose default ACL is ``default``."""
    access = chmod(parse(default), mode)
    found = {ACCESS: pack(access)} if access else {}
    if directory:
        found[DEFAULT] = default
    return found
