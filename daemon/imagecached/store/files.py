"""Steps on files that must survive a crash: publish, take away, scan. Knows no row.

Publish is the written sequence of this store: the data is durable in ``ingest/`` already → rename → directory
durable; the row comes after. Taking away is a rename into ``ingest/``, so that the name is free at once and
nothing can adopt the file.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from imagecached.errors import OutOfSpace
from imagecached.oci.digest import Digest
from imagecached.store.layout import Layout
from imagecached.store.points import point

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_BLOCK = 512  # unit of st_blocks, whatever the file system's block size


@contextmanager
def no_space(what: str) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into OutOfSpace that names ``what`` was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise OutOfSpace(f"{what}: {os.strerror(error.errno)}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directories(path: Path) -> None:
    """``path`` and its missing parents, each name durable: a file synced below a lost directory would be lost
    too.
    """
    if path.is_dir():
        return
    make_directories(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    sync_directory(path.parent)


def publish_file(source: Path, target: Path, lock: AbstractContextManager[object], kind: str) -> None:
    """Give a file whose data is durable its final name, durably.

    The rename needs the store's ``lock``: gc holds it while it takes names away. ``kind`` (``layer``,
    ``seam``) names the points.
    """
    make_directories(target.parent)
    with lock:
        source.rename(target)
    point(f"{kind}.renamed")
    sync_directory(target.parent)
    point(f"{kind}.synced")


def take_away(layout: Layout, path: Path) -> Path | None:
    """Move ``path`` into the trash, where it no longer counts; its new name, or None if it was not there."""
    trash = layout.new_trash()
    try:
        path.rename(trash)
    except FileNotFoundError:
        return None
    return trash


def unlink_all(paths: Iterable[Path]) -> None:
    """Remove files, those that are gone already included."""
    for path in paths:
        path.unlink(missing_ok=True)


def empty_directory(path: Path) -> int:
    """Remove everything in ``path``, following no link; the number of entries removed."""
    with os.scandir(path) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()
    return len(found)


def disk_bytes(fd: int) -> int:
    """Bytes the file system has allocated for an open file."""
    return os.fstat(fd).st_blocks * _BLOCK


def scan(layout: Layout, base: Path) -> Iterator[tuple[Digest | None, str]]:
    """Every file below ``layers/`` or ``seams/`` as (digest or None, path), without a stat per file."""
    pending = [str(base)]
    while pending:
        with suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield layout.digest_of(entry.path), entry.path
