"""PAX extended headers and sparse maps of a tar member, read as Go's ``archive/tar`` reads them.

Pure functions from bytes to values; whatever is malformed raises Corrupt. Specification: POSIX.1-2017 pax §
Extended Header, GNU tar manual § Storing Sparse Files.
"""

from __future__ import annotations

import re
from typing import Final

from imagecached.errors import Corrupt
from imagecached.layers.limits import Limits, exceeded

Piece = tuple[int, int]
"""A piece of a sparse file that has data: (logical offset, length)."""

XATTR: Final = b"SCHILY.xattr."
_SPARSE_PAIR: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_SPARSE_MAP: Final = b"GNU.sparse.map"
_TEXT_KEYS: Final = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_INTEGER = re.compile(rb"[+-]?[0-9]{1,40}")
_INT64: Final = 1 << 63
_LATEST: Final = ((1 << 63) - 1) // 1_000_000_000, ((1 << 63) - 1) % 1_000_000_000
_NUMBER_BYTES: Final = 64  # one number of a sparse map, with its separator


def integer(text: bytes) -> int:
    """A decimal 64-bit integer, sign allowed, nothing else."""
    if _INTEGER.fullmatch(text) is None or not -_INT64 <= (value := int(text)) < _INT64:
        raise Corrupt(f"PAX header: not a number: {text[:40]!r}")
    return value


def timestamp(text: bytes) -> tuple[int, int]:
    """``seconds[.fraction]`` as (seconds, nanoseconds), truncated, with the bounds of :func:`bounded`."""
    whole, _, fraction = text.partition(b".")
    seconds = integer(whole)
    if fraction and not fraction.isdigit():
        raise Corrupt(f"PAX header: not a time: {text[:40]!r}")
    nanoseconds = int(fraction[:9].ljust(9, b"0"))
    if nanoseconds and whole.startswith(b"-"):
        return 0, 0
    return bounded(seconds, nanoseconds)


def bounded(seconds: int, nanoseconds: int = 0) -> tuple[int, int]:
    """Times before 1970 or beyond 2262 become the epoch, as containerd sets them."""
    if seconds < 0 or (seconds, nanoseconds) > _LATEST:
        return 0, 0
    return seconds, nanoseconds


def records(payload: bytes) -> dict[bytes, bytes]:
    """The records of one extended header; the pairs of sparse format 0.0 joined as ``GNU.sparse.map``."""
    found: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    at, end = 0, len(payload)
    while at < end:
        key, value, at = _record(payload, at)
        if key in _SPARSE_PAIR:
            if key != _SPARSE_PAIR[len(pieces) % 2] or b"," in value:
                raise Corrupt("PAX header: sparse map out of order")
            pieces.append(value)
        else:
            found[key] = value
    if pieces:
        found[_SPARSE_MAP] = b",".join(pieces)
    return found


def _record(payload: bytes, at: int) -> tuple[bytes, bytes, int]:
    space = payload.find(b" ", at)
    if space < 0:
        raise Corrupt("PAX header: record without length")
    length = integer(payload[at:space])
    after = at + length
    if length < 5 or after > len(payload) or after <= space + 1 or payload[after - 1] != 0x0A:
        raise Corrupt("PAX header: record with a wrong length")
    key, equals, value = payload[space + 1 : after - 1].partition(b"=")
    if not key or not equals or b"\0" in (value if key in _TEXT_KEYS else key):
        raise Corrupt(f"PAX header: malformed record {key[:40]!r}")
    return key, value, after


def sparse_format(found: dict[bytes, bytes]) -> bytes | None:
    """``0`` (map in the header), ``1`` (map before the data), or None: not sparse, or an unknown version."""
    version = found.get(b"GNU.sparse.major", b""), found.get(b"GNU.sparse.minor", b"")
    if version in ((b"0", b"0"), (b"0", b"1")):
        return b"0"
    if version == (b"1", b"0"):
        return b"1"
    return b"0" if version == (b"", b"") and found.get(_SPARSE_MAP) else None


def header_map(found: dict[bytes, bytes]) -> list[Piece]:
    """The sparse map of formats 0.0 and 0.1."""
    count = integer(found.get(b"GNU.sparse.numblocks", b""))
    text = found.get(_SPARSE_MAP, b"")
    numbers = text.split(b",") if text else []
    if count < 0 or len(numbers) != 2 * count:
        raise Corrupt("PAX header: sparse map of a wrong length")
    return _pairs([integer(number) for number in numbers])


class DataMap:
    """The sparse map of format 1.0, fed in 512-byte blocks from the start of the member's data."""

    def __init__(self, limits: Limits, name: bytes) -> None:
        self._limits = limits
        self._name = name
        self._text = bytearray()
        self._wanted = 1  # newlines
        self._seen = 0
        self._counted = False

    def feed(self, block: bytes) -> list[Piece] | None:
        """The pieces once the map is complete, None while more blocks are needed."""
        self._text += block
        self._seen += block.count(b"\n")
        if self._seen >= self._wanted and not self._counted:
            self._count()
        if len(self._text) > 512 + self._wanted * _NUMBER_BYTES:
            raise Corrupt("sparse map: longer than its numbers can be")
        if not self._counted or self._seen < self._wanted:
            return None
        return _pairs([integer(number) for number in bytes(self._text).split(b"\n", self._wanted)[1:-1]])

    def _count(self) -> None:
        count = integer(bytes(self._text[: self._text.index(b"\n")]))
        if count < 0:
            raise Corrupt("sparse map: negative number of pieces")
        if count > self._limits.sparse_extents:
            raise exceeded("sparse_extents", self._limits.sparse_extents, self._name)
        self._wanted += 2 * count
        self._counted = True


def _pairs(numbers: list[int]) -> list[Piece]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def check_pieces(pieces: list[Piece], size: int, stored: int) -> None:
    """The pieces must be in order, inside ``size``, and take exactly the ``stored`` bytes of data."""
    end = total = 0
    for offset, length in pieces:
        if offset < end or length < 0:
            raise Corrupt("sparse map: pieces overlap or are out of order")
        end = offset + length
        total += length
    if end > size:
        raise Corrupt("sparse map: a piece lies behind the end of the file")
    if total != stored:
        raise Corrupt(f"sparse map: wants {total} bytes of data, the archive has {stored}")
