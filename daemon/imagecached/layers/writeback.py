"""Start writing a file's dirty pages while more of it is being made: the last sync then finds little to do.

Only advice: durability is the later fdatasync's business, and so are its errors. sync_file_range(2) through
ctypes, because posix_fadvise, which Python has, would also drop pages that a first container start may read.
"""

from __future__ import annotations

import ctypes
from typing import Final

STEP_BYTES: Final = 8 << 20

_SYNC_FILE_RANGE_WRITE = 2
_sync_file_range = ctypes.CDLL(None).sync_file_range
_sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


class Writeback:
    """Follows the growing end of the file ``fd`` and starts writeback of every STEP_BYTES."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begun = 0

    def reached(self, end: int) -> None:
        """Bytes before ``end`` are written and will not be written again."""
        if end - self._begun >= STEP_BYTES:
            _sync_file_range(self._fd, self._begun, end - self._begun, _SYNC_FILE_RANGE_WRITE)
            self._begun = end
