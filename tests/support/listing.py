"""A tree as a table of facts, and the differences between two tables.

Works as root, so that nothing is hidden: `trusted.*` attributes and unreadable files are listed like the rest. Names
are bytes. What cannot be the same on two file systems is not a fact here: the size of a directory (each file system
counts its own blocks), inode numbers, and access and change times.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
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

    `mtime_ns` counts from 1970. `group` is the smallest path among the hard links of this inode, None for directories.
    `content` is a digest that does not depend on how holes are stored.
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


Listing = dict[bytes, Facts]


def listing(root: Path, *, content: bool = True) -> Listing:
    """The facts of every path below `root`, keyed without leading slash; the root itself is ``b"."``.

    A name that the directory lists but lookup denies (overlayfs does that with a whiteout in a directory that no lower
    layer has) is no entry and is left out.
    """
    top = os.fsencode(root)
    found = {b".": (top, os.lstat(top))}
    found.update((path, (full, facts)) for path, full, facts in _walk(top, b""))
    groups = _groups({path: facts for path, (_, facts) in found.items()})
    return {
        path: _facts(full, facts, groups.get((facts.st_dev, facts.st_ino)), content=content)
        for path, (full, facts) in found.items()
    }


def differences(
    ours: Listing, theirs: Listing, *, ignore_times: Collection[bytes] = (), names: tuple[str, str] = ("ours", "theirs")
) -> list[str]:
    """One readable line per fact that differs, sorted by path; empty when the trees are equal.

    `ignore_times` are the paths whose modification time is the moment of unpacking on the other side, see
    :func:`tests.support.layerfacts.unpack_times`.
    """
    lines: list[str] = []
    for path in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(path), theirs.get(path)
        if a is None or b is None:
            lines.append(f"{_shown(path)}: only in {names[0] if b is None else names[1]}: {_brief(a or b)}")
            continue
        skipped = {"mtime_ns"} if path in ignore_times else set()
        if a.kind == b.kind == "directory" and 1 in (a.nlink, b.nlink):
            skipped.add("nlink")  # overlayfs says 1 for a directory that it merges from several layers
        for field in fields(Facts):
            left, right = getattr(a, field.name), getattr(b, field.name)
            if left != right and field.name not in skipped:
                shown = oct if field.name == "mode" else repr
                lines.append(
                    f"{_shown(path)}: {field.name}: {names[0]} {shown(left)}, {names[1]} {shown(right)}"
                )
    return lines


def _walk(directory: bytes, prefix: bytes) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    for name in os.listdir(directory):
        full, path = directory + b"/" + name, prefix + name
        try:
            facts = os.lstat(full)
        except FileNotFoundError:
            continue
        yield path, full, facts
        if stat.S_ISDIR(facts.st_mode):
            yield from _walk(full, path + b"/")


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
        target=os.readlink(full) if kind == "symlink" else None,
        xattrs=_xattrs(full),
        content=_digest(full, facts.st_size) if content and kind == "file" else None,
    )


def _xattrs(full: bytes) -> tuple[tuple[bytes, bytes], ...]:
    keys = os.listxattr(full, follow_symlinks=False)
    return tuple(
        sorted((os.fsencode(key), os.getxattr(full, key, follow_symlinks=False)) for key in keys)
    )


def _digest(full: bytes, size: int) -> str:
    """sha256 over the windows that hold anything but zeros, each with its offset: a hole equals written zeros."""
    state = hashlib.sha256()
    with open(full, "rb", buffering=0) as file:
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


def _shown(path: bytes) -> str:
    return path.decode("ascii", "backslashreplace").replace("\n", "\\n")


def _brief(facts: Facts | None) -> str:
    assert facts is not None
    return f"{facts.kind} {facts.mode:04o} {facts.uid}:{facts.gid} {facts.size} bytes"
