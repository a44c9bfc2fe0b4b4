"""How a sparse file is laid out in EROFS: equal chunks, each a run of the layer file or a hole.

The pieces of a sparse member lie one behind the other in the tar. A chunk that lies in one piece,
512-aligned, is used where it is; any other chunk that has data is *realigned*: assembled once more in an
area of its own behind the tar. The chunk size is chosen so that map and realigned chunks together are small.
"""

from __future__ import annotations

import sys
from array import array
from dataclasses import dataclass
from typing import Final

from imagecached.errors import Corrupt

BLOCK_BITS: Final = 9
BLOCK: Final = 1 << BLOCK_BITS
_LARGEST_BITS: Final = 30
HOLE: Final = 0xFFFFFFFF

Extent = tuple[int, int, int]
"""(logical offset, length, byte offset in the layer file)"""


@dataclass(slots=True)
class Copy:
    """``length`` bytes to repeat: from ``source`` in the layer file to ``to`` in the area."""

    source: int
    length: int
    to: int


@dataclass(slots=True)
class Layout:
    """The chunks of one file. ``moved`` maps chunk → byte offset in the area of realigned chunks."""

    bits: int  # log2 of the chunk size
    blocks: array[int]  # block address per chunk, HOLE; realigned ones still HOLE
    moved: dict[int, int]
    copies: list[Copy]

    @property
    def map_bytes(self) -> int:
        """Size of the block map behind the inode."""
        return 4 * len(self.blocks)

    def encoded(self, area: int) -> bytes:
        """The block map, with the area of realigned chunks at byte ``area`` of the layer file."""
        blocks = self.blocks[:]
        for chunk, offset in self.moved.items():
            blocks[chunk] = (area + offset) >> BLOCK_BITS
        if sys.byteorder == "big":
            blocks.byteswap()
        return blocks.tobytes()


def plan(size: int, extents: list[Extent], used: int, most: int) -> tuple[Layout, int]:
    """Lay out a file of ``size`` > 0 bytes. ``used``: bytes of the area taken before; returned: after.

    Corrupt when map and realigned chunks would take more than ``most`` bytes.
    """
    bits = _chunk_bits(size, extents)
    chunks = -(-size >> bits)
    if 4 * chunks + used > most:
        raise Corrupt(
            f"sparse file of {size} bytes in {len(extents)} pieces: more than {most} metadata bytes"
        )
    layout = Layout(bits, array("I", [HOLE]) * chunks, {}, [])
    for logical, length, offset in extents:
        used = _place(layout, size, (logical, length, offset), used)
        if 4 * chunks + used > most:
            raise Corrupt(
                f"sparse file of {size} bytes in {len(extents)} pieces: more than {most} metadata bytes"
            )
    return layout, used


def _chunk_bits(size: int, extents: list[Extent]) -> int:
    """The log2 of the chunk size with the least map and realigned bytes, estimated from the pieces' ends."""
    ends = [0] * (_LARGEST_BITS + 1)  # pieces' ends by the number of zero bits below
    for logical, length, _ in extents:
        for edge in (logical, logical + length):
            if edge and edge != size:
                ends[min((edge & -edge).bit_length() - 1, _LARGEST_BITS)] += 1
    best, least, split = BLOCK_BITS, None, sum(ends[:BLOCK_BITS])
    for bits in range(BLOCK_BITS, _LARGEST_BITS + 1):
        chunks = -(-size >> bits)
        cost = 4 * chunks + (min(split, chunks) << bits)
        if least is None or cost < least:
            best, least = bits, cost
        split += ends[bits]
    return best


def _place(layout: Layout, size: int, extent: Extent, used: int) -> int:
    """Put one piece into the map; returns the bytes of the area taken then."""
    logical, length, offset = extent
    bits = layout.bits
    chunk_bytes = 1 << bits
    end = logical + length
    first = -(-logical >> bits)  # first chunk that begins inside
    last = len(layout.blocks) if end == size else end >> bits  # behind the last that ends inside
    straight = offset + (first << bits) - logical
    if first >= last or straight % BLOCK:
        first = last = end  # none is usable where it lies
    else:
        block, step = straight >> BLOCK_BITS, chunk_bytes >> BLOCK_BITS
        layout.blocks[first:last] = array("I", range(block, block + (last - first) * step, step))
    at = logical
    while at < end:
        chunk = at >> bits
        if first <= chunk < last:
            at = last << bits
            continue
        until = min(end, (chunk + 1) << bits)
        if chunk not in layout.moved:
            layout.moved[chunk] = used
            used += -(-min(chunk_bytes, size - (chunk << bits)) >> BLOCK_BITS) << BLOCK_BITS
        _copy(layout.copies, offset + at - logical, until - at, layout.moved[chunk] + at - (chunk << bits))
        at = until
    return used


def _copy(copies: list[Copy], source: int, length: int, to: int) -> None:
    last = copies[-1] if copies else None
    if last is not None and last.source + last.length == source and last.to + last.length == to:
        last.length += length
    else:
        copies.append(Copy(source, length, to))
