"""Who may use the unix socket: root and the members of one group.

The file's mode (0660) already says so; the peer's credentials, as the kernel knows them, are checked on every
request as well.
"""

from __future__ import annotations

import array
import grp
import os
import socket
import struct
from asyncio import BaseTransport
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from imagecached.errors import Unavailable

_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; missing in the socket module
_CREDENTIALS: Final = struct.Struct("iII")
_GROUPS_BYTES: Final = 1024  # what Python allows a socket option to have


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as it was when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]


@dataclass(frozen=True, slots=True)
class Gate:
    """``uid`` is the daemon's own; ``gid`` the group that may, None if there is none."""

    uid: int
    gid: int | None

    @classmethod
    def of(cls, group: str) -> Gate:
        """The gate for the daemon's user and the group of that name, which need not exist."""
        try:
            return cls(os.geteuid(), grp.getgrnam(group).gr_gid)
        except KeyError:
            return cls(os.geteuid(), None)

    def admits(self, peer: Peer) -> bool:
        """Whether this peer may use the API."""
        return peer.uid in (0, self.uid) or (self.gid is not None and self.gid in peer.groups)


def peer_of(transport: BaseTransport | None) -> Peer:
    """The peer of a connection; Unavailable if it is gone."""
    connection = transport and transport.get_extra_info("socket")
    if not connection:
        raise Unavailable("the connection is gone")
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError as error:
        raise Unavailable("the connection is gone") from error
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid, frozenset((gid, *_groups_of(connection))))


def _groups_of(connection: Any) -> Iterable[int]:
    """The peer's supplementary groups; none for one that is in more than 256."""
    groups = array.array("I")
    with suppress(OSError):
        groups.frombytes(connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES))
    return groups
