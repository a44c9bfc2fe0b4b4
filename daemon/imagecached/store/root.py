"""Claiming a root: that it is ours, that nobody else has it, that its format is known; and its ballast.

Invariants: nothing is changed below a directory that is neither empty nor a root of this program, nor below a
root made by a newer version; the lock is taken before anything else is touched and held until
:meth:`Root.release`.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from imagecached.errors import Corrupt, FailedPrecondition
from imagecached.store.files import make_directories, no_space, sync_directory
from imagecached.store.layout import Layout

FORMAT: Final = 1
BALLAST_BYTES: Final = 1 << 20

log = logging.getLogger(__name__)

_MODE: Final = 0o700
_HARMLESS: Final = frozenset(
    {"lock", "version.new", "lost+found"}
)  # may lie in a root that has no version yet


class _Version(msgspec.Struct):
    format: int


class Root:
    """A claimed root directory."""

    def __init__(self, layout: Layout) -> None:
        """Claim it: FailedPrecondition if it is foreign, in use or newer, Corrupt if its version file is
        unreadable.
        """
        self.layout = layout
        self._lock = -1
        try:
            with no_space(f"root {layout.root}"):
                self._claim()
        except OSError as error:
            self.release()
            raise FailedPrecondition(f"cannot use {layout.root} as root: {error.strerror}") from error
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let another process have the root; harmless twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def give_back(self) -> bool:
        """Free the ballast, so that rows can be deleted on a full disk; False if there was none."""
        try:
            size = self.layout.ballast.stat().st_size
            self.layout.ballast.unlink()
        except FileNotFoundError:
            return False
        log.warning("disk full, ballast given back", extra={"root": str(self.layout.root), "bytes": size})
        return size > 0

    def take_ballast(self) -> None:
        """Allocate the ballast if it is missing and there is room; none on a disk that is full, it will be
        tried again.
        """
        if self.layout.ballast.exists():
            return
        fd = os.open(self.layout.ballast, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, BALLAST_BYTES)
        except OSError as error:
            self.layout.ballast.unlink()
            log.info("no room for the ballast", extra={"root": str(self.layout.root), "reason": str(error)})
        finally:
            os.close(fd)

    def _claim(self) -> None:
        layout = self.layout
        make_directories(layout.root)
        self._refuse_foreign()
        self._lock = _locked(layout)
        self._settle_version()
        layout.root.chmod(_MODE)
        for path in (layout.ingest, layout.layers, layout.seams, layout.mounts, layout.containers):
            make_directories(path)

    def _refuse_foreign(self) -> None:
        if self.layout.version.exists():
            return
        strangers = sorted({entry.name for entry in self.layout.root.iterdir()} - _HARMLESS)
        if strangers:
            raise FailedPrecondition(
                f"{self.layout.root} is no imagecached root: it holds {strangers[0]!r} but no version file"
            )

    def _settle_version(self) -> None:
        path = self.layout.version
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_Version).format
        except FileNotFoundError:
            _write_version(path)
            return
        except msgspec.MsgspecError as error:
            raise Corrupt(f"{path}: {error}") from error
        if found > FORMAT:
            raise FailedPrecondition(
                f"{self.layout.root} has format {found}, this program knows up to {FORMAT}"
            )
        if found < FORMAT:
            raise Corrupt(f"{path}: there never was a format {found}")


def _write_version(path: Path) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(msgspec.json.encode(_Version(FORMAT)))
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    sync_directory(path.parent)


def _locked(layout: Layout) -> int:
    """The lock file, locked, with our pid in it for whoever comes second."""
    fd = os.open(layout.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(os.pread(fd, 32, 0))
        os.close(fd)
        raise FailedPrecondition(f"{layout.root} is in use by {holder}") from None
    with suppress(OSError):  # only a courtesy: a full disk must not keep the daemon from starting
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _holder(content: bytes) -> str:
    pid = content.decode("ascii", "replace").strip()
    if not pid.isdecimal():
        return "another process"
    with suppress(OSError):
        return f"process {pid} ({Path('/proc', pid, 'comm').read_text().strip()})"
    return f"process {pid}"
