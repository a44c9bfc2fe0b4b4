"""Archives damaged at random: odd values in fields, blocks lost or doubled, bytes changed, checksums right.

A pure function of the seed. What comes out is mostly refused; what is not must give the same tree everywhere.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable

from tests.support.awkward import Case, catalogue
from tests.support.awkward.case import TAR, Blob
from tests.support.rawtar import BLOCK, signed

_LARGEST = 20 * BLOCK
_FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "flag": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "minor": (337, 8),
    "prefix": (345, 155),
}
_VALUES = (
    b"",
    b"0",
    b"1",
    b"5",
    b"7777777",
    b"a/b",
    b"../x",
    b"./",
    b".wh.d",
    b".wh..wh..opq",
    b"d/f",
    b"ustar  \0",
    b"ustar\x0000",
    b"\x80\0\0\0\0\0\0\1",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"00000001000",
    b"\xc3\x28",
)
_FLAGS = b"\x0001234567gxLKS"


def mutated(seed: str) -> Case:
    """A one-layer image of some small archive of the catalogue with one to three faults."""
    source = random.Random(seed)
    tar = source.choice(_small())
    for _ in range(source.randint(1, 3)):
        tar = source.choice(_FAULTS)(source, tar)
    return Case(f"mutated-{seed}", (Blob(tar, TAR, tar),))


@functools.cache
def _small() -> list[bytes]:
    return [case.tars[-1] for case in catalogue().values() if BLOCK <= len(case.tars[-1]) <= _LARGEST]


def _field(source: random.Random, tar: bytes) -> bytes:
    """One field of one block gets another value, and the block a right checksum."""
    at = source.randrange(0, len(tar), BLOCK)
    name, (offset, width) = source.choice(list(_FIELDS.items()))
    value = bytes([source.choice(_FLAGS)]) if name == "flag" else source.choice(_VALUES)
    start = at + offset
    return _signed(tar[:start] + value.ljust(width, b"\0")[:width] + tar[start + width :], at)


def _byte(source: random.Random, tar: bytes) -> bytes:
    """One byte changes; with luck the checksum of its block is made right."""
    at = source.randrange(len(tar))
    changed = tar[:at] + bytes([source.choice(b"\0 019/=\n.x\xff")]) + tar[at + 1 :]
    return _signed(changed, at - at % BLOCK) if source.random() < 0.7 else changed


def _block(source: random.Random, tar: bytes) -> bytes:
    """One block is lost, doubled, blanked, or changes places with another."""
    blocks = [tar[at : at + BLOCK] for at in range(0, len(tar), BLOCK)]
    at, other = source.randrange(len(blocks)), source.randrange(len(blocks))
    what = source.randrange(4)
    if what == 0:
        del blocks[at]
    elif what == 1:
        blocks.insert(other, blocks[at])
    elif what == 2:
        blocks[at] = bytes(len(blocks[at]))
    else:
        blocks[at], blocks[other] = blocks[other], blocks[at]
    return b"".join(blocks) or bytes(BLOCK)


def _cut(source: random.Random, tar: bytes) -> bytes:
    """The end is lost."""
    return tar[: source.randrange(1, len(tar) + 1)]


def _signed(tar: bytes, at: int) -> bytes:
    block = tar[at : at + BLOCK]
    return tar[:at] + signed(block) + tar[at + BLOCK :] if len(block) == BLOCK else tar


_Fault = Callable[[random.Random, bytes], bytes]
_FAULTS: tuple[_Fault, ...] = (_field, _field, _field, _byte, _byte, _block, _cut)
