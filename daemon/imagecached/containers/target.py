"""A directory that a caller names for us to mount on: checked once, then held, so that nobody swaps it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagecached.errors import AccessDenied, InvalidInput


@dataclass(frozen=True, slots=True)
class Target:
    """``path``: its true name; ``handle``: a path that means this directory whatever happens to the name."""

    path: Path
    handle: str


@contextmanager
def opened(path: Path, *, outside: Path) -> Iterator[Target]:
    """Hold ``path`` for the block.

    InvalidInput: not an empty directory, not absolute, or below ``outside``.
    """
    if not path.is_absolute():
        raise InvalidInput(f"{path}: expected an absolute path")
    try:
        fd = os.open(path.resolve(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError as error:
        raise AccessDenied(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise InvalidInput(f"{path}: {error.strerror}") from error
    try:
        yield _checked(fd, outside)
    finally:
        os.close(fd)


def _checked(fd: int, outside: Path) -> Target:
    handle = f"/proc/self/fd/{fd}"
    path = Path(handle).readlink()
    if path.is_relative_to(outside):
        raise InvalidInput(f"{path}: lies in the daemon's own folder {outside}")
    with os.scandir(fd) as entries:
        if next(entries, None) is not None:
            raise InvalidInput(f"{path}: is not empty")
    return Target(path, handle)
