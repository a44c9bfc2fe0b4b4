"""A tree as a table of facts, and the differences between two tables.

Works as root, so that nothing is hidden: `trusted.*` attributes and unreadable files are listed too.
Names are bytes. What cannot be the same on two file systems is not a fact here: the size of a directory (each
file system counts its own blocks), inode numbers, and access and change times.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

_WINDOW = 64 * 1024
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a process can learn about one path.

    `mtime_ns` counts from 1970. `group` is the smallest path among the hard links of this inode, None for
    directories. `content` is a digest that does not depend on how holes are stored.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    rdev: tuple[int, int]
    group: bytes | None
    target: bytes | None
    xattrs: tuple[tuple[bytes, bytes], ...]
    content: str | None


GHOST = Facts("ghost", 0, 0, 0, 0, 0, 0, (0, 0), None, None, (), None)
"""A name that is listed and then denied: so overlayfs shows a whiteout where it does not merge."""

Listing = dict[bytes, Facts]


def listing(root: Path, *, content: bool = True) -> Listing:
    """The facts of every path below `root`, keyed without leading slash; the root itself is ``b"."``."""
    top = os.fsencode(root)
    found: dict[bytes, tuple[bytes, os.stat_result | None]] = {b".": (top, os.lstat(top))}
    found.update((path, (full, facts)) for path, full, facts in _walk(top))
    groups = _groups({path: facts for path, (_, facts) in found.items() if facts})
    return {
        path: _facts(full, facts, groups.get((facts.st_dev, facts.st_ino)), content=content)
        if facts
        else GHOST
        for path, (full, facts) in found.items()
    }


def differences(ours: Listing, theirs: Listing, *, unpacked_after: int) -> list[str]:
    """One readable line per fact that differs, sorted by path; empty when the trees are equal.

    `theirs` is the reference, unpacked after the moment `unpacked_after` (ns since 1970). Two facts are
    not compared. The time of a directory that the reference made up because the archive has no entry for it:
    it is the moment of unpacking, newer than `unpacked_after`, as no archive's times are. The link count of a
    directory where either side says 1: so overlayfs says of a directory that it merges from several layers.
    A ghost of the reference is not missed, one of ours is a fault.
    """
    lines: list[str] = []
    for path in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(path), theirs.get(path)
        if a is None and b is GHOST:
            continue
        if a is None or b is None:
            lines.append(f"{shown(path)}: only in {_brief('ours', a) if a else _brief('theirs', b)}")
        else:
            lines += [f"{shown(path)}: {line}" for line in _compared(a, b, unpacked_after)]
    return lines


def shown(path: bytes) -> str:
    """A name for people: printable, on one line, not longer than a line."""
    text = path.decode("ascii", "backslashreplace").replace("\n", "\\n")
    return text if len(text) <= 100 else f"{text[:60]}…{text[-36:]}"


def _compared(ours: Facts, theirs: Facts, unpacked_after: int) -> Iterator[str]:
    for field in fields(Facts):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if a == b:
            continue
        if theirs.kind == "directory":
            if field.name == "mtime_ns" and theirs.mtime_ns > unpacked_after:
                continue
            if field.name == "nlink" and 1 in (a, b):
                continue
        spell = oct if field.name == "mode" else repr
        yield f"{field.name}: ours {spell(a)}, theirs {spell(b)}"


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result | None]]:
    """Path below the root, full path and facts of every name; None for a name that cannot be looked up."""
    pending = [(root, b"")]
    while pending:
        directory, prefix = pending.pop()
        for name in os.listdir(directory):  # noqa: PTH208 - names are bytes, which pathlib does not take
            full, path = directory + b"/" + name, prefix + name
            try:
                facts = os.lstat(full)
            except FileNotFoundError:
                yield path, full, None
                continue
            yield path, full, facts
            if stat.S_ISDIR(facts.st_mode):
                pending.append((full, path + b"/"))


def _groups(found: dict[bytes, os.stat_result]) -> dict[tuple[int, int], bytes]:
    smallest: dict[tuple[int, int], bytes] = {}
    for path, facts in found.items():
        if not stat.S_ISDIR(facts.st_mode):
            inode = (facts.st_dev, facts.st_ino)
            smallest[inode] = min(path, smallest.get(inode, path))
    return smallest


def _facts(full: bytes, facts: os.stat_result, group: bytes | None, *, content: bool) -> Facts:
    kind = _KINDS[stat.S_IFMT(facts.st_mode)]
    return Facts(
        kind=kind,
        mode=stat.S_IMODE(facts.st_mode),
        uid=facts.st_uid,
        gid=facts.st_gid,
        size=0 if kind == "directory" else facts.st_size,
        mtime_ns=facts.st_mtime_ns,
        nlink=facts.st_nlink,
        rdev=(os.major(facts.st_rdev), os.minor(facts.st_rdev)),
        group=group,
        target=os.readlink(full) if kind == "symlink" else None,  # noqa: PTH115 - bytes
        xattrs=_xattrs(full),
        content=_digest(full, facts.st_size) if content and kind == "file" else None,
    )


def _xattrs(full: bytes) -> tuple[tuple[bytes, bytes], ...]:
    keys = os.listxattr(full, follow_symlinks=False)
    return tuple(sorted((os.fsencode(key), os.getxattr(full, key, follow_symlinks=False)) for key in keys))


def _digest(full: bytes, size: int) -> str:
    """sha256 over the windows that hold anything but zeros, each with its offset: a hole equals zeros."""
    state = hashlib.sha256()
    with open(full, "rb", buffering=0) as file:  # noqa: PTH123 - bytes
        offset = _next_data(file.fileno(), 0)
        while offset is not None and offset < size:
            offset -= offset % _WINDOW
            window = os.pread(file.fileno(), _WINDOW, offset)
            if window.count(0) != len(window):
                state.update(b"%d:" % offset)
                state.update(window.rstrip(b"\0"))
            offset = _next_data(file.fileno(), offset + _WINDOW)
    return state.hexdigest()


def _next_data(file: int, offset: int) -> int | None:
    try:
        return os.lseek(file, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _brief(whose: str, facts: Facts | None) -> str:
    assert facts is not None
    return f"{whose}: {facts.kind} {facts.mode:04o} {facts.uid}:{facts.gid}, {facts.size} bytes"
