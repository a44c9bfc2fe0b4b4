"""One overlay: its options within the kernel's bounds, and the writable half of it.

The options are containerd's: ``index=off`` and else the kernel's defaults, so that a tree behaves the same
whoever mounted it. (With the index, overlayfs would remember file handles of its lower layers in the upper
directory, and those change with each mount of an EROFS without UUID.) Only a writable overlay is
``volatile``: what is written goes with the mount, so nothing of it is worth a sync. All options of one mount
share a page; what is longer would be cut silently, so it is given by relative paths, from a thread with a
working directory of its own. That works on every kernel we support; ``lowerdir+`` of fsconfig(2) needs Linux
6.7.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from imagecached.errors import FailedPrecondition, InvalidInput
from imagecached.mounts import syscalls

MOST_LOWERS: Final = 500
_SPECIAL: Final = frozenset(",:\\")


def check_path(path: Path) -> None:
    """InvalidInput if ``path`` is not absolute or holds what overlay options would need escaped."""
    if _SPECIAL & set(str(path)) or not path.is_absolute():
        raise InvalidInput(f"{path}: expected an absolute path without comma, colon and backslash")


def options(lowers: Sequence[str | Path], writable: str | Path | None) -> str:
    """The options of an overlay of ``lowers``, top first, with ``upper`` and ``work`` in ``writable``."""
    parts = ["index=off", "lowerdir=" + ":".join(map(str, lowers))]
    if writable is not None:
        parts += [f"upperdir={writable}/upper", f"workdir={writable}/work", "volatile"]
    return ",".join(parts)


def fits(text: str) -> bool:
    """Whether the kernel takes all of it: one page, the last byte of which is a NUL."""
    return len(os.fsencode(text)) < mmap.PAGESIZE


def mount_overlay(
    lowers: Sequence[Path], target: str | Path, *, source: str, writable: Path | None, flags: int, base: Path
) -> None:
    """Mount; ``base``: a directory close to the lowers, to be relative to.

    OSError; FailedPrecondition: still too long.
    """
    text = options(lowers, writable)
    if fits(text):
        syscalls.mount(source, target, "overlay", flags, text)
        return
    text = options(
        [os.path.relpath(path, base) for path in lowers], writable and os.path.relpath(writable, base)
    )
    if len(lowers) > MOST_LOWERS or not fits(text):
        raise FailedPrecondition(
            f"an overlay takes at most {MOST_LOWERS} directories and a page of options; here {len(lowers)}"
        )
    _from_directory(base, source, target, flags, text)


def make_writable(directory: Path) -> None:
    """``upper`` and ``work`` in ``directory``. The upper is the tree's root: 0755, as with containerd."""
    upper = directory / "upper"
    upper.mkdir()
    upper.chmod(0o755)  # whatever the umask
    (directory / "work").mkdir(mode=0o700)


def _from_directory(base: Path, source: str, target: str | Path, flags: int, text: str) -> None:
    failures: list[OSError] = []

    def call() -> None:
        try:
            syscalls.own_working_directory()
            os.chdir(base)
            syscalls.mount(source, target, "overlay", flags, text)
        except OSError as error:
            failures.append(error)

    # Not a thread of a pool: this one keeps its own working directory to its end.
    thread = threading.Thread(target=call, name="overlay mount")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
