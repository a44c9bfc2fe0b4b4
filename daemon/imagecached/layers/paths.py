"""Names of members to places in the tree: ``.`` and ``..`` out, symbolic links followed inside the layer.

The reference resolves with ``fs.RootPath`` of continuity: link by link in the text of the path, until no
link is left in it. The outcome differs from the kernel's only where a link's target climbs out of another
link, and is kept the same here.
"""

from __future__ import annotations

import stat
from typing import Final

from imagecached.errors import Corrupt
from imagecached.layers.limits import shown
from imagecached.layers.node import Node, is_whiteout

_LINKS: Final = 255  # symbolic links followed for one path
_KERNEL_LINKS: Final = 40
_STEPS: Final = 10_000_000  # components looked up in the life of a layer, plus:
_STEPS_PER_NAME: Final = 64


def clean(name: bytes) -> list[bytes]:
    """The components of ``/name``, ``.`` and ``..`` taken out of its text; ``..`` at the root stays there."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return parts


class Paths:
    """Resolves paths in the tree below ``root`` as it is at that moment.

    The work is bounded in total, because every path can cost 255 links of a thousand components. ``name`` is
    the member for messages.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._left = _STEPS

    def resolve(self, path: bytes, name: bytes) -> list[bytes]:
        """The components of ``path``, symbolic links followed; what is missing stays as written. Corrupt."""
        self._left += _STEPS_PER_NAME
        walked = 0
        while True:
            links, parts = self._pass(path, name)
            if not links:
                return parts
            walked += links
            if walked > _LINKS:
                raise Corrupt(f"tar member {shown(name)}: too many symbolic links")
            path = b"/".join(parts)

    def find(self, parts: list[bytes], name: bytes) -> Node | None:
        """What lies at ``parts``, no link followed; None where nothing is. Corrupt below a file."""
        node: Node | None = self._root
        for part in parts:
            node = self._child(node, part, name)
        return node

    def step(self, name: bytes) -> None:
        """Count one look-up against the layer's bound."""
        self._left -= 1
        if self._left < 0:
            raise Corrupt(
                f"tar member {shown(name)}: too many symbolic links or nested directories in the layer"
            )

    def _pass(self, path: bytes, name: bytes) -> tuple[int, list[bytes]]:
        """Replace the links in the text of ``path`` once: how many there were, and the new components."""
        links = 0
        parts: list[bytes] = []
        node: Node | None = self._root
        for part in path.split(b"/"):
            if part in (b"", b"."):
                continue
            if part == b"..":
                parts = parts[:-1]
                node = self._follow(parts, name)
                continue
            below = self._child(node, part, name)
            if below is not None and stat.S_ISLNK(below.mode):
                links += 1
                if links > _LINKS:
                    break
                parts = clean(
                    below.target if below.target.startswith(b"/") else b"/".join([*parts, below.target])
                )
                node = self._follow(parts, name)
            else:
                parts.append(part)
                node = below
        return links, parts

    def _follow(self, parts: list[bytes], name: bytes) -> Node | None:
        """What the kernel would find at ``parts``; None where nothing is, or outside of the layer."""
        todo = parts[::-1]
        trail = [self._root]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                if len(trail) == 1:
                    return None
                trail.pop()
            elif part not in (b"", b"."):
                below = self._child(trail[-1], part, name)
                if below is None:
                    return None
                if not stat.S_ISLNK(below.mode):
                    trail.append(below)
                    continue
                links += 1
                if links > _KERNEL_LINKS:
                    raise Corrupt(f"tar member {shown(name)}: too many symbolic links")
                if below.target.startswith(b"/"):
                    return None
                todo.extend(below.target.split(b"/")[::-1])
        return trail[-1]

    def _child(self, node: Node | None, part: bytes, name: bytes) -> Node | None:
        self.step(name)
        if node is None:
            return None
        if node.children is not None:
            return node.children.get(part)
        if is_whiteout(node):
            return None  # nothing there in a bottom layer; whoever makes something below it decides
        raise Corrupt(f"tar member {shown(name)}: its parent is not a directory")
