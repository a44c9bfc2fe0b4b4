"""Where layer files are mounted: ``<root>/m/<n>``, ``<n>`` being the file's inode number in base 36.

The kernel's table is the only memory. A mounted file keeps its inode, so ``m/<n>`` can mean no other file as
long as it is mounted: a new daemon finds the mounts of the old one, and a layer that was replaced (same path,
new inode) is never taken for the broken one. The names are short because all options of an overlay share a
page. Invariants: a file is mounted at most once; an empty directory never passes for an empty layer. Not
thread-safe.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from imagecached.errors import Corrupt, FailedPrecondition, NotFound
from imagecached.mounts import ladder, mountinfo, syscalls
from imagecached.mounts.failures import translated
from imagecached.mounts.kernel import Method
from imagecached.mounts.mountinfo import Mount

log = logging.getLogger(__name__)

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_EMPTY: Final = "empty"


class Points:
    """The mount points in ``directory``, which exists. ``empty``: a directory in it that stays empty."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.empty = directory / _EMPTY
        self.empty.mkdir(mode=0o755, exist_ok=True)
        self._name = str(directory)
        self._device = directory.stat().st_dev
        self._right: dict[str, int] = {}  # name → device of the mount that was seen to be the right one

    def mount(self, file: Path, method: Method) -> Path:
        """The directory that shows the layer file ``file``. NotFound; Corrupt: it does not mount."""
        try:
            point = self.directory / _base36(file.stat().st_ino)
        except FileNotFoundError:
            raise NotFound(f"layer file {file.name} does not exist") from None
        if not self._shows(point, file):
            self._mount(point, file, method)
        return point

    def mounts(self, table: list[Mount]) -> list[Mount]:
        """Those of ``table`` that lie here."""
        return [
            mount
            for mount in table
            if mount.filesystem == "erofs" and mount.point.rpartition("/")[0] == self._name
        ]

    def unmount(self, mount: Mount) -> bool:
        """Whether it could be done: somebody may have a file open in it."""
        try:
            syscalls.umount(mount.point)
        except OSError as error:
            log.warning("layer stays mounted", extra={"point": mount.point, "reason": error.strerror})
            return False
        self._right.pop(Path(mount.point).name, None)
        return True

    def remove_leftovers(self) -> None:
        """Remove directories without a mount: just unmounted, or from before a reboot."""
        for point in self.directory.iterdir():
            if point != self.empty:
                with suppress(OSError):  # EBUSY: mounted
                    point.rmdir()

    def _shows(self, point: Path, file: Path) -> bool:
        try:
            device = point.stat().st_dev
        except FileNotFoundError:
            return False
        if device == self._device:
            return False
        if self._right.get(point.name) != device:
            mount = mountinfo.topmost(mountinfo.read(), str(point))
            if mount is None or mount.filesystem != "erofs" or not _same(backing_file(mount), file):
                raise FailedPrecondition(f"{point} does not show layer file {file.name}: unmount it")
            self._right[point.name] = device
        return True

    def _mount(self, point: Path, file: Path, method: Method) -> None:
        try:
            point.mkdir(mode=0o700, exist_ok=True)
            ladder.mount_layer(method, file, point)
        except OSError as error:
            with suppress(OSError):
                point.rmdir()
            if error.errno in (errno.EINVAL, errno.EUCLEAN, errno.EIO):
                raise Corrupt(f"layer file {file.name} does not mount: {error.strerror}") from error
            raise translated(error, f"mount layer file {file.name}") from error
        self._right[point.name] = point.stat().st_dev


def backing_file(mount: Mount) -> Path:
    """The layer file behind an EROFS mount, by the name it was mounted with."""
    if not mount.source.startswith("/dev/"):
        return Path(mount.source)
    try:
        name = Path(f"/sys/dev/block/{mount.device}/loop/backing_file").read_bytes()
    except OSError:
        return Path(mount.source)
    return Path(os.fsdecode(name.removesuffix(b"\n").removesuffix(b" (deleted)")))


def used(table: list[Mount], points: list[Mount]) -> frozenset[str]:
    """Which of ``points`` lie below an overlay of ``table``, or are mounted a second time elsewhere. Pure."""
    by_name = {mount.point.rpartition("/")[2]: mount.point for mount in points}
    by_device = {mount.device: mount.point for mount in points}
    paths = frozenset(by_name.values())
    found = set()
    for mount in table:
        if mount.point not in paths and mount.device in by_device:
            found.add(by_device[mount.device])
        for lower in mount.lowers:
            # A relative one may be anybody's: better a mount too many than one too few.
            found.add(lower if lower.startswith("/") else by_name.get(lower.rpartition("/")[2], ""))
    return paths & found


def _same(left: Path, right: Path) -> bool:
    try:
        return left == right or left.samefile(right)
    except OSError:
        return False


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"
