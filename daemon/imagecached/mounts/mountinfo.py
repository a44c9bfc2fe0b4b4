"""The kernel's table of mounts (proc_pid_mountinfo(5)): the only memory of what is mounted.

Parsing is pure and takes bytes: paths are whatever the kernel wrote, decoded as the file system encoding does
it. Nothing here changes a mount.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imagecached.errors import Corrupt

_ESCAPE: Final = re.compile(rb"\\([0-3][0-7]{2})")
_LOWER_SEPARATOR: Final = re.compile(r"(?<!\\):")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line.

    ``device``: "major:minor"; ``root``: what part of the file system is seen; ``tags``: "shared:N",
    "master:N", …
    """

    id: int
    parent: int
    device: str
    root: str
    point: str
    options: frozenset[str]
    tags: tuple[str, ...]
    filesystem: str
    source: str
    super_options: tuple[str, ...]

    @property
    def lowers(self) -> tuple[str, ...]:
        """The lower directories of an overlay as they were given; a relative one may be anywhere."""
        if self.filesystem != "overlay":
            return ()
        return tuple(_lowers(self.super_options))


def parse(table: bytes) -> list[Mount]:
    """Every line of a mountinfo file, in its order: later ones may cover earlier ones.

    Corrupt if a line is none.
    """
    return [_parse_line(line) for line in table.split(b"\n") if line]


def read() -> list[Mount]:
    """The mounts of this process's mount namespace."""
    return parse(Path("/proc/self/mountinfo").read_bytes())


def topmost(table: list[Mount], point: str) -> Mount | None:
    """The mount that a look at ``point`` shows, if ``point`` is a mount point."""
    stacked = [mount for mount in table if mount.point == point]
    covered = {mount.parent for mount in stacked}
    return next((mount for mount in reversed(stacked) if mount.id not in covered), None)


def containing(table: list[Mount], path: str) -> Mount | None:
    """The mount that holds ``path`` (absolute, without links)."""
    places = [path, *map(str, Path(path).parents)]
    return next((mount for place in places if (mount := topmost(table, place)) is not None), None)


def process_roots() -> frozenset[str]:
    """Sources of what any process anywhere has as its ``/``: the containers that run, whoever runs them."""
    roots = set()
    for table in _every_namespace():
        at_root = b"\n".join(line for line in table.split(b"\n") if line.split(b" ", 5)[4:5] == [b"/"])
        mount = topmost(parse(at_root), "/")
        if mount is not None:
            roots.add(mount.source)
    return frozenset(roots)


def _every_namespace() -> Iterator[bytes]:
    """One table per mount namespace; processes that end meanwhile are no longer of interest."""
    seen = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            namespace = (process / "ns/mnt").readlink()
            if namespace not in seen:
                table = (process / "mountinfo").read_bytes()
                seen.add(namespace)
                yield table
        except OSError:
            continue


def _parse_line(line: bytes) -> Mount:
    """``36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue``"""
    before, separator, after = line.partition(b" - ")
    head, tail = before.split(b" "), after.split(b" ")
    if not separator or len(head) < 6 or len(tail) < 2 or not (head[0].isdigit() and head[1].isdigit()):
        raise Corrupt(f"not a line of mountinfo: {line[:200]!r}")
    return Mount(
        id=int(head[0]),
        parent=int(head[1]),
        device=_text(head[2]),
        root=_text(head[3]),
        point=_text(head[4]),
        options=frozenset(map(_text, head[5].split(b","))),
        tags=tuple(map(_text, head[6:])),
        filesystem=_text(tail[0]),
        source=_text(tail[1]),
        # Split before the escapes are undone: a comma inside a value is written as \054.
        super_options=tuple(map(_text, b" ".join(tail[2:]).split(b","))),
    )


def _text(field: bytes) -> str:
    if b"\\" in field:
        field = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field)
    return os.fsdecode(field)


def _lowers(options: tuple[str, ...]) -> Iterator[str]:
    for option in options:
        name, _, value = option.partition("=")
        if name in ("lowerdir+", "datadir+"):
            yield value
        elif name == "lowerdir":
            # "::" sets data-only layers apart: they are layers all the same.
            yield from (part.replace("\\:", ":") for part in _LOWER_SEPARATOR.split(value) if part)
