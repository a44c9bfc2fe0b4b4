"""Who a container runs as: an image config's ``User`` against the image's passwd and group files. Pure.

The meaning is containerd's (``oci.WithUser``, ``oci.WithAdditionalGIDs``): a number is an id and never a
name; the group comes from passwd unless given; the groups that list the user are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from imagecached.errors import InvalidInput

_MAX_ID: Final = (1 << 31) - 1
_PASSWD_FIELDS: Final = 4
_GROUP_FIELDS: Final = 3


@dataclass(frozen=True, slots=True)
class User:
    """``groups``: all of them, the primary one first."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(text: str, passwd: bytes, group: bytes) -> User:
    """``text``: "", ``user`` or ``user:group``, each a name or a number.

    InvalidInput: a name that the image does not know, or a number out of range.
    """
    wanted, _, wanted_group = (text or "root").partition(":")
    accounts, groups = list(_accounts(passwd)), list(_groups(group))
    account = _account(wanted, accounts, optional=not text)
    gid = _gid(wanted_group, groups) if wanted_group else account.gid
    extra = [entry.gid for entry in groups if account.name in entry.members]
    return User(account.uid, gid, tuple(dict.fromkeys([gid, *extra])))


def _account(wanted: str, accounts: list[_Account], *, optional: bool) -> _Account:
    if _is_number(wanted):
        uid = _number(wanted)
        return next((account for account in accounts if account.uid == uid), _Account("", uid, 0))
    for account in accounts:
        if account.name == wanted:
            return account
    if optional:  # nobody asked for root by name: an image without /etc/passwd is fine
        return _Account("root", 0, 0)
    raise InvalidInput(f"user {wanted!r} is not in the image's /etc/passwd")


def _gid(wanted: str, groups: list[_Group]) -> int:
    if _is_number(wanted):
        return _number(wanted)
    for group in groups:
        if group.name == wanted:
            return group.gid
    raise InvalidInput(f"group {wanted!r} is not in the image's /etc/group")


def _number(text: str) -> int:
    number = int(text) if len(text) <= len(str(_MAX_ID)) else _MAX_ID + 1
    if number > _MAX_ID:
        raise InvalidInput(f"user or group id {text[:20]} is greater than {_MAX_ID}")
    return number


def _accounts(passwd: bytes) -> Iterator[_Account]:
    for name, _, uid, gid, *_ in _records(passwd, _PASSWD_FIELDS):
        if _is_id(uid) and _is_id(gid):
            yield _Account(name, int(uid), int(gid))


def _groups(group: bytes) -> Iterator[_Group]:
    for name, _, gid, *rest in _records(group, _GROUP_FIELDS):
        if _is_id(gid):
            members = rest[0] if rest else ""
            yield _Group(name, int(gid), tuple(filter(None, members.split(","))))


def _records(content: bytes, least: int) -> Iterator[list[str]]:
    """Lines of at least so many fields; what is broken is passed over, as libc does."""
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= least and fields[0]:
            yield fields


def _is_id(text: str) -> bool:
    return _is_number(text) and len(text) <= len(str(_MAX_ID)) and int(text) <= _MAX_ID


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()
