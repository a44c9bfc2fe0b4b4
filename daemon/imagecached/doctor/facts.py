"""What can be known of this host.

Each fact stands for itself: one that cannot be had is told as such, never raised.
"""

from __future__ import annotations

import os
import shutil
import socket as sockets
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from imagecached.config import Config
from imagecached.errors import ImagecachedError
from imagecached.mounts import Kernel, Method, ladder, mountinfo, syscalls
from imagecached.mounts.overlay import make_writable, mount_overlay

SocketState = Literal["answers", "absent", "refused", "silent", "denied"]
Namespace = Literal["host", "shared", "private"]

_CAP_SYS_ADMIN: Final = 21
_ANSWER_SECONDS: Final = 2.0
_RUNTIMES: Final = ("runc", "crun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One host at one moment. Sizes in bytes; an empty string says that there is nothing to say."""

    may_mount: bool
    kernel: Kernel
    erofs: bool
    method: Method | None
    refused: dict[Method, str]
    unmountable: str  # why no method works
    overlay: str  # why a writable overlay does not work
    loop: bool
    namespace: Namespace
    root: Path
    place: Path  # the root, or its nearest parent that exists
    filesystem: str
    disk_bytes: int
    free_bytes: int
    floor_bytes: int  # to be left free
    year: int
    synchronised: bool | None
    socket: Path
    socket_state: SocketState
    socket_mode: int
    runtime: str


def gather(config: Config) -> Facts:
    """Look at everything."""
    root = config.daemon.root
    place = next(path for path in [root, *root.parents] if path.is_dir())
    disk = os.statvfs(place)
    table = mountinfo.read()
    holder = mountinfo.containing(table, str(place.resolve()))
    method, refused, unmountable = _try_layers(place)
    return Facts(
        may_mount=_has_capability(_CAP_SYS_ADMIN),
        kernel=Kernel.running(),
        erofs=_knows_erofs(),
        method=method,
        refused=refused,
        unmountable=unmountable,
        overlay=_try_overlay(place),
        loop=Path("/dev/loop-control").exists(),
        namespace=_namespace(holder),
        root=root,
        place=place,
        filesystem=holder.filesystem if holder else "",
        disk_bytes=disk.f_frsize * disk.f_blocks,
        free_bytes=disk.f_frsize * disk.f_bavail,
        floor_bytes=config.store.free_of(disk.f_frsize * disk.f_blocks),
        year=time.gmtime().tm_year,
        synchronised=_synchronised(),
        socket=config.daemon.socket,
        socket_state=_ask(config.daemon.socket),
        socket_mode=_mode(config.daemon.socket),
        runtime=_runtime(),
    )


def _try_layers(place: Path) -> tuple[Method | None, dict[Method, str], str]:
    """A real layer file, really mounted, in a folder of its own: the root itself may be in use."""
    try:
        with _trial_folder(place) as name:
            folder = Path(name).resolve()
            for part in ("ingest", "m"):
                (folder / part).mkdir()
            found = ladder.probe(folder, Kernel.running())
    except (ImagecachedError, OSError) as error:
        return None, {}, str(error)
    return found.method, found.refused, ""


def _try_overlay(place: Path) -> str:
    """Write into an overlay and delete from its lower layer: the upper file system must carry whiteouts."""
    try:
        with _trial_folder(place) as name:
            folder = Path(name).resolve()
            lower, target = folder / "lower", folder / "target"
            lower.mkdir()
            target.mkdir()
            (lower / "old").touch()
            make_writable(folder)
            mount_overlay([lower], target, source="imagecached", writable=folder, flags=0, base=folder)
            try:
                (target / "new").touch()
                (target / "old").unlink()
            finally:
                syscalls.umount(target)
    except (ImagecachedError, OSError) as error:
        return str(error)
    return ""


def _trial_folder(place: Path) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=".imagecached-doctor-", dir=place)


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value, 16) >> number & 1)
    return False


def _knows_erofs() -> bool:
    """Compiled in, loaded, or a module that can be."""
    if any(line.split()[-1:] == ["erofs"] for line in Path("/proc/filesystems").read_text().splitlines()):
        return True
    modules = Path("/lib/modules") / os.uname().release / "modules.dep"
    with suppress(OSError):
        return "/erofs.ko" in modules.read_text()
    return False


def _namespace(holder: mountinfo.Mount | None) -> Namespace:
    with suppress(OSError):
        if Path("/proc/self/ns/mnt").readlink() == Path("/proc/1/ns/mnt").readlink():
            return "host"
    shared = holder is not None and any(tag.startswith("shared:") for tag in holder.tags)
    return "shared" if shared else "private"


def _synchronised() -> bool | None:
    with suppress(OSError):  # a service's system call filter may forbid the question
        return not syscalls.clock_status() & syscalls.STA_UNSYNC
    return True if Path("/run/systemd/timesync/synchronized").exists() else None


def _ask(path: Path) -> SocketState:
    """Whether an HTTP server answers there, whatever it says."""
    try:
        with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(path))
            connection.sendall(b"HEAD / HTTP/1.1\r\nHost: imagecached\r\nConnection: close\r\n\r\n")
            return "answers" if connection.recv(5) == b"HTTP/" else "silent"
    except FileNotFoundError:
        return "absent"
    except PermissionError:
        return "denied"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"


def _mode(path: Path) -> int:
    with suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    return 0


def _runtime() -> str:
    places = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
    return next((found for name in _RUNTIMES if (found := shutil.which(name, path=places))), "")
