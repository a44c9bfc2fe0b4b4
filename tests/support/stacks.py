"""Random stacks of layers over a few names, so that members meet, hide, replace and link each other.

A stack is a pure function of its seed. Members keep a readable form, and a stack that fails can be cut down.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.support import rawtar
from tests.support.awkward.case import Case, case

_NAMES = (b"a", b"b", b"c", b"d")
_MODES = (0o755, 0o700, 0o2755, 0o1777, 0o644, 0o4711)
_XATTRS: tuple[dict[bytes, bytes], ...] = (
    {},
    {},
    {},
    {b"user.a": b"1"},
    {b"user.b": b"2", b"security.x": b"y"},
    {b"trusted.t": b"t"},
)
_TARGETS = (b"a", b"b", b"a/b", b"../a", b"/b", b"/a/c", b"../../c", b".", b"/", b"e", b"../e")
_KINDS = {
    "file": 30,
    "directory": 30,
    "symlink": 12,
    "link": 10,
    "whiteout": 14,
    "opaque": 6,
    "fifo": 3,
    "device": 3,
    "global": 1,
}


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive, and what it is for people."""

    says: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers, bottom first, each a sequence of members."""

    layers: tuple[tuple[Member, ...], ...]

    def case(self, name: str) -> Case:
        """The image of this stack."""
        return case(name, [[member.data for member in layer] for layer in self.layers])

    @property
    def late_opaque(self) -> bool:
        """Whether the bottom layer hides after it made: the one thing there that a layer file cannot know."""
        return any(member.says.startswith("opaque") for member in self.layers[0][1:])

    def smaller(self) -> Iterator[Stack]:
        """Stacks with one layer or one member less, the smallest first."""
        for at in range(len(self.layers)):
            if len(self.layers) > 1:
                yield Stack(self.layers[:at] + self.layers[at + 1 :])
        for at, layer in enumerate(self.layers):
            for gone in range(len(layer)):
                rest = layer[:gone] + layer[gone + 1 :]
                yield Stack((*self.layers[:at], rest, *self.layers[at + 1 :]))

    def __str__(self) -> str:
        return "\n".join(
            f"layer {number}: " + "; ".join(member.says for member in layer)
            for number, layer in enumerate(self.layers)
        )


def random_stack(seed: str) -> Stack:
    """The stack of this seed: one to four layers of up to nine members."""
    source = random.Random(seed)
    layers: list[tuple[Member, ...]] = []
    below: dict[bytes, str] = {}
    for _ in range(source.choice((1, 2, 2, 2, 3, 3, 4))):
        made: dict[bytes, str] = {}
        layers.append(
            tuple(_step(source, made, below, bottom=not layers) for _ in range(source.randint(1, 9)))
        )
        below |= made
    return Stack(tuple(layers))


def _step(source: random.Random, made: dict[bytes, str], below: dict[bytes, str], *, bottom: bool) -> Member:
    """One more member. `made` says what the layer has by now, `below` what the lower ones had."""
    kind = source.choices(list(_KINDS), list(_KINDS.values()))[0]
    path = _path(source, made)
    # Most stacks should be possible: what containerd refuses is tried, but seldom.
    while _refused(kind, path, made, below, bottom=bottom) and source.random() < 0.98:
        path = _path(source, made)
    linkable = [name for name, is_a in made.items() if is_a in ("file", "link") and not _meet(name, path)]
    member = _member(source, kind, path, linkable)
    if kind not in ("opaque", "global"):
        for name in [name for name in made if name.startswith(path + b"/") and kind != "directory"]:
            del made[name]
        made[path] = kind
    return member


def _meet(name: bytes, path: bytes) -> bool:
    return name == path or name.startswith(path + b"/") or path.startswith(name + b"/")


def _path(source: random.Random, made: Iterable[bytes]) -> bytes:
    """A path of up to three names; half the time below or at what the layer has made already."""
    known = list(made)
    if known and source.random() < 0.4:
        path = source.choice(known)
        return path if source.random() < 0.25 else path + b"/" + source.choice(_NAMES)
    return b"/".join(source.choices(_NAMES, k=source.choice((1, 1, 2, 2, 3))))


def _refused(
    kind: str, path: bytes, made: dict[bytes, str], below: dict[bytes, str], *, bottom: bool
) -> bool:
    """Whether containerd would most likely refuse such a member here."""
    parts = path.split(b"/")
    parents = [b"/".join(parts[:count]) for count in range(1, len(parts))]
    if any(made.get(parent, "directory") not in ("directory", "symlink") for parent in parents):
        return True
    if any(below.get(parent, "directory") != "directory" for parent in parents[:-1]):
        return True
    occupied = path in made or any(name.startswith(path + b"/") for name in made)
    if kind == "whiteout":
        return occupied and (not bottom or made.get(path) == "directory")
    if kind == "link":
        return "file" not in made.values() or occupied
    return kind not in ("directory", "opaque") and made.get(path) == "directory"


def _member(source: random.Random, kind: str, path: bytes, made: list[bytes]) -> Member:
    facts: dict[str, Any] = {
        "mode": source.choice(_MODES),
        "uid": source.choice((0, 0, 1, 7)),
        "gid": source.choice((0, 0, 2)),
        "mtime": source.randint(0, 1_000_000),
        "xattrs": source.choice(_XATTRS),
    }
    shown = path.decode()
    spelled = source.choice((b"", b"", b"", b"./", b"/")) + path
    if kind == "whiteout":
        return Member(f"whiteout {shown}", rawtar.whiteout(spelled))
    if kind == "opaque":
        return Member(f"opaque {shown}", rawtar.opaque(spelled))
    if kind == "global":
        return Member(
            f"global {shown}", rawtar.header(spelled, b"g", size=11) + rawtar.padded(b"11 a=bcdef\n")
        )
    detail, data = _made(source, kind, spelled, made, facts)
    return Member(f"{kind} {shown}{detail} {oct(facts['mode'])} {facts['uid']}:{facts['gid']}", data)


def _made(
    source: random.Random, kind: str, path: bytes, made: list[bytes], facts: dict[str, Any]
) -> tuple[str, bytes]:
    if kind == "directory":
        return "", rawtar.entry(path + b"/", rawtar.DIRECTORY, **facts)
    if kind == "symlink":
        target = source.choice(_TARGETS)
        return f" -> {target.decode()}", rawtar.entry(path, rawtar.SYMLINK, link=target, **facts)
    if kind == "link":
        target = source.choice(made) if made and source.random() < 0.95 else _path(source, made)
        return f" = {target.decode()}", rawtar.entry(path, rawtar.HARD_LINK, link=target, **facts)
    if kind == "fifo":
        return "", rawtar.entry(path, rawtar.FIFO, **facts)
    if kind == "device":
        number = source.choice(((1, 3), (0, 0)))
        return f" {number}", rawtar.entry(path, rawtar.CHAR, device=number, **facts)
    content = b"x" * source.choice((0, 5, 600))
    return f" {len(content)} bytes", rawtar.entry(path, rawtar.FILE, content, **facts)
