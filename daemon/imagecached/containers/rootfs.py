"""Single files of a mounted image, which is hostile: no link leads out of it, no device is opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from imagecached.errors import InvalidInput
from imagecached.mounts import syscalls

MOST_BYTES: Final = 4 << 20
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def read_file(rootfs: Path, path: str) -> bytes:
    """The regular file ``path`` as a process chrooted into ``rootfs`` would see it; b"" if there is none.

    InvalidInput: larger than :data:`MOST_BYTES`.
    """
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = syscalls.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        if error.errno in _ABSENT:
            return b""
        raise
    finally:
        os.close(root)
    try:
        return _content(found, path)
    finally:
        os.close(found)


def _content(found: int, path: str) -> bytes:
    # Looked at before it is opened: opening a device or a pipe can act or block.
    if not stat.S_ISREG(os.fstat(found).st_mode):
        return b""
    with Path(f"/proc/self/fd/{found}").open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise InvalidInput(f"the image's {path} is larger than {MOST_BYTES} bytes")
    return content
