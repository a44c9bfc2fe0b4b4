"""The tree of one layer, as containerd's overlay unpack would leave it in an upper directory.

Members are applied in order. The rules are those of containerd's ``archive.Apply`` with
``OverlayConvertWhiteout`` (the same from 1.6 to 2.4): a member replaces what is there, a directory member
merges with a directory; a parent is made when missing; symbolic links in a member's parent, and in a link's,
are followed inside the layer; ``.wh.x`` becomes a 0:0 character device ``x`` and ``.wh..wh..opq`` an
attribute; a directory's time is set at the end. Nothing is ever written outside: paths are only looked up in
this tree.

A bottom layer is unpacked by other rules: there ``.wh.x`` removes ``x``. Where both agree, or one refuses,
this tree serves both, and :class:`Notes` says which place is refused.

Where the reference refuses a layer, so do we (Corrupt, or Unsupported for types), except:

* A link to a path that this layer does not have (ENOENT there) becomes a :class:`LinkNote`, for the layers
  below to answer. But a link below a whiteout, or into an opaque directory, of this layer stays Corrupt.
* Old GNU sparse files (type ``S``, unhandled there) are regular files.
* Attributes beyond ext4's one block (ENOSPC there; xfs takes them) are kept, up to 256 KiB.
* Paths of 4,025 to 4,095 bytes are kept; there the path of the snapshot's folder counts too.

And where the reference does one thing, and this module another:

* Device numbers out of range are cut to 12 and 20 bits, as up to containerd 2.3; 2.4 refuses some.
* A parent through an absolute symbolic link behind another link: the reference looks at the host's files
  there. Here such a path does not exist.
* In a bottom layer, an opaque mark removes the directories without entry below it. Here the layer is refused
  as a bottom layer.
* Whiteouts, and directories without entry, have the time of unpacking there. Here 0.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from imagecached.errors import Corrupt, Unsupported
from imagecached.layers import attributes, notes, tar
from imagecached.layers.limits import Limits, exceeded, shown
from imagecached.layers.node import Extent, Node, is_whiteout
from imagecached.layers.notes import LinkNote, Notes, relink
from imagecached.layers.paths import Paths, clean
from imagecached.layers.tar import Member

__all__ = ["Extent", "LinkNote", "Node", "Notes", "Tree", "clean", "is_whiteout", "relink"]

_WHITEOUT: Final = b".wh."
_OPAQUE_MARK: Final = b".wh..wh..opq"
_NAME_BYTES: Final = 255
_TARGET_BYTES: Final = 4095
_DOTS: Final = (b"", b".", b"..")
_DEVICES: Final = {tar.CHARACTER: stat.S_IFCHR, tar.BLOCK_DEVICE: stat.S_IFBLK, tar.FIFO: stat.S_IFIFO}


class Tree:
    """Builds the tree: :meth:`apply` each member, then :meth:`finish` once."""

    def __init__(self, limits: Limits) -> None:
        self.root = Node(stat.S_IFDIR | 0o755, children={})
        self._limits = limits
        self._paths = Paths(self.root)
        # directory part of a name, as written → that directory
        self._parents: dict[bytes, Node] = {b"": self.root}
        self._implicit: set[Node] = set()  # directories made without entry; some may be gone again
        self._late: set[Node] = set()  # directories made without entry that got one later; likewise
        self._placeholders: list[Node] = []  # links into lower layers; no S_IFMT bits
        self._markers: set[Node] = set()  # whiteouts made by a name, not by a device
        self._whiteouts = False  # there may be any
        self._times: list[tuple[bytes, int, int]] = []  # of directory members, in order
        # a directory or symbolic link was replaced: names may mean something else than before
        self._detached = False
        self._text = 0  # bytes of names, link targets and attributes so far
        self._bottom_only = ""
        self._never_bottom = ""

    def apply(self, member: Member) -> None:
        """Apply the next member. Corrupt, Unsupported."""
        name = member.name
        self._text += len(name) + len(member.link)
        if self._text > self._limits.text_bytes:
            raise exceeded("text_bytes", self._limits.text_bytes, name)
        head, _, base = name.rpartition(b"/")
        if not base:  # directories are written with a slash behind
            head, _, base = name.rstrip(b"/").rpartition(b"/")
        if base in _DOTS or len(name) > self._limits.path_bytes:
            parts = clean(name)
            if not parts:
                return  # the root itself: the reference leaves it alone
            base = parts.pop()
            head = b"/".join(parts)
            if len(head) + len(base) >= self._limits.path_bytes:
                raise exceeded("path_bytes", self._limits.path_bytes, name)
        parent = self._parents.get(head)
        if parent is None:
            parent = self._parent(head, name)
        if base.startswith(_WHITEOUT):
            self._whiteout(member, parent, base)
            return
        if len(base) > _NAME_BYTES and member.kind != tar.GLOBAL:
            raise _too_long(name)
        children = parent.children
        assert children is not None
        existing = children.get(base)
        if existing is not None:
            if member.kind == tar.DIRECTORY and existing.children is not None:
                self._merge(member, existing)
                return
            self._remove(children, base, existing)
        self._make(member, parent, base, children)

    def finish(self) -> Notes:
        """The notes; afterwards :attr:`root` is final. Corrupt."""
        if self._detached:
            self._set_times()
        if self._bottom_only and self._never_bottom:
            raise Corrupt(self._bottom_only)
        if not (self._implicit or self._late or self._placeholders or self._whiteouts):
            return Notes(bottom_only=self._bottom_only, never_bottom=self._never_bottom)
        return notes.collect(
            self.root,
            self._implicit,
            self._late,
            self._placeholders,
            bottom_only=self._bottom_only,
            never_bottom=self._never_bottom,
        )

    def _make(self, member: Member, parent: Node, base: bytes, children: dict[bytes, Node]) -> None:
        kind = member.kind
        if kind == tar.FILE:
            node = Node(
                0o100000 | member.mode, member.uid, member.gid, member.mtime, member.mtime_ns,
                0, member.size, member.data,
            )  # fmt: skip
        elif kind == tar.DIRECTORY:
            node = Node(
                0o040000 | member.mode, member.uid, member.gid, member.mtime, member.mtime_ns, children={}
            )
            self._times.append((member.name, member.mtime, member.mtime_ns))
        elif kind == tar.SYMLINK:
            node = _symlink(member)
        elif kind in _DEVICES:
            node = _device(member)
            self._whiteouts |= is_whiteout(node)
        elif kind == tar.LINK:
            children[base] = self._linked(member, parent, base)
            return
        elif kind == tar.GLOBAL:
            return
        else:
            raise Unsupported(f"tar member {shown(member.name)}: type {kind!r}")
        if member.xattrs:
            self._text += sum(len(key) + len(value) for key, value in member.xattrs.items())
        if member.xattrs or parent.xattrs or member.uid < 0 or member.gid < 0:
            _settle(member, parent, node)
        children[base] = node

    def _merge(self, member: Member, node: Node) -> None:
        """A directory member for a directory that is there."""
        _set_all(member, node)
        if node in self._implicit:
            self._implicit.remove(node)
            self._late.add(node)
        self._times.append((member.name, member.mtime, member.mtime_ns))

    def _remove(self, children: dict[bytes, Node], base: bytes, node: Node) -> None:
        del children[base]
        if node.children is not None or stat.S_ISLNK(node.mode):
            self._detached = True
            self._parents = {b"": self.root}

    # Whiteouts

    def _whiteout(self, member: Member, parent: Node, base: bytes) -> None:
        if base == _OPAQUE_MARK:
            self._check_opaque(member, parent)
            parent.xattrs = {**(parent.xattrs or {}), attributes.OPAQUE: b"y"}
            return
        hidden = base[len(_WHITEOUT) :]
        if hidden in _DOTS:
            raise Corrupt(f"tar member {shown(member.name)}: whiteout of nothing")
        if len(hidden) > _NAME_BYTES:
            raise _too_long(member.name)
        children = parent.children
        assert children is not None
        existing = children.get(hidden)
        if existing is not None:
            self._bottom_only = f"tar member {shown(member.name)}: whiteout of what the same layer holds"
            self._remove(children, hidden, existing)
        node = children[hidden] = Node(stat.S_IFCHR, max(member.uid, 0), max(member.gid, 0))
        self._markers.add(node)
        self._whiteouts = True

    def _check_opaque(self, member: Member, directory: Node) -> None:
        """In a bottom layer the mark removes directories without entry, and what is in them. Not here."""
        stack = [directory] if self._implicit else []
        while stack:
            children = stack.pop().children
            for node in (children or {}).values():
                self._paths.step(member.name)
                if node in self._implicit:
                    self._never_bottom = (
                        f"tar member {shown(member.name)}: opaque above a directory without entry"
                    )
                    return
                if node.children is not None:
                    stack.append(node)

    # Links

    def _linked(self, member: Member, parent: Node, base: bytes) -> Node:
        node = self._target(member, parent, base)
        if node in self._markers:
            self._never_bottom = f"tar member {shown(member.name)}: link to a whiteout, {shown(member.link)}"
        _set_all(member, node)
        return node

    def _target(self, member: Member, parent: Node, base: bytes) -> Node:
        """The inode to link, or a placeholder when only a lower layer can have it."""
        head, slash, last = member.link.rpartition(b"/")
        parts = clean(b"/".join([*self._paths.resolve(head + slash, member.name), last]))
        node, opaque = self.root, False
        for depth, part in enumerate(parts, 1):
            if node.children is None:
                raise Corrupt(f"tar member {shown(member.name)}: link below a file, {shown(member.link)}")
            opaque |= node.xattrs is not None and attributes.OPAQUE in node.xattrs
            below = node.children.get(part)
            if below is None:
                if opaque or (node is parent and part == base and depth == len(parts)):
                    raise Corrupt(f"tar member {shown(member.name)}: link to nothing, {shown(member.link)}")
                below = Node(0, -1, -1, target=b"/".join(parts))
                self._placeholders.append(below)
                return below
            node = below
        if node.children is not None:
            raise Corrupt(f"tar member {shown(member.name)}: link to a directory, {shown(member.link)}")
        return node

    # Directories

    def _parent(self, head: bytes, name: bytes) -> Node:
        """The directory that ``head`` means now, made if need be."""
        parts = self._paths.resolve(b"/".join(clean(head)), name)
        if len(parts) >= self._limits.depth:
            raise exceeded("depth", self._limits.depth, name)
        node = self.root
        for part in parts:
            assert node.children is not None
            below = node.children.get(part)
            if below is None:
                below = self._implied(node, part, name)
            elif below in self._markers:
                self._bottom_only = f"tar member {shown(name)}: its parent is a whiteout of the same layer"
                below = self._implied(node, part, name)
            elif below.children is None:
                raise Corrupt(f"tar member {shown(name)}: its parent is not a directory")
            node = below
        self._parents[head] = node
        return node

    def _implied(self, parent: Node, base: bytes, name: bytes) -> Node:
        """Make a directory without entry."""
        if len(self._implicit) >= self._limits.entries:
            raise exceeded("entries", self._limits.entries, name)
        if len(base) > _NAME_BYTES:
            raise _too_long(name)
        node = Node(stat.S_IFDIR | 0o755, 0, parent.gid if parent.mode & stat.S_ISGID else 0, children={})
        attributes.inherit(node, parent)
        assert parent.children is not None
        parent.children[base] = node
        self._implicit.add(node)
        return node

    def _set_times(self) -> None:
        """Set the directories' times on whatever their names mean at the end, as the reference does."""
        for name, mtime, mtime_ns in self._times:
            found = self._paths.find(self._paths.resolve(b"/".join(clean(name)), name), name)
            if found is None:
                raise Corrupt(f"tar member {shown(name)}: the directory is gone at the end of the layer")
            if found in self._markers:
                self._never_bottom = (
                    f"tar member {shown(name)}: the directory is a whiteout at the end of the layer"
                )
            found.mtime, found.mtime_ns = mtime, mtime_ns


