"""Layers as a chain: what overlayfs shows of them, and what unpacking one onto the others would have made.

The *merged view* of a stack is overlayfs' own: the uppermost entry of a name counts, directories merge
downwards until something else, a whiteout or an opaque mark ends them.

*Unpacked* attributes are containerd's answer for a directory that a layer makes without an entry for it.
Going down from the next lower layer, the first one counts in which the path leads anywhere, seen alone: its
symbolic links are followed inside it, whiteouts and opaque marks of other layers ignored. If it leads to a
directory, that gives mode, owner, time and attributes, which may in turn come from a layer further down; if
to something else, the directory stays as it was made. An entry that comes later in the layer sets all of
these again but takes no extended attribute away.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers import attributes
from imagecached.layers.limits import shown
from imagecached.layers.metadata import Entry
from imagecached.layers.node import Node
from imagecached.layers.notes import Notes
from imagecached.layers.reader import LayerReader

_LINKS: Final = 40
_OVERLAY: Final = b"trusted.overlay."


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a directory has besides its names; overlayfs' own marks left out."""

    mode: int
    uid: int
    gid: int
    mtime: int = field(compare=False)
    mtime_ns: int = field(compare=False)
    xattrs: dict[bytes, bytes]

    @classmethod
    def of(cls, entry: Entry) -> Attributes:
        xattrs = {key: value for key, value in entry.xattrs.items() if not key.startswith(_OVERLAY)}
        return cls(entry.mode, entry.uid, entry.gid, entry.mtime, entry.mtime_ns, xattrs)


class Found(NamedTuple):
    """An entry and the file it is in."""

    reader: LayerReader
    entry: Entry


def parent_of(path: bytes) -> bytes:
    """The directory part of a path; b"" is the root and its own parent."""
    return path.rpartition(b"/")[0]


class View:
    """The merged view of open layers, uppermost first."""

    def __init__(self, stack: Sequence[LayerReader]) -> None:
        self._directories: dict[bytes, list[Found]] = {b"": [Found(reader, reader.root) for reader in stack]}

    def lookup(self, path: bytes) -> Found | None:
        """What is visible at ``path``, no symbolic link followed."""
        found = self._at(path)
        return found[0] if found else None

    def follow(self, path: bytes) -> tuple[bytes, Found] | None:
        """Where ``path`` leads, the symbolic links in its directories followed but not a last one."""
        todo = path.split(b"/")[::-1]
        trail: list[bytes] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del trail[-1:]
            elif part not in (b"", b"."):
                here = b"/".join([*trail, part])
                found = self.lookup(here)
                if found is None or not todo:
                    return (here, found) if found else None
                if not stat.S_ISLNK(found.entry.mode):
                    trail.append(part)
                    continue
                links += 1
                if links > _LINKS:
                    raise Corrupt(f"too many symbolic links at {shown(path)}")
                if found.entry.target.startswith(b"/"):
                    trail.clear()
                todo.extend(found.entry.target.split(b"/")[::-1])
        found = self.lookup(b"/".join(trail))
        return (b"/".join(trail), found) if found else None

    def _at(self, path: bytes) -> list[Found]:
        """What ``path`` merges from, uppermost first; one entry if it is no directory, none if nothing."""
        known = self._directories.get(path)
        if known is not None:
            return known
        here = parent_of(path)
        if here not in self._directories:
            here = b""
        found = self._directories[here]
        for part in path[len(here) :].lstrip(b"/").split(b"/"):
            here = here + b"/" + part if here else part
            found = self._directories.get(here) or self._merge(found, part)
            if found and found[0].entry.is_dir:
                self._directories[here] = found
        return found

    def _merge(self, above: list[Found], name: bytes) -> list[Found]:
        merged: list[Found] = []
        for reader, directory in above:
            below = reader.child(directory, name) if directory.is_dir else None
            if below is not None:
                if below.is_whiteout:
                    break
                if not below.is_dir:
                    return merged or [Found(reader, below)]
                merged.append(Found(reader, below))
            if directory.is_opaque:
                break
        return merged


_Key = tuple[int, bytes]
"""A directory: the layer it is in, counted from the bottom, and its path there."""


@dataclass(frozen=True, slots=True)
class _Step:
    """How a directory comes to its attributes: its ``own``, and what it takes from ``source``."""

    own: Attributes
    source: _Key | None = None
    takes: Callable[[Attributes, Attributes], Attributes] = lambda own, _source: own


def _take_all(own: Attributes, source: Attributes) -> Attributes:
    """As containerd copies the directory of a lower layer; a time that the layer set came later."""
    taken = replace(source, xattrs={**own.xattrs, **source.xattrs})
    return replace(taken, mtime=own.mtime, mtime_ns=own.mtime_ns) if own.mtime or own.mtime_ns else taken


def _take_group(own: Attributes, source: Attributes) -> Attributes:
    """As mkdir(2) hands down the group of the directory above."""
    return replace(own, gid=source.gid) if source.mode & stat.S_ISGID else own


