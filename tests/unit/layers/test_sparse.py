"""Sparse members: every format's map, and how their pieces become chunks."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imagecached.errors import Corrupt
from imagecached.layers import chunks
from imagecached.layers.limits import Limits
from tests.support.rawtar import END, archive, header, number, padded, pax, signed
from tests.unit.layers.building import contents, scanned

GNU = b"ustar  \0"
Pieces = list[tuple[int, int]]


def data_of(pieces: Pieces) -> bytes:
    """The stored bytes: each piece filled with a letter of its own."""
    return b"".join(bytes([65 + i % 26]) * length for i, (_, length) in enumerate(pieces))


def whole(pieces: Pieces, size: int) -> bytes:
    """The file that is meant."""
    file = bytearray(size)
    for i, (offset, length) in enumerate(pieces):
        file[offset : offset + length] = bytes([65 + i % 26]) * length
    return bytes(file)


def format_00(pieces: Pieces, size: int) -> bytes:
    """GNU sparse 0.0: a pair of records per piece."""
    records = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.numblocks", b"%d" % len(pieces))]
    for offset, length in pieces:
        records += [(b"GNU.sparse.offset", b"%d" % offset), (b"GNU.sparse.numbytes", b"%d" % length)]
    stored = data_of(pieces)
    return pax(records) + header(b"f", size=len(stored)) + padded(stored)


def format_01(pieces: Pieces, size: int) -> bytes:
    """GNU sparse 0.1: one record with all numbers."""
    numbers = b",".join(b"%d,%d" % piece for piece in pieces)
    records = {
        b"GNU.sparse.major": b"0",
        b"GNU.sparse.minor": b"1",
        b"GNU.sparse.name": b"f",
        b"GNU.sparse.size": b"%d" % size,
        b"GNU.sparse.numblocks": b"%d" % len(pieces),
        b"GNU.sparse.map": numbers,
    }
    stored = data_of(pieces)
    return pax(records) + header(b"GNUSparseFile.1/f", size=len(stored)) + padded(stored)


def format_10(pieces: Pieces, size: int) -> bytes:
    """GNU sparse 1.0: the map comes before the data, in blocks of its own."""
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"f",
        b"GNU.sparse.realsize": b"%d" % size,
    }
    numbers = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % piece for piece in pieces)
    stored = padded(numbers) + data_of(pieces)
    return pax(records) + header(b"GNUSparseFile.1/f", size=len(stored)) + padded(stored)


def old_gnu(pieces: Pieces, size: int) -> bytes:
    """Type S: four pieces in the header, 21 in each extension block."""

    def array(room: int, some: Pieces, more: bool) -> bytes:
        fields = b"".join(number(offset, 12) + number(length, 12) for offset, length in some)
        return fields.ljust(24 * room, b"\0") + bytes([more])

    first, rest = pieces[:4], pieces[4:]
    tail = bytes(41) + array(4, first, bool(rest)) + number(size, 12)
    blocks = [header(b"f", b"S", size=sum(length for _, length in pieces), magic=GNU, tail=tail)]
    while rest:
        some, rest = rest[:21], rest[21:]
        blocks.append(array(21, some, bool(rest)).ljust(512, b"\0"))
    return b"".join(blocks) + padded(data_of(pieces))


FORMATS = [format_00, format_01, format_10, old_gnu]


@st.composite
def sparse(draw: st.DrawFn, largest: int = 40_000) -> tuple[Pieces, int]:
    """Pieces in order that do not overlap, and a size they fit in."""
    edges = sorted(draw(st.lists(st.integers(0, largest), max_size=60)))
    if draw(st.booleans()):
        edges = [edge & -512 for edge in edges]
    pieces = [(start, stop - start) for start, stop in pairwise(edges)][::2]
    end = pieces[-1][0] + pieces[-1][1] if pieces else 0
    return pieces, draw(st.sampled_from([end, end + 1, end + 5000]))


@pytest.mark.parametrize("write", FORMATS)
@given(sparse(), st.integers(1, 2000))
@example(([], 0), 512)
@example(([], 99_999), 512)
@example(([(0, 1000)], 1000), 512)
@example(([(0, 0), (5, 0), (5, 7), (12, 3)], 15), 512)
def test_every_format_gives_the_file_that_is_meant(
    write: object, file: tuple[Pieces, int], step: int
) -> None:
    """Name, size and content, and the next member is found behind the data."""
    assert callable(write)
    if write is format_00 and not file[0]:
        return  # without a single record, nothing says that the file is sparse
    tar = archive(write(*file), header(b"next"))
    member, following = scanned(tar, step=step)
    assert (member.kind, member.name, member.size) == (b"0", b"f", file[1])
    assert contents(tar, member) == whole(*file)
    assert following.name == b"next"


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize(
    ("pieces", "size"),
    [
        ([(10, 5), (12, 5)], 100),
        ([(10, 5), (0, 5)], 100),
        ([(10, 5)], 14),
        ([(1 << 62, 5)], 100),
    ],
)
def test_impossible_maps_are_refused(write: object, pieces: Pieces, size: int) -> None:
    """Pieces that overlap, go back, or lie behind the end."""
    assert callable(write)
    with pytest.raises(Corrupt, match="sparse map"):
        scanned(archive(write(pieces, size)))


@pytest.mark.parametrize("write", FORMATS)
def test_map_and_data_must_agree(write: object) -> None:
    """More or less stored than the map wants is refused."""
    assert callable(write)
    good = write([(0, 600), (2000, 600)], 4000)
    head = [i for i in range(0, len(good), 512) if good[i + 257 : i + 262] == b"ustar"][-1]
    for wrongly in (-1, 1):
        size = int(good[head + 124 : head + 135], 8) + wrongly
        block = signed(good[head : head + 124] + number(size, 12) + good[head + 136 : head + 512])
        wrong = good[:head] + block + good[head + 512 :]
        with pytest.raises(Corrupt, match="wants 1200 bytes of data"):
            scanned(wrong + bytes(512) + END)


@pytest.mark.parametrize(
    "records",
    [
        [(b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"0")],
        [(b"GNU.sparse.numbytes", b"0")],
        [(b"GNU.sparse.offset", b"0,0")],
        [(b"GNU.sparse.map", b"0,0"), (b"GNU.sparse.numblocks", b"2")],
        [(b"GNU.sparse.map", b"0,x"), (b"GNU.sparse.numblocks", b"1")],
        [(b"GNU.sparse.map", b"0,0")],
        [(b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"1"), (b"GNU.sparse.numblocks", b"-1")],
        [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")],
    ],
)
def test_malformed_maps_are_refused(records: list[tuple[bytes, bytes]]) -> None:
    """Out of order, of the wrong length, no numbers, no map at all."""
    with pytest.raises(Corrupt):
        scanned(archive(pax(records), header(b"f")))


def test_a_directory_cannot_be_sparse() -> None:
    """Nor any other type without data."""
    with pytest.raises(Corrupt, match="cannot be sparse"):
        scanned(archive(pax({b"GNU.sparse.map": b"0,0", b"GNU.sparse.numblocks": b"1"}), header(b"d", b"5")))


def test_unknown_sparse_versions_are_ordinary_files() -> None:
    """As the reference takes them."""
    (member,) = scanned(archive(pax({b"GNU.sparse.major": b"2"}), header(b"f", size=3), padded(b"abc")))
    assert member.size == 3


@pytest.mark.parametrize("write", FORMATS)
def test_pieces_are_bounded(write: object) -> None:
    """For one member and for all together."""
    assert callable(write)
    pieces = [(i * 10, 1) for i in range(30)]
    with pytest.raises(Corrupt, match="more than 29 sparse extents"):
        scanned(archive(write(pieces, 1000)), limits=Limits(sparse_extents=29))
    with pytest.raises(Corrupt, match="more than 59 sparse extents"):
        scanned(archive(write(pieces, 1000), write(pieces, 1000)), limits=Limits(sparse_extents=59))


def test_a_map_without_end_is_bounded() -> None:
    """A count that never comes, or numbers that never end, do not fill memory."""
    records = pax({b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0"})
    with pytest.raises(Corrupt, match="longer than its numbers"):
        scanned(records + header(b"f", size=1 << 40) + b"1" * 5000)
    with pytest.raises(Corrupt, match="longer than the data"):
        scanned(records + header(b"f", size=512) + b"9\n".ljust(1024, b"1"))


# ---- Chunks


def laid_out(pieces: Pieces, size: int) -> bytes:
    """The file as EROFS reads it: through the map, from the layer file with the realigned chunks in it."""
    base, stored = 4096, data_of(pieces)
    extents, offset = [], base
    for logical, length in pieces:
        if length:
            extents.append((logical, length, offset))
            offset += length
    layout = chunks.plan(size, extents, 0, 1 << 26)
    used = layout.stop
    area = (offset + 511) & -512
    disk = bytearray(b"?" * base + stored + bytes(area - offset) + bytes(used) + b"?" * 4096)
    for copy in layout.copies():
        assert copy.to + copy.length <= used
        disk[area + copy.to : area + copy.to + copy.length] = disk[copy.source : copy.source + copy.length]
    file = bytearray(size)
    for chunk, block in enumerate(memoryview(layout.encoded(area)).cast("I")):
        if block != chunks.HOLE:
            first, start = chunk << layout.bits, block << chunks.BLOCK_BITS
            length = min(1 << layout.bits, size - first)
            file[first : first + length] = disk[start : start + length]
    return bytes(file)


@given(sparse(largest=100_000))
@example(([(0, 4096), (40960, 100)], 41060))
@example(([(0, 1)], 1))
@example(([(0, 700), (700, 700), (1400, 648), (2048, 512)], 90_000))
def test_chunks_give_the_file_that_is_meant(file: tuple[Pieces, int]) -> None:
    """Through map, realigned chunks and holes."""
    pieces, size = file
    if size:
        assert laid_out(pieces, size) == whole(pieces, size)


def test_aligned_pieces_are_used_where_they_lie() -> None:
    """Nothing is copied for what a block device's holes look like."""
    extents = [(0, 65536, 4096), (1 << 20, 65536, 4096 + 65536)]
    layout = chunks.plan(1 << 30, extents, 512, 1 << 26)
    assert (layout.start, layout.stop, layout.copies()) == (512, 512, [])
    assert layout.map_bytes == 4 * ((1 << 30) >> layout.bits)


def test_chunks_grow_with_the_file() -> None:
    """The map of an almost empty file of 8 TiB stays small, and so does what is realigned."""
    layout = chunks.plan(1 << 43, [(12345, 3, 4096)], 0, 1 << 30)
    assert layout.map_bytes + layout.stop < 32 << 20


def test_metadata_of_a_sparse_file_is_bounded() -> None:
    """Many tiny pieces in a huge file cost too much and are refused."""
    extents = [(i << 30, 1, 4096 + i) for i in range(4000)]
    with pytest.raises(Corrupt, match="metadata bytes"):
        chunks.plan(1 << 43, extents, 0, 1 << 20)
