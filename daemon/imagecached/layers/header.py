"""Header blocks of a tar archive: 512 bytes to fields, checksum verified.

Accepts what Go's ``archive/tar`` accepts: V7, ustar, star and GNU headers; octal numbers with spaces or NULs
around them, and base-256 ones (GNU); unsigned and signed checksums. Nearly every field repeats from member
to member, so decoded ones are remembered.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, TypeVar
from zlib import adler32

from imagecached.errors import Corrupt
from imagecached.layers import pax
from imagecached.layers.limits import shown

_V = TypeVar("_V")

View = bytes | memoryview
"""Bytes of the stream, lent for the time of a call."""

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)

FILE: Final = b"0"
LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER: Final = b"3"
BLOCK_DEVICE: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"
GLOBAL: Final = b"g"
OLD_FILE: Final = b"\0"
GNU_SPARSE: Final = b"S"
WITHOUT_DATA: Final = frozenset((LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))

GNU_MAGIC: Final = b"ustar  \0"
_USTAR: Final = b"ustar\0"
_STAR_TRAILER: Final = b"tar\0"
_MEMO: Final = 8192

# name, mode + uid + gid, size and its last byte, mtime and its last byte, checksum, type, link name,
# magic + version, device numbers, prefix, rest
_HEADER: Final = struct.Struct("<100s24s11sB11sB8sc100s8s64x16s155s12s")
_ZERO_PREFIX: Final = bytes(155)


class Fields(NamedTuple):
    """A header block. Names are cut at their first NUL, times within 1970…2262."""

    kind: bytes  # type flag
    name: bytes
    owner: tuple[int, int, int]  # mode (permission bits), uid, gid; see :func:`identity`
    size: int  # not negative, except for types without data
    mtime: int
    link: bytes
    device: tuple[int, int]  # major, minor


class Decoder:
    """Decodes the headers of one archive."""

    def __init__(self) -> None:
        self._checksums: dict[bytes, int] = {}  # field → sum of the block's bytes that it stands for
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._devices: dict[bytes, tuple[int, int]] = {}

    def decode(self, block: View, at: int) -> Fields | None:
        """The header block at stream offset ``at``; None for a block of zeros. Corrupt."""
        name, owner, size, size_end, mtime, mtime_end, checksum, kind, link, magic, device, prefix, rest = (
            _HEADER.unpack(block)
        )
        # the sum of all bytes, exactly: that of one half is below Adler's modulus
        total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
        if self._checksums.get(checksum) != total:
            if not total:
                return None
            self._check_sum(bytes(block), checksum, total, at)
        name = name.partition(b"\0")[0]
        who = self._owners.get(owner) or self._owner(owner, at)
        if size.isdigit() and not size_end:
            length = octal(size, at)
        else:
            length = number(size + bytes((size_end,)), at)
        if mtime.isdigit() and not mtime_end:
            seconds = octal(mtime, at)
        else:
            seconds = pax.bounded(number(mtime + bytes((mtime_end,)), at))[0]
        if length < 0 and kind not in WITHOUT_DATA:
            raise Corrupt(f"tar member {shown(name)}: negative size")
        link = link.partition(b"\0")[0] if link[0] else b""
        numbers = (0, 0)
        if magic.startswith(_USTAR) or magic == GNU_MAGIC:
            numbers = self._devices.get(device) or self._device(device, at)
            if prefix != _ZERO_PREFIX or rest.endswith(_STAR_TRAILER):
                name = _prefixed(name, magic, prefix, rest, at)
        return Fields(kind, name, who, length, seconds, link, numbers)

    def _check_sum(self, block: bytes, field: bytes, total: int, at: int) -> None:
        """Compare with the unsigned sum, or old tars' signed one; both count the field itself as spaces."""
        stored = number(field, at, binary=False)
        unsigned = total - sum(field) + len(field) * 0x20
        if stored == unsigned:
            _remember(self._checksums, field, total)
        elif stored != unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
            raise Corrupt(f"tar header at byte {at}: wrong checksum")

    def _owner(self, field: bytes, at: int) -> tuple[int, int, int]:
        mode, uid, gid = (number(field[i : i + 8], at) for i in (0, 8, 16))
        return _remember(self._owners, field, (mode & 0o7777, identity(uid), identity(gid)))

    def _device(self, field: bytes, at: int) -> tuple[int, int]:
        return _remember(self._devices, field, (number(field[:8], at), number(field[8:], at)))


def octal(digits: bytes, at: int) -> int:
    """A field of digits only, read as octal. Corrupt."""
    try:
        return int(digits, 8)
    except ValueError:
        raise Corrupt(f"tar header at byte {at}: not an octal number: {digits!r}") from None


def number(field: bytes, at: int, *, binary: bool = True) -> int:
    """A numeric field: octal, spaces or NULs around it; or base-256, signed, 64 bits at most. Corrupt."""
    if binary and field[0] & 0x80:
        bits = 8 * len(field)
        value = int.from_bytes(field, "big") & ((1 << (bits - 1)) - 1)
        if field[0] & 0x40:
            value -= 1 << (bits - 1)
        if not -(1 << 63) <= value < 1 << 63:
            raise Corrupt(f"tar header at byte {at}: number out of range")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not digits:
        return 0
    if not digits.isdigit():
        raise Corrupt(f"tar header at byte {at}: not an octal number: {field!r}")
    return octal(digits, at)


def identity(value: int) -> int:
    """A user or group id as chown(2) takes it: the low 32 bits; -1, when all are ones, for "leave it"."""
    value &= 0xFFFFFFFF
    return -1 if value == 0xFFFFFFFF else value


def _remember(memo: dict[bytes, _V], field: bytes, value: _V) -> _V:
    if len(memo) >= _MEMO:
        memo.clear()
    memo[field] = value
    return value


def _prefixed(name: bytes, magic: bytes, prefix: bytes, rest: bytes, at: int) -> bytes:
    """The name with the header's prefix, which is something else in GNU headers and shorter in star's."""
    if magic == GNU_MAGIC:
        prefix = _gnu_prefix(prefix, at)
    elif rest.endswith(_STAR_TRAILER):
        number(prefix[131:143], at)  # access and change time: nobody wants them, but they must be numbers
        number(prefix[143:155], at)
        prefix = prefix[:131]
    prefix = prefix.partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _gnu_prefix(prefix: bytes, at: int) -> bytes:
    """Access and change time in GNU headers. If they are no times, an old Go wrote a prefix after all."""
    try:
        for field in (prefix[:12], prefix[12:24]):
            if field[0]:
                number(field, at)
    except Corrupt:
        text = prefix.partition(b"\0")[0]
        return text if text.isascii() else b""
    return b""
