"""The tree of one layer, as containerd's overlay unpack would leave it in an upper directory.

Members are applied in order. The rules are those of containerd's ``archive.Apply`` with ``OverlayConvertWhiteout`` (the same from 1.6 to
2.4): a member replaces what is there, a directory member merges with a directory; a parent is made when missing; symbolic links in a
member's parent, and in a link's, are followed inside the layer; ``.wh.x`` becomes a 0:0 character device ``x`` and ``.wh..wh..opq`` an
attribute; a directory's time is set at the end. Nothing is ever written outside: paths are only looked up in this tree.

Where the reference refuses a layer, so do we (Corrupt, or Unsupported for types), except:

==============================================  =================================  =============================================
member                                          containerd                         here
==============================================  =================================  =============================================
link to a path this layer does not have         refuses (ENOENT)                   :class:`LinkNote`, answered by the layers below
whiteout of what this layer whited out before   refuses (EEXIST)                   accepted, nothing to do
old GNU sparse file (type ``S``)                refuses (unhandled type)           a regular file
attributes above ext4's one block               refuses (ENOSPC; xfs takes them)   kept, to 256 KiB
path of 4,025…4,096 bytes                       refuses (its root comes on top)    kept
==============================================  =================================  =============================================

and these it accepts, with a result that we refuse or leave out:

==============================================  =================================  =============================================
link to a whiteout of the same layer            a second whiteout                  Corrupt
link to what a whiteout or opaque mark of       refuses (ENOENT)                   Corrupt, never a link into a lower layer
this layer hides
parent through an absolute symbolic link        looks at the host's files          such a path does not exist
behind another link
``.wh.x`` after ``x`` in a bottom layer         removes ``x``                      Corrupt, as containerd in any other layer
opaque mark in a bottom layer                   removes parents without entry      keeps them
time of whiteouts and of directories without    the moment of unpacking            0
entry
==============================================  =================================  =============================================
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers import attributes, tar
from imagecached.layers.limits import Limits, exceeded, shown
from imagecached.layers.tar import Member

Extent = tuple[int, int, int]
"""One piece of a sparse file: (logical offset, length, byte offset in the layer file)."""

_WHITEOUT: Final = b".wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_NAME_BYTES: Final = 255
_TARGET_BYTES: Final = 4095
_LINKS: Final = 255  # symbolic links followed for one path
_STEPS: Final = 10_000_000  # components looked up for all paths with links or dots, plus:
_STEPS_PER_ENTRY: Final = 64
_DOTS: Final = (b"", b".", b"..")
_DEVICES: Final = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}


@dataclass(slots=True, eq=False)
class Node:
    """One inode. Hard links are one Node under several names."""

    mode: int  # st_mode with its S_IFMT part
    uid: int = 0
    gid: int = 0
    mtime: int = 0  # seconds since the epoch
    mtime_ns: int = 0
    rdev: int = 0  # kernel's encoding (os.makedev)
    size: int = 0  # regular files: logical size in bytes
    data: int | list[Extent] | None = None  # regular files: byte offset in the layer file, or the extents; None: no data
    target: bytes = b""  # symbolic links
    xattrs: dict[bytes, bytes] | None = None  # full names: b"user.x", b"trusted.overlay.opaque"
    children: dict[bytes, Node] | None = None  # directories only
    nlink: int = 0  # set by the EROFS writer
    nid: int = 0  # likewise; 0 outside of it


class LinkNote(msgspec.Struct, frozen=True, array_like=True):
    """A hard link whose target is not in its own layer: some layer below must have it.

    ``paths``: every name of this inode in the layer. The attributes are those of the (last) link member: unpacking sets them on the
    linked inode, see :func:`relink`. ``uid``, ``gid`` -1: keep the target's.
    """

    paths: list[bytes]
    target: bytes  # symbolic links of this layer are resolved in it, those of lower layers not
    mode: int  # permission bits only
    uid: int
    gid: int
    mtime: int
    mtime_ns: int
    xattrs: dict[bytes, bytes]


class Notes(msgspec.Struct, frozen=True):
    """What only a parent can answer about a layer. Paths are bytes without leading slash, sorted; b"" is the root."""

    implicit: list[bytes] = msgspec.field(default_factory=list)  # directories without entry: 0755 root:root, mtime 0
    links: list[LinkNote] = msgspec.field(default_factory=list)
    whiteouts: list[bytes] = msgspec.field(default_factory=list)  # directories that hold whiteouts


def is_whiteout(node: Node) -> bool:
    """Whether overlayfs takes this inode for a whiteout."""
    return node.rdev == 0 and stat.S_ISCHR(node.mode)


def relink(node: Node, note: LinkNote) -> None:
    """Do to the linked inode what unpacking the link member does to it."""
    attributes.set_all(
        node, note.paths[0], mode=note.mode, uid=note.uid, gid=note.gid,
        mtime=(note.mtime, note.mtime_ns), xattrs=note.xattrs,
    )  # fmt: skip


class Tree:
    """Builds the tree: :meth:`apply` each member, then :meth:`finish` once."""

    def __init__(self, limits: Limits) -> None:
        self.root = Node(stat.S_IFDIR | 0o755, children={})
        self._limits = limits
        self._parents: dict[bytes, Node] = {b"": self.root}  # directory part of a name, as written → that directory
        self._implicit: set[Node] = set()
        self._links: list[Node] = []  # placeholders of links into lower layers; no S_IFMT bits
        self._whiteouts = False
        self._times: list[tuple[bytes, int, int]] = []  # of directory members, in order
        self._detached = False  # a directory or symbolic link was replaced: names may mean something else than before
        self._entries = 0
        self._made = 0  # directories without entry
        self._steps = 0
        self._make: dict[bytes, Callable[[Member, Node, bytes], Node]] = {
            tar.SYMLINK: self._symlink,
            tar.CHARACTER: self._device,
            tar.BLOCK_DEVICE: self._device,
            tar.FIFO: self._device,
            tar.LINK: self._link,
        }

    def apply(self, member: Member) -> None:
        """Apply the next member. Corrupt, Unsupported."""
        self._entries += 1
        name = member.name
        if len(name) > self._limits.path_bytes:
            raise exceeded("path_bytes", self._limits.path_bytes, name)
        head, _, base = name.rpartition(b"/")
        if not base:  # directories are written with a slash behind
            head, _, base = name.rstrip(b"/").rpartition(b"/")
        if base in _DOTS:
            parts = clean(name)
            if not parts:
                return  # the root itself: the reference leaves it alone
            base = parts.pop()
            head = b"/".join(parts)
        parent = self._parents.get(head)
        if parent is None:
            parent = self._parent(head, name)
        if len(base) > _NAME_BYTES:
            raise Corrupt(f"tar member {shown(name)}: name longer than {_NAME_BYTES} bytes")
        if base.startswith(_WHITEOUT):
            self._whiteout(member, parent, base)
            return
        children = parent.children
        assert children is not None
        existing = children.get(base)
        kind = member.kind
        if existing is not None:
            if kind == tar.DIRECTORY and existing.children is not None:
                self._merge(member, existing)
                return
            self._remove(children, base, existing)
        if kind == tar.FILE:
            node = Node(
                0o100000 | member.mode, member.uid, member.gid, member.mtime, member.mtime_ns, 0, member.size, member.data
            )
        elif kind == tar.DIRECTORY:
            node = Node(0o040000 | member.mode, member.uid, member.gid, member.mtime, member.mtime_ns, children={})
            self._times.append((name, member.mtime, member.mtime_ns))
        elif kind in self._make:
            node = self._make[kind](member, parent, base)
            if kind == tar.LINK:
                children[base] = node
                return
        elif kind == tar.GLOBAL:
            return
        else:
            raise Unsupported(f"tar member {shown(name)}: type {kind!r}")
        if member.xattrs or parent.xattrs or member.uid < 0 or member.gid < 0:
            self._settle(member, parent, node)
        children[base] = node

    def finish(self) -> Notes:
        """The notes; afterwards :attr:`root` is final."""
        if self._detached:
            self._replay_times()
        if not (self._implicit or self._links or self._whiteouts):
            return Notes()
        return self._note()

    def _merge(self, member: Member, node: Node) -> None:
        attributes.set_all(
            node, member.name, mode=member.mode, uid=member.uid, gid=member.gid,
            mtime=(member.mtime, member.mtime_ns), xattrs=member.xattrs,
        )  # fmt: skip
        self._implicit.discard(node)
        self._times.append((member.name, member.mtime, member.mtime_ns))

    def _settle(self, member: Member, parent: Node, node: Node) -> None:
        """The rare part of a new inode's attributes: ids not given, a default ACL above, extended attributes."""
        if node.uid < 0:
            node.uid = 0
        if node.gid < 0:
            node.gid = parent.gid if parent.mode & stat.S_ISGID else 0
        attributes.inherit(node, parent)
        if member.xattrs:
            attributes.set_xattrs(node, member.name, member.xattrs)
        if node.xattrs and not stat.S_ISLNK(node.mode):
            attributes.chmod(node, member.mode)

    def _remove(self, children: dict[bytes, Node], base: bytes, node: Node) -> None:
        del children[base]
        if node.children is not None or stat.S_ISLNK(node.mode):
            self._detached = True
            self._parents = {b"": self.root}

    # Members that are neither file nor directory

    def _symlink(self, member: Member, _parent: Node, _base: bytes) -> Node:
        if not 0 < len(member.link) <= _TARGET_BYTES:
            raise Corrupt(f"tar member {shown(member.name)}: link target of {len(member.link)} bytes")
        return Node(
            stat.S_IFLNK | 0o777, member.uid, member.gid, member.mtime, member.mtime_ns, target=member.link
        )

    def _device(self, member: Member, _parent: Node, _base: bytes) -> Node:
        if not (0 <= member.major < 1 << 32 and 0 <= member.minor < 1 << 32):
            raise Corrupt(f"tar member {shown(member.name)}: device number {member.major}:{member.minor}")
        rdev = os.makedev(member.major & 0xFFF, member.minor & 0xFFFFF)  # what fits into the kernel's dev_t
        node = Node(
            _DEVICES[member.kind] | member.mode, member.uid, member.gid, member.mtime, member.mtime_ns,
            0 if member.kind == tar.FIFO else rdev,
        )  # fmt: skip
        self._whiteouts |= is_whiteout(node)
        return node

    def _whiteout(self, member: Member, parent: Node, base: bytes) -> None:
        if base == _OPAQUE_MARK:
            parent.xattrs = {**(parent.xattrs or {}), attributes.OPAQUE: b"y"}
            return
        hidden = base[len(_WHITEOUT) :]
        if hidden in _DOTS:
            raise Corrupt(f"tar member {shown(member.name)}: whiteout of nothing")
        assert parent.children is not None
        existing = parent.children.get(hidden)
        if existing is None:
            parent.children[hidden] = Node(stat.S_IFCHR, max(member.uid, 0), max(member.gid, 0))
            self._whiteouts = True
        elif not is_whiteout(existing):
            raise Corrupt(f"tar member {shown(member.name)}: whiteout of what the same layer holds")

    def _link(self, member: Member, parent: Node, base: bytes) -> Node:
        node = self._link_target(member, parent, base)
        attributes.set_all(
            node, member.name, mode=member.mode, uid=member.uid, gid=member.gid,
            mtime=(member.mtime, member.mtime_ns), xattrs=member.xattrs,
        )  # fmt: skip
        return node

    def _link_target(self, member: Member, parent: Node, base: bytes) -> Node:
        """The inode to link, or a placeholder when only a lower layer can have it."""
        head, slash, last = member.link.rpartition(b"/")
        parts = clean(b"/".join([*self._resolve(head + slash, member.name), last]))
        node, opaque = self.root, False
        for depth, part in enumerate(parts, 1):
            if node.children is None:
                raise Corrupt(f"tar member {shown(member.name)}: link below a file, to {shown(member.link)}")
            opaque |= node.xattrs is not None and attributes.OPAQUE in node.xattrs
            below = node.children.get(part)
            if below is None:
                if opaque or (node is parent and part == base and depth == len(parts)):
                    raise Corrupt(f"tar member {shown(member.name)}: link to what the layer hides, {shown(member.link)}")
                return self._placeholder(b"/".join(parts))
            node = below
        if node.children is not None or is_whiteout(node):
            raise Corrupt(f"tar member {shown(member.name)}: link to a directory or whiteout, {shown(member.link)}")
        return node

    def _placeholder(self, target: bytes) -> Node:
        node = Node(0, -1, -1, target=target)
        self._links.append(node)
        return node

    # Paths

    def _parent(self, head: bytes, name: bytes) -> Node:
        """The directory that ``head`` means now, made if need be."""
        parts = self._resolve(b"/".join(clean(head)), name)
        if len(parts) >= self._limits.depth:
            raise exceeded("depth", self._limits.depth, name)
        node = self.root
        for part in parts:
            assert node.children is not None
            below = node.children.get(part)
            if below is None:
                below = self._implied(node, part, name)
            elif below.children is None:
                raise Corrupt(f"tar member {shown(name)}: its parent is not a directory")
            node = below
        self._parents[head] = node
        return node

    def _implied(self, parent: Node, base: bytes, name: bytes) -> Node:
        self._made += 1
        if self._made > self._limits.entries:
            raise exceeded("entries", self._limits.entries, name)
        if len(base) > _NAME_BYTES:
            raise Corrupt(f"tar member {shown(name)}: name longer than {_NAME_BYTES} bytes")
        node = Node(stat.S_IFDIR | 0o755, 0, parent.gid if parent.mode & stat.S_ISGID else 0, children={})
        attributes.inherit(node, parent)
        assert parent.children is not None
        parent.children[base] = node
        self._implicit.add(node)
        return node

    def _resolve(self, path: bytes, name: bytes) -> list[bytes]:
        """The components of ``path`` with symbolic links followed inside the layer; what is missing stays as it is.

        As in the reference, ``..`` in a link's target is taken from the text of the path that led to it, and the path is walked again
        until no link is left in it.
        """
        walked = 0
        while True:
            before = walked
            parts: list[bytes] = []
            node: Node | None = self.root
            for part in path.split(b"/"):
                if part in (b"", b"."):
                    continue
                self._step(name)
                if part == b"..":
                    parts = parts[:-1]
                    node = self._follow(parts, name)
                    continue
                below = self._child(node, part, name)
                if below is not None and stat.S_ISLNK(below.mode):
                    walked += 1
                    if walked > _LINKS:
                        raise Corrupt(f"tar member {shown(name)}: too many symbolic links")
                    parts = clean(below.target if below.target.startswith(b"/") else b"/".join([*parts, below.target]))
                    node = self._follow(parts, name)
                else:
                    parts.append(part)
                    node = below
            if walked == before:
                return parts
            path = b"/".join(parts)

    def _follow(self, parts: list[bytes], name: bytes) -> Node | None:
        """What the kernel would find at ``parts``, links followed; None where nothing is, or outside of the layer."""
        todo = parts[::-1]
        trail = [self.root]
        links = 0
        while todo:
            part = todo.pop()
            self._step(name)
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(trail) == 1:
                    return None
                trail.pop()
                continue
            below = self._child(trail[-1], part, name)
            if below is None:
                return None
            if stat.S_ISLNK(below.mode):
                links += 1
                if links > 40:
                    raise Corrupt(f"tar member {shown(name)}: too many symbolic links")
                if below.target.startswith(b"/"):
                    return None
                todo.extend(below.target.split(b"/")[::-1])
            else:
                trail.append(below)
        return trail[-1]

    def _child(self, node: Node | None, part: bytes, name: bytes) -> Node | None:
        if node is None:
            return None
        if node.children is None:
            raise Corrupt(f"tar member {shown(name)}: its parent is not a directory")
        return node.children.get(part)

    def _step(self, name: bytes) -> None:
        self._steps += 1
        if self._steps > _STEPS + _STEPS_PER_ENTRY * self._entries:
            raise Corrupt(f"tar member {shown(name)}: too many symbolic links in the paths of the layer")

    # The end

    def _replay_times(self) -> None:
        """Set the directories' times again, on whatever their names mean at the end; that is when the reference sets them."""
        for name, mtime, mtime_ns in self._times:
            found: Node | None = self.root
            for part in self._resolve(b"/".join(clean(name)), name):
                found = self._child(found, part, name)
            if found is None:
                raise Corrupt(f"tar member {shown(name)}: the directory is gone at the end of the layer")
            found.mtime, found.mtime_ns = mtime, mtime_ns

    def _note(self) -> Notes:
        """Walk once; collect the notes and take the placeholders out."""
        implicit: list[bytes] = []
        whiteouts: list[bytes] = []
        links: dict[Node, list[bytes]] = {node: [] for node in self._links}
        stack = [(b"", self.root)]
        while stack:
            path, directory = stack.pop()
            assert directory.children is not None
            prefix = path + b"/" if path else b""
            if directory in self._implicit:
                implicit.append(path)
            held = False
            gone = []
            for base, node in directory.children.items():
                if node.children is not None:
                    stack.append((prefix + base, node))
                elif not node.mode & 0o170000:
                    links[node].append(prefix + base)
                    gone.append(base)
                elif node.rdev == 0 and is_whiteout(node):
                    held = True
            if held:
                whiteouts.append(path)
            for base in gone:
                del directory.children[base]
        found = [_link_note(node, sorted(paths)) for node, paths in links.items() if paths]
        return Notes(sorted(implicit), sorted(found, key=lambda note: note.paths), sorted(whiteouts))


def _link_note(node: Node, paths: list[bytes]) -> LinkNote:
    return LinkNote(
        paths, node.target, stat.S_IMODE(node.mode), node.uid, node.gid, node.mtime, node.mtime_ns, node.xattrs or {}
    )


def clean(name: bytes) -> list[bytes]:
    """The components of ``/name`` after ``.`` and ``..`` are taken out of its text; leading ``..`` stay at the root."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return parts
