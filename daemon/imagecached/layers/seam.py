"""The seam of a chain: the little that layer files cannot say because they know no parent (ARCHITECTURE.md).

A seam is a small EROFS file, the uppermost lowerdir over all layers of its chain. It holds, with the
directories on the way to them:

- directories that a layer makes without an entry, where unpacking would have given them other attributes;
- hard links into lower layers: the linked inode under all its names, its data copied;
- directories of the bottom layer that hold whiteouts. Unpacking the first layer leaves none, and overlayfs
  keeps their names out of a listing only where directories merge.

The seam of a chain replaces the one of its parent: what the last layer leaves visible is carried over. Its
own notes name the directories it is there for, ``implicit`` and ``whiteouts``. Every directory in it has the
attributes that a container must see and no mark of overlayfs, so it merges with what lies below.

Unlike unpacking, which would refuse it, a link into a lower layer is followed. If the linked file has further
names in its own layer, these keep the old inode, as overlayfs does when it copies up.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers.acl import DEFAULT
from imagecached.layers.chain import Attributes, Chain, Found, parent_of
from imagecached.layers.chunks import BLOCK
from imagecached.layers.layerfile import DATA_OFFSET, write_at, write_image
from imagecached.layers.limits import Limits, shown
from imagecached.layers.metadata import Entry
from imagecached.layers.node import Extent, Node
from imagecached.layers.notes import LinkNote, Notes, relink
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest

_PIECE_BYTES: Final = 1 << 20
_NO_NAMES: Final = (b"", b".", b"..")


def build_seam(
    layers: Sequence[Path],
    parent_seam: Path | None,
    fd: int,
    limits: Limits,
    check_space: Callable[[int], None] = lambda _total: None,
) -> bool:
    """Write the seam of the chain of ``layers``, bottom first; False, and nothing written, if it needs none.

    ``parent_seam``: the one of ``layers[:-1]``, if that has one. ``fd``: an empty file, open for reading and
    writing. ``check_space`` gets the bytes of file data there will be after the next write, and may raise.

    Corrupt: the last layer cannot stand in this place, or links to what no layer below has; Unsupported;
    OutOfSpace; OSError.
    """
    try:
        with Chain(layers, parent_seam) as chain:
            return _build(chain, fd, limits, check_space)
    except (ValueError, struct.error) as error:  # ACLs and numbers that no writer has let through
        raise Corrupt(f"damaged layer file in the chain below {layers[-1].name}: {error}") from error


def _build(chain: Chain, fd: int, limits: Limits, check_space: Callable[[int], None]) -> bool:
    seam = _Seam(chain)
    seam.check_place()
    seam.carry_over()
    seam.add_directories()
    seam.add_links()
    if not seam.reasons:
        return False
    data_end = _copy_data(fd, seam.files, limits, check_space)
    root = seam.tree()
    write_image(
        fd,
        root,
        seam.notes(),
        data_end=data_end,
        tar_bytes=0,
        entries=seam.inodes,
        limits=limits,
        chain_id=_chain_id(chain),
    )
    return True


class _Cover(enum.Enum):
    """What the last layer does to a path at which it has nothing."""

    SHOWS = enum.auto()  # what is below stays visible
    HIDES = enum.auto()


class _Seam:
    """Collects what there is reason to show; :meth:`tree` adds the directories on the way."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._last = chain.layer(chain.top)
        self._new_links = {path for note in self._last.notes.links for path in note.paths}
        self._covers: dict[bytes, Entry | _Cover] = {b"": self._last.root}
        self._corrected: dict[bytes, Attributes] = {}
        self._hiding: dict[bytes, Attributes] = {}  # directories that hold whiteouts
        self._linked: dict[bytes, Node] = {}
        self._nodes: dict[tuple[Path, int], Node] = {}  # linked inodes by where they were found
        self._directories: dict[bytes, Node] = {}
        self.files: dict[Node, Found] = {}  # where the data of linked inodes is

    @property
    def reasons(self) -> int:
        """How many paths the seam is there for."""
        return len(self._corrected) + len(self._hiding) + len(self._linked)

    @property
    def inodes(self) -> int:
        return len(self._directories) + len(self.files)

    def notes(self) -> Notes:
        return Notes(implicit=sorted(self._corrected), whiteouts=sorted(self._hiding))

    def check_place(self) -> None:
        """Whether containerd unpacks such a layer in this place."""
        notes = self._last.notes
        wrong = notes.bottom_only if self._chain.top else notes.never_bottom
        if wrong:
            raise Corrupt(wrong)

    def carry_over(self) -> None:
        """Keep what the parent's seam is there for, as far as the last layer leaves it visible."""
        seam = self._chain.parent_seam
        if seam is None:
            return
        corrected, hiding = set(seam.notes.implicit), set(seam.notes.whiteouts)
        for path, entry in seam.walk():
            if self._cover(path) is not _Cover.SHOWS:
                continue
            if not entry.is_dir:
                self._linked[path] = self._node(Found(seam, entry))
            if path in corrected:
                self._corrected[path] = Attributes.of(entry)
            if path in hiding:
                self._hiding[path] = Attributes.of(entry)

    def add_directories(self) -> None:
        """The last layer's directories that unpacking leaves otherwise; a bottom's whiteouts."""
        top, notes = self._chain.top, self._last.notes
        for path in [*notes.implicit, *notes.late] if top else ():
            own = self._own(path)
            unpacked = self._chain.unpacked(top, path)
            if unpacked == own and not self._keeps_time(path, own, unpacked):
                continue
            if DEFAULT in unpacked.xattrs and DEFAULT not in own.xattrs:
                raise Unsupported(
                    f"directory {shown(path)}: no entry in its layer, and a default ACL in a lower one"
                )
            self._corrected[path] = unpacked
        for path in () if top else notes.whiteouts:
            self._hiding[path] = self._own(path)

    def _keeps_time(self, path: bytes, own: Attributes, unpacked: Attributes) -> bool:
        """Whether unpacking gives another time that lasts: copied, and not undone by what is made inside."""
        if (own.mtime, own.mtime_ns) == (unpacked.mtime, unpacked.mtime_ns):
            return False
        entry = self._last.lookup(path)
        return entry is not None and next(self._last.children(entry), None) is None

    def add_links(self) -> None:
        """The last layer's hard links into lower layers."""
        for note in self._last.notes.links:
            self._link(note)

    def _link(self, note: LinkNote) -> None:
        place = self._chain.parents.follow(note.target)
        if place is None or place[1].entry.is_dir:
            what = "a directory" if place else "what no layer below has"
            raise Corrupt(f"hard link {shown(note.paths[0])}: to {what}, {shown(note.target)}")
        target, found = place
        node = self._node(found)
        if any(part in _NO_NAMES for path in note.paths for part in path.split(b"/")):
            raise Corrupt(f"layer file: malformed path of a link to {shown(note.target)}")
        relink(node, note)
        self._linked.update(dict.fromkeys(note.paths, node))
        if self._cover(target) is _Cover.SHOWS:
            self._linked[target] = node

    def _node(self, found: Found) -> Node:
        """The inode to write for a linked one; the same for all its names."""
        key = found.reader.path, found.entry.nid
        node = self._nodes.get(key)
        if node is None:
            entry, given = found.entry, Attributes.of(found.entry)
            node = self._nodes[key] = Node(
                given.mode, given.uid, given.gid, given.mtime, given.mtime_ns, entry.rdev, entry.size,
                target=entry.target, xattrs=given.xattrs or None,
            )  # fmt: skip
            self.files[node] = found
        return node

    def _own(self, path: bytes) -> Attributes:
        """The attributes of a directory of the last layer as its file has them."""
        entry = self._last.lookup(path)
        if entry is None or not entry.is_dir:
            raise Corrupt(f"layer file: no directory at {shown(path)}, which its notes name")
        return Attributes.of(entry)

    def _cover(self, path: bytes) -> Entry | _Cover:
        """What the last layer has at ``path``, or does to what lower layers have there."""
        here = parent_of(path)
        if here not in self._covers:
            here = b""
        cover = self._covers[here]
        for part in path[len(here) :].lstrip(b"/").split(b"/") if path else ():
            here = here + b"/" + part if here else part
            known = self._covers.get(here)
            cover = self._covers[here] = known or self._covered(cover, here, part)
        return cover

    def _covered(self, above: Entry | _Cover, path: bytes, name: bytes) -> Entry | _Cover:
        if isinstance(above, _Cover):
            return above
        if path in self._new_links or not above.is_dir:
            return _Cover.HIDES
        entry = self._last.child(above, name)
        return entry or (_Cover.HIDES if above.is_opaque else _Cover.SHOWS)

    def tree(self) -> Node:
        """The root of the seam."""
        root = self._directories[b""] = _directory(self._seen(b""))
        for path in sorted({*self._corrected, *self._hiding, *self._linked}):
            parts = path.split(b"/") if path else []
            node = self._linked.get(path)
            name = parts.pop() if node else b""
            children = self._children(parts)
            if node:
                children[name] = node
        return root

    def _children(self, parts: list[bytes]) -> dict[bytes, Node]:
        """The names in the directory at ``parts``, made with all above it where they are missing."""
        node, path = self._directories[b""], b""
        for part in parts:
            path = path + b"/" + part if path else part
            below = self._directories.get(path)
            if below is None:
                below = self._directories[path] = _directory(
                    self._corrected.get(path) or self._hiding.get(path) or self._seen(path)
                )
                assert node.children is not None
                node.children[part] = below
            node = below
        assert node.children is not None
        return node.children

    def _seen(self, path: bytes) -> Attributes:
        """The attributes that a container sees of a directory."""
        cover = self._cover(path)
        if isinstance(cover, Entry) and cover.is_dir:
            return self._chain.unpacked(self._chain.top, path)
        found = self._chain.parents.lookup(path) if cover is _Cover.SHOWS else None
        if found is None or not found.entry.is_dir:
            raise Corrupt(f"seam: no directory at {shown(path)}")
        return Attributes.of(found.entry)