def _no_group(path: bytes) -> Callable[[Attributes, Attributes], Attributes]:
    """As above, where the directory above has its entry later: nothing tells which of the two came first."""

    def refuse(own: Attributes, source: Attributes) -> Attributes:
        if source.mode & stat.S_ISGID:
            raise Unsupported(f"directory {shown(path)}: no entry, in a late one that is set-group-ID below")
        return own

    return refuse


def _keep_xattrs(own: Attributes, source: Attributes) -> Attributes:
    """As the entry of a directory that was made before is applied to it."""
    node = Node(own.mode, xattrs={**source.xattrs, **own.xattrs})
    attributes.chmod(node, stat.S_IMODE(own.mode))
    return replace(own, xattrs=node.xattrs or {})


class _Noted(NamedTuple):
    """Paths from a layer's notes, to be asked for one by one."""

    implicit: frozenset[bytes]
    late: frozenset[bytes]
    linked: frozenset[bytes]  # names of links into lower layers

    @classmethod
    def of(cls, notes: Notes) -> _Noted:
        linked = frozenset(name for note in notes.links for name in note.paths)
        return cls(frozenset(notes.implicit), frozenset(notes.late), linked)


class Chain:
    """The layers of a chain, bottom first, and the seam of all but the last; opened when they are needed.

    A context manager that closes them. Like its readers it belongs to one thread.
    """

    def __init__(self, layers: Sequence[Path], parent_seam: Path | None) -> None:
        self._paths = layers
        self._open = ExitStack()
        self._readers: dict[Path, LayerReader] = {}
        self._notes: dict[int, _Noted] = {}
        self._known: dict[_Key, Attributes] = {}
        self.top = len(layers) - 1
        self._parent_seam = parent_seam
        self._view: View | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._open.close()

    def layer(self, index: int) -> LayerReader:
        return self._reader(self._paths[index])

    @property
    def parent_seam(self) -> LayerReader | None:
        return self._reader(self._parent_seam) if self._parent_seam else None

    @property
    def parents(self) -> View:
        """What is seen without the last layer, as containers see it: with the seam on top."""
        if self._view is None:
            below = [self.layer(index) for index in reversed(range(self.top))]
            seam = self.parent_seam
            self._view = View([seam, *below] if seam else below)
        return self._view

    def _reader(self, path: Path) -> LayerReader:
        reader = self._readers.get(path)
        if reader is None:
            reader = self._readers[path] = self._open.enter_context(LayerReader(path))
        return reader

    def unpacked(self, index: int, path: bytes) -> Attributes:
        """What unpacking layer ``index`` onto those below leaves on its directory ``path``."""
        trail = [(index, path)]
        steps: dict[_Key, _Step] = {}
        while trail:  # no recursion: paths and chains may be deep
            key = trail[-1]
            if key not in self._known:
                step = steps.get(key) or steps.setdefault(key, self._step(*key))
                if step.source is not None and step.source not in self._known:
                    trail.append(step.source)
                    continue
                source = self._known[step.source] if step.source else step.own
                self._known[key] = step.takes(step.own, source)
            trail.pop()
        return self._known[index, path]

    def _step(self, index: int, path: bytes) -> _Step:
        entry = self.layer(index).lookup(path)
        if entry is None or not entry.is_dir:
            raise Corrupt(f"layer file: no directory at {shown(path)}, which its notes name")
        own = Attributes.of(entry)
        if path in self._noted(index).late:
            return _Step(own, self._given(index, path), _keep_xattrs)
        if not path or path not in self._noted(index).implicit:
            return _Step(own)
        given = self._given(index, path)
        if given:
            if given[1] == path and index == self.top:
                self._look_up(given)
            return _Step(own, given, _take_all)
        above = parent_of(path)
        if above in self._noted(index).late:
            return _Step(own, self._given(index, above), _no_group(path))
        return _Step(own, (index, above) if above in self._noted(index).implicit else None, _take_group)

    def _look_up(self, key: _Key) -> None:
        """Learn from the merged view what else would have to be worked out down to the bottom.

        ``key`` is in the uppermost of the parents that has this path; if that is visible, it is as unpacked.
        """
        index, path = key
        seen = self.parents.lookup(path)
        if seen and seen.entry.is_dir and seen.reader in (self.parent_seam, self.layer(index)):
            self._known.setdefault(key, Attributes.of(seen.entry))

    def _given(self, index: int, path: bytes) -> _Key | None:
        """The directory of a lower layer whose attributes ``path`` gets, if there is one."""
        for below in reversed(range(index)):
            if self._is_linked(below, path):
                return None
            found = self.layer(below).resolve(path)
            if found is not None:
                place, entry = found
                return (below, place) if entry.is_dir else None
        return None

    def _is_linked(self, index: int, path: bytes) -> bool:
        """Whether a hard link into lower layers, which only a seam can show, lies at or above ``path``."""
        linked = self._noted(index).linked
        while linked and path:
            if path in linked:
                return True
            path = parent_of(path)
        return False

    def _noted(self, index: int) -> _Noted:
        known = self._notes.get(index)
        if known is None:
            known = self._notes[index] = _Noted.of(self.layer(index).notes)
        return known
