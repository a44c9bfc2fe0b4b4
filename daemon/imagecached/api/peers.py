"""The unix socket: who may connect, and what becomes of a socket that is there already.

Root and the members of one group may. The file's mode (0660) already says so; the peer's credentials,
as the kernel knows them, are checked on every request as well. A stale socket is replaced, a live one
never.
"""

from __future__ import annotations

import array
import grp
import os
import socket
import stat
import struct
from asyncio import BaseTransport
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from imagecached.errors import FailedPrecondition, Unavailable

_SO_PEERGROUPS: Final = 59  # asm-generic/socket.h; missing in the socket module
_CREDENTIALS: Final = struct.Struct("iII")
_GROUPS_BYTES: Final = 1024  # what Python allows a socket option to have
_BACKLOG: Final = 128


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


@contextmanager
def listening(path: Path, gate: Gate) -> Iterator[socket.socket]:
    """A listening socket at ``path``, in a folder that is made if missing; its file is removed at the end.

    FailedPrecondition: another process listens there, or the path is taken by something else.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _clear(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        try:
            listener.bind(str(path))
            _protect(path, gate)
            listener.listen(_BACKLOG)  # nobody can connect before this
            ours = path.lstat()
        except OSError as error:
            raise FailedPrecondition(f"cannot listen on {path}: {error.strerror}") from error
        try:
            yield listener
        finally:
            with suppress(FileNotFoundError):
                if os.path.samestat(path.lstat(), ours):  # not another daemon's
                    path.unlink()


def _protect(path: Path, gate: Gate) -> None:
    if gate.gid is not None:
        os.chown(path, -1, gate.gid)
    path.chmod(0o600 if gate.gid is None else 0o660)


def _clear(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FailedPrecondition(
                f"{path} is no socket: move it away, or choose another with daemon.socket"
            )
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            with suppress(FileNotFoundError):
                path.unlink()
        except OSError as error:
            raise FailedPrecondition(f"{path} is in use: {error.strerror}") from error
        else:
            raise FailedPrecondition(f"{path} is in use by another daemon")