def _too_long(name: bytes) -> Corrupt:
    return Corrupt(f"tar member {shown(name)}: name longer than {_NAME_BYTES} bytes")


def _set_all(member: Member, node: Node) -> None:
    attributes.set_all(
        node,
        member.name,
        mode=member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=(member.mtime, member.mtime_ns),
        xattrs=member.xattrs,
    )


def _settle(member: Member, parent: Node, node: Node) -> None:
    """The rare part of a new inode's attributes: ids not given, a default ACL above, extended attributes."""
    node.uid = max(node.uid, 0)
    if node.gid < 0:
        node.gid = parent.gid if parent.mode & stat.S_ISGID else 0
    attributes.inherit(node, parent)
    if member.xattrs:
        attributes.set_xattrs(node, member.name, member.xattrs)
    if node.xattrs and not stat.S_ISLNK(node.mode):
        attributes.chmod(node, member.mode)


def _symlink(member: Member) -> Node:
    if not 0 < len(member.link) <= _TARGET_BYTES:
        raise Corrupt(f"tar member {shown(member.name)}: link target of {len(member.link)} bytes")
    mode = stat.S_IFLNK | 0o777
    return Node(mode, member.uid, member.gid, member.mtime, member.mtime_ns, target=member.link)


def _device(member: Member) -> Node:
    rdev = 0
    if member.kind != tar.FIFO:
        rdev = os.makedev(member.major & 0xFFF, member.minor & 0xFFFFF)  # what fits into the kernel's dev_t
    mode = _DEVICES[member.kind] | member.mode
    return Node(mode, member.uid, member.gid, member.mtime, member.mtime_ns, rdev)
