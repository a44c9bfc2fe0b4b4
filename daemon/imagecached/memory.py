"""How the C library treats freed memory: kept while pulls run, given back to the system when they end.

By default glibc returns a freed network buffer to the kernel at once and gets it back by page faults, tens of
thousands of them per pull. Does nothing where the C library is another one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Final

_TRIM_THRESHOLD: Final = -1  # names of mallopt(3)
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8
_KEPT_BYTES: Final = 64 << 20
_BUFFERS_BYTES: Final = 16 << 20
_ARENAS: Final = 2

_libc: Final = ctypes.CDLL(None)


def keep_freed() -> None:
    """Let the allocator keep what is freed, in few arenas, until :func:`give_back`; call it once."""
    with contextlib.suppress(AttributeError):
        _libc.mallopt(_MMAP_THRESHOLD, _BUFFERS_BYTES)
        _libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        _libc.mallopt(_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return to the system what is free now; some milliseconds."""
    gc.collect()
    with contextlib.suppress(AttributeError):
        _libc.malloc_trim(0)
