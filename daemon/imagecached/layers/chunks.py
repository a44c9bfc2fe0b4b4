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
class _Chunks:
    """The chunks of one file, worked out."""

    blocks: array[int]  # block address per chunk, HOLE; of realigned ones too
    moved: dict[int, int]  # realigned chunk → its byte offset in the area
    copies: list[Copy]
    used: int  # bytes of the area taken


@dataclass(frozen=True, slots=True)
class Layout:
    """The chunks of one file. They are worked out whenever asked for: a layer may hold many such files."""

    size: int
    extents: list[Extent]
    bits: int  # log2 of the chunk size
    start: int  # where its realigned chunks begin in the area
    stop: int

    @property
    def map_bytes(self) -> int:
        """Size of the block map behind the inode."""
        return 4 * -(-self.size >> self.bits)

    def copies(self) -> list[Copy]:
        """What to put into the area."""
        if self.start == self.stop:
            return []
        return _work_out(self.size, self.extents, self.bits, self.start, self.stop).copies

    def encoded(self, area: int) -> bytes:
        """The block map, with the area of realigned chunks at byte ``area`` of the layer file."""
        chunks = _work_out(self.size, self.extents, self.bits, self.start, self.stop)
        for chunk, offset in chunks.moved.items():
            chunks.blocks[chunk] = (area + offset) >> BLOCK_BITS
        if sys.byteorder == "big":
            chunks.blocks.byteswap()
        return chunks.blocks.tobytes()


def plan(size: int, extents: list[Extent], used: int, most: int, beside: int = 0) -> Layout:
    """Lay out a file of ``size`` > 0 bytes. ``used``: bytes of the area taken by other files.

    Corrupt when its map, the area with its realigned chunks, and ``beside`` are more than ``most`` bytes.
    """
    bits = _chunk_bits(size, extents)
    room = most - beside - 4 * -(-size >> bits)
    if room < used:
        raise _too_much(size, extents, most)
    chunks = _work_out(size, extents, bits, used, room)
    if chunks.used > room:
        raise _too_much(size, extents, most)
    return Layout(size, extents, bits, used, chunks.used)


def _too_much(size: int, extents: list[Extent], most: int) -> Corrupt:
    return Corrupt(f"sparse file of {size} bytes in {len(extents)} pieces: more than {most} metadata bytes")


def _work_out(size: int, extents: list[Extent], bits: int, used: int, room: int) -> _Chunks:
    """Place all pieces; stops early when more than ``room`` bytes of the area are taken."""
    chunks = _Chunks(array("I", [HOLE]) * -(-size >> bits), {}, [], used)
    for extent in extents:
        _place(chunks, bits, size, extent)
        if chunks.used > room:
            break
    return chunks


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


def _place(chunks: _Chunks, bits: int, size: int, extent: Extent) -> None:
    """Put one piece into the map: whole chunks where they lie, the others by copying."""
    logical, length, offset = extent
    end = logical + length
    first = -(-logical >> bits)  # first chunk that begins inside
    last = len(chunks.blocks) if end == size else end >> bits  # behind the last that ends inside
    straight = offset + (first << bits) - logical
    if first >= last or straight % BLOCK:
        first = last = len(chunks.blocks)  # none is usable where it lies
    else:
        block, step = straight >> BLOCK_BITS, 1 << bits >> BLOCK_BITS
        chunks.blocks[first:last] = array("I", range(block, block + (last - first) * step, step))
    at = logical
    while at < end:
        chunk = at >> bits
        if first <= chunk < last:
            at = last << bits
            continue
        until = min(end, (chunk + 1) << bits)
        if chunk not in chunks.moved:
            chunks.moved[chunk] = chunks.used
            chunks.used += (min(1 << bits, size - (chunk << bits)) + BLOCK - 1) & -BLOCK
        _copy(chunks.copies, offset + at - logical, until - at, chunks.moved[chunk] + at - (chunk << bits))
        at = until


def _copy(copies: list[Copy], source: int, length: int, to: int) -> None:
    last = copies[-1] if copies else None
    if last is not None and last.source + last.length == source and last.to + last.length == to:
        last.length += length
    else:
        copies.append(Copy(source, length, to))
