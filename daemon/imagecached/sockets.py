"""A listening unix socket: the one the service manager hands over, or one bound here.

systemd passes sockets as descriptors from 3 on (sd_listen_fds(3)); the right one is known by the path it is
bound to. Such a socket exists before and after the daemon, so a client that comes early waits instead of
failing. Invariants: a stale socket is replaced, a live one never; nobody but root and the group named reaches
a socket that was bound here.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from imagecached.errors import FailedPrecondition

_FIRST_DESCRIPTOR: Final = 3
_BACKLOG: Final = 128
_ROOT_ONLY: Final = 0o600
_WITH_GROUP: Final = 0o660


@contextmanager
def listening(path: Path, gid: int | None = None) -> Iterator[socket.socket]:
    """A socket that listens at ``path``, whose folder is made if missing; closed at the end, and its file
    removed if it was made here.

    ``gid``: a group that may reach it besides root. FailedPrecondition: another process listens there, or
    the path is taken by something else.
    """
    handed = handed_over(path)
    if handed is not None:
        with handed:
            yield handed
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _clear(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listener:
        try:
            listener.bind(str(path))
            _protect(path, gid)
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


def handed_over(path: Path) -> socket.socket | None:
    """The listening socket at ``path`` that the service manager gave this process, if it did."""
    count, pid = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not count.isdecimal() or pid != str(os.getpid()):
        return None
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        if _is_bound_to(descriptor, path):
            fcntl.fcntl(descriptor, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
            found = socket.socket(fileno=descriptor)
            found.settimeout(0)
            return found
    return None


def _is_bound_to(descriptor: int, path: Path) -> bool:
    try:
        probe = socket.socket(fileno=os.dup(descriptor))
    except OSError:  # not a socket, or closed
        return False
    with probe:
        return (
            probe.family == socket.AF_UNIX
            and probe.type == socket.SOCK_STREAM
            and bool(probe.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
            and probe.getsockname() == str(path)
        )


def _protect(path: Path, gid: int | None) -> None:
    if gid is not None:
        os.chown(path, -1, gid)
    path.chmod(_ROOT_ONLY if gid is None else _WITH_GROUP)


def _clear(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FailedPrecondition(f"{path} is no socket: move it away, or choose another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
        except OSError as error:
            raise FailedPrecondition(f"{path} is in use: {error.strerror}") from error
        else:
            raise FailedPrecondition(f"{path} is in use by another daemon")
