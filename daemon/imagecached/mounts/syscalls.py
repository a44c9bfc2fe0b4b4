"""mount(2), umount2(2), syncfs(2), unshare(2), openat2(2), adjtimex(2), the loop driver's ioctls, by ctypes.

Owns the numbers and structures of the kernel's interface and nothing else: no path of the root, no decision.
Every failure is an OSError with errno and the file it was about.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
STA_UNSYNC: Final = 0x40

_UMOUNT_NOFOLLOW: Final = 8
_CLONE_FS: Final = 0x200

_OPENAT2: Final = 437  # the same number on every architecture: it is younger than their common table
_RESOLVE_NO_MAGICLINKS: Final = 0x02
_RESOLVE_IN_ROOT: Final = 0x10
_OPEN_HOW: Final = struct.Struct("=QQQ")

_LOOP_CTL_GET_FREE: Final = 0x4C82
_LOOP_CONFIGURE: Final = 0x4C0A
_LO_READ_ONLY: Final = 1
_LO_AUTOCLEAR: Final = 4
_LOOP_SECTOR: Final = 512  # the block size of a layer file: a larger sector makes EROFS refuse it
_LOOP_NAME_BYTES: Final = 63
# struct loop_config: fd, block size, struct loop_info64, reserved
_LOOP_CONFIG: Final = struct.Struct("=IIQQQQQIIII64s64s32s2Q8Q")
_LOOP_ATTEMPTS: Final = 64

_TIMEX_BYTES: Final = 256  # struct timex is smaller everywhere
_TIMEX_STATUS: Final = struct.Struct("@illlli")  # modes, offset, freq, maxerror, esterror, status

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.syscall.restype = ctypes.c_long


def _fail(subject: str | Path) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), str(subject))


def mount(source: str, target: str | Path, filesystem: str, flags: int = 0, options: str = "") -> None:
    """mount(2). ``options`` must be shorter than a page: the kernel cuts the rest without a word."""
    data = os.fsencode(options)
    if _libc.mount(os.fsencode(source), os.fsencode(target), filesystem.encode(), flags, data):
        raise _fail(target)


def umount(target: str | Path) -> None:
    """umount2(2), never lazily and never through a symbolic link in the last component."""
    if _libc.umount2(os.fsencode(target), _UMOUNT_NOFOLLOW):
        raise _fail(target)


def syncfs(fd: int) -> None:
    """syncfs(2): everything written to the file system of ``fd`` so far is durable."""
    if _libc.syncfs(fd):
        raise _fail("syncfs")


def own_working_directory() -> None:
    """Give the calling thread a working directory of its own. The thread must not come from a pool."""
    if _libc.unshare(_CLONE_FS):
        raise _fail("unshare(CLONE_FS)")


def open_in_root(root: int, path: str, flags: int) -> int:
    """openat2(2), RESOLVE_IN_ROOT: a descriptor of ``path`` below ``root``; no link leads out of it."""
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    fd = int(
        _libc.syscall(_OPENAT2, root, ctypes.c_char_p(os.fsencode(path)), how, ctypes.c_size_t(len(how)))
    )
    if fd < 0:
        raise _fail(path)
    return fd


def attach_loop(file: Path) -> tuple[int, str]:
    """A read-only, buffered loop device of 512-byte sectors on ``file``: its descriptor and path.

    The device frees itself once it is neither mounted nor open, so the caller closes the descriptor after
    mounting.
    """
    # A plain descriptor on purpose: the driver goes on using the flags of the one it is given, and direct I/O
    # breaks on 4Kn disks.
    backing = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _attach(backing, os.fsencode(file)[:_LOOP_NAME_BYTES])
    finally:
        os.close(backing)


def _attach(backing: int, name: bytes) -> tuple[int, str]:
    info = (0, 0, 0, 0, 0, 0, 0, 0, _LO_READ_ONLY | _LO_AUTOCLEAR, name, b"", b"", 0, 0)
    config = _LOOP_CONFIG.pack(backing, _LOOP_SECTOR, *info, *[0] * 8)
    for _ in range(_LOOP_ATTEMPTS):
        device = f"/dev/loop{_free_loop()}"
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(fd)
            if error.errno == errno.EBUSY:  # somebody else took it since it was free
                continue
            raise OSError(error.errno, error.strerror, device) from error
        return fd, device
    raise OSError(errno.EBUSY, "every free loop device was taken at once", "/dev/loop-control")


def _free_loop() -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    finally:
        os.close(control)


def clock_status() -> int:
    """The status bits of the kernel clock (adjtimex(2)); :data:`STA_UNSYNC`: nobody keeps it right."""
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if _libc.adjtimex(buffer) < 0:
        raise _fail("adjtimex")
    return int(_TIMEX_STATUS.unpack_from(buffer.raw)[5])