def _directory(given: Attributes) -> Node:
    return Node(
        given.mode,
        given.uid,
        given.gid,
        given.mtime,
        given.mtime_ns,
        xattrs=given.xattrs or None,
        children={},
    )


def _copy_data(
    fd: int, files: Mapping[Node, Found], limits: Limits, check_space: Callable[[int], None]
) -> int:
    """Copy the data of ``files`` to 512-aligned places from DATA_OFFSET on, noting these; returns the end."""
    at = DATA_OFFSET
    for node, found in files.items():
        placed: list[Extent] = []
        for logical, length, source in found.reader.extents(found.entry):
            total = at - DATA_OFFSET + length
            if total > limits.tar_bytes:
                raise Corrupt(f"links into lower layers: more than {limits.tar_bytes} bytes of data")
            check_space(total)
            _copy(found.reader.fileno(), source, length, fd, at)
            placed.append((logical, length, at))
            at = (at + length + BLOCK - 1) & -BLOCK
        whole = len(placed) == 1 and placed[0][:2] == (0, node.size)
        node.data = placed[0][2] if whole else placed if node.size else None
    return at


def _copy(source_fd: int, source: int, length: int, fd: int, at: int) -> None:
    end = at + length
    while at < end:
        piece = os.pread(source_fd, min(_PIECE_BYTES, end - at), source)
        if not piece:
            raise Corrupt("layer file: ends before the data of a linked file")
        write_at(fd, piece, at)
        at += len(piece)
        source += len(piece)


def _chain_id(chain: Chain) -> Digest:
    diff_ids = []
    for index in range(chain.top + 1):
        diff_id = chain.layer(index).header.diff_id
        if diff_id is None:
            raise Corrupt("a seam in the place of a layer file")
        diff_ids.append(Digest.parse(diff_id))
    return chain_ids(diff_ids)[-1]
