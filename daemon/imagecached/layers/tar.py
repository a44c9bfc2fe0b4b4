"""A push scanner for tar streams: bytes in any chunks, members out.

Owns the archive's syntax and knows nothing of trees or files. It reads what Go's ``archive/tar`` reads, in the same way, because that is
what the image's other users unpack with: V7, ustar, star, GNU (long names, base-256 numbers, sparse) and PAX (``x`` records, sparse
0.0, 0.1 and 1.0). Global PAX headers (``g``) come out as members and do *not* apply to what follows. End: two zero blocks, or the end of
the stream at a member's boundary (also inside a member's padding); what follows the zero blocks is ignored.

File data is never touched, only skipped: a member says where its data lies. Invariants: the result does not depend on how the stream is
cut into chunks; any bytes whatever give members, Corrupt, or what the sink raises; memory is bounded by :class:`Limits`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar
from zlib import adler32

from imagecached.errors import Corrupt
from imagecached.layers import pax
from imagecached.layers.limits import Limits, exceeded, shown

_V = TypeVar("_V")

BLOCK: Final = 512

FILE: Final = b"0"
LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER: Final = b"3"
BLOCK_DEVICE: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"
GLOBAL: Final = b"g"
_OLD_FILE: Final = b"\0"
_GNU_SPARSE: Final = b"S"
_EXTENSIONS: Final = frozenset((b"x", b"g", b"L", b"K"))
_WITHOUT_DATA: Final = frozenset((LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))

_USTAR: Final = b"ustar\0"
_GNU: Final = b"ustar  \0"
_STAR_TRAILER: Final = b"tar\0"
_MEMO: Final = 8192  # distinct header fields remembered; they repeat in nearly every member

# name, mode+uid+gid, size, its end, mtime, its end, checksum, type, link name, magic+version, devices, prefix, rest
_HEADER: Final = struct.Struct("<100s24s11sB11sB8sc100s8s64x16s155s12s")
_ZERO_BLOCK: Final = bytes(BLOCK)
_ZERO_PREFIX: Final = bytes(155)
_OLD_SPARSE: Final = struct.Struct("<386x97s12s17x")  # four pieces and the flag "more follow", real size
_PIECE_BYTES: Final = 24


@dataclass(slots=True)
class Member:
    """One member of the archive, its extension headers merged in. Names are as written; nothing is cleaned."""

    kind: bytes  # type flag; sparse and old-style files arrive as FILE, old-style directories as DIRECTORY
    name: bytes
    mode: int  # permission, setuid, setgid and sticky bits
    uid: int  # 32 bits, or -1: do not set, as chown(2) takes it
    gid: int
    size: int  # logical size of a file
    mtime: int  # seconds, within 1970…2262
    mtime_ns: int
    link: bytes
    data: int | list[tuple[int, int, int]] | None  # where a file's data lies: offset, or sparse extents (logical, length, offset)
    major: int
    minor: int
    xattrs: dict[bytes, bytes] | None  # full names


class _Fields(NamedTuple):
    """A header block, decoded."""

    kind: bytes
    name: bytes
    owner: tuple[int, int, int]
    size: int
    mtime: int
    link: bytes
    device: tuple[int, int]


class Scanner:
    """Scans one archive. ``sink`` gets each member as soon as its header is complete, before its data went by.

    ``origin``: what to add to a stream offset to get a member's data offset.
    """

    def __init__(self, sink: Callable[[Member], None], limits: Limits, origin: int = 0) -> None:
        self._sink = sink
        self._limits = limits
        self._origin = origin
        self.entries = 0
        self._fed = 0  # stream bytes seen
        self._next = 0  # stream offset of the next piece to look at
        self._need = BLOCK  # its length
        self._take: Callable[[bytes, int], int] = self._header  # what looks at it; returns the bytes to skip after it
        self._partial = bytearray()  # the piece's beginning, when a chunk ended inside it
        self._data_end = 0  # the stream may not end before this
        self._ended = False
        self._extension = b""  # type flag of the extension header being read
        self._padding = 0
        self._global_name = b""
        self._records: dict[bytes, bytes] = {}
        self._long_name = b""
        self._long_link = b""
        self._sparse: tuple[Member, list[pax.Piece], int] | None = None  # old GNU: member, pieces so far, stored bytes
        self._map: tuple[Member, pax.DataMap, int] | None = None  # PAX 1.0: member, map, stored bytes left
        self._checksums: dict[bytes, int] = {}
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._devices: dict[bytes, tuple[int, int]] = {}

    def feed(self, data: bytes | memoryview) -> None:
        """Scan the next bytes of the stream. They are not kept."""
        begin = self._fed
        end = self._fed = begin + len(data)
        at = self._next
        while at < end and not self._ended:
            stop = at + self._need
            if stop <= end and not self._partial:
                at = stop + self._take(data[at - begin : stop - begin], stop)  # type: ignore[arg-type]  # any buffer
                continue
            self._partial += data[at + len(self._partial) - begin : min(stop, end) - begin]
            if stop > end:
                break
            piece = bytes(self._partial)
            self._partial.clear()
            at = stop + self._take(piece, stop)
        self._next = at

    def finish(self) -> None:
        """The stream ends here: Corrupt unless that is a legal place to end."""
        if self._ended:
            return
        idle = self._take == self._header or self._take == self._second_zero
        if not idle or self._partial or self._fed < self._data_end:
            raise Corrupt(f"tar stream is truncated at byte {self._fed}")

    def _header(self, block: bytes, stop: int) -> int:
        fields = self._decode(block, stop - BLOCK)
        if fields is None:
            self._take = self._second_zero
            return 0
        if fields.kind in _EXTENSIONS:
            return self._begin_extension(fields, stop)
        self.entries += 1
        if self.entries > self._limits.entries:
            raise exceeded("entries", self._limits.entries, fields.name)
        if self._records or self._long_name or self._long_link or fields.kind == _GNU_SPARSE:
            return self._extended(fields, block, stop)
        kind, name, (mode, uid, gid), size, mtime, link, (major, minor) = fields
        if kind == _OLD_FILE:
            kind = DIRECTORY if name.endswith(b"/") else FILE
        stored = 0 if kind in _WITHOUT_DATA else size
        if stored > self._limits.file_bytes:
            raise exceeded("file_bytes", self._limits.file_bytes, name)
        self._data_end = stop + stored
        data = stop + self._origin if stored else None
        self._sink(Member(kind, name, mode, uid, gid, stored, mtime, 0, link, data, major, minor, None))
        return (stored + 511) & -512

    def _second_zero(self, block: bytes, stop: int) -> int:
        if block != _ZERO_BLOCK:
            raise Corrupt(f"tar header at byte {stop - BLOCK}: follows a zero block")
        self._ended = True
        return 0

    def _decode(self, block: bytes, at: int) -> _Fields | None:
        """The header block at stream offset ``at``, None for a block of zeros."""
        name, owner, size, size_end, mtime, mtime_end, checksum, kind, link, magic, device, prefix, rest = _HEADER.unpack(block)
        total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2  # exact: halves sum below 65521
        if self._checksums.get(checksum) != total:
            if not total:
                return None
            self._check_sum(bytes(block), checksum, total, at)
        name = name.partition(b"\0")[0]
        who = self._owners.get(owner)
        if who is None:
            who = self._owner(owner, at)
        if size.isdigit() and (size_end == 0 or size_end == 32):
            length = octal(size, at)
        else:
            length = number(size + bytes((size_end,)), at)
        if mtime.isdigit() and (mtime_end == 0 or mtime_end == 32):
            seconds = octal(mtime, at)
        else:
            seconds = pax.bounded(number(mtime + bytes((mtime_end,)), at))[0]
        if length < 0 and kind not in _WITHOUT_DATA:
            raise Corrupt(f"tar member {shown(name)}: negative size")
        if link[0]:
            link = link.partition(b"\0")[0]
        else:
            link = b""
        numbers = (0, 0)
        if magic.startswith(_USTAR) or magic == _GNU:
            known = self._devices.get(device)
            numbers = self._device(device, at) if known is None else known
            if prefix != _ZERO_PREFIX or rest.endswith(_STAR_TRAILER):
                name = _prefixed(name, magic, prefix, rest, at)
        return _Fields(kind, name, who, length, seconds, link, numbers)

    def _check_sum(self, block: bytes, field: bytes, total: int, at: int) -> None:
        """Compare with the unsigned sum, or the signed one of old tars; both count the field itself as spaces."""
        stored = number(field, at, binary=False)
        unsigned = total - sum(field) + len(field) * 0x20
        if stored == unsigned:
            _remember(self._checksums, field, total)
        elif stored != unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:]):
            raise Corrupt(f"tar header at byte {at}: wrong checksum")

    def _owner(self, field: bytes, at: int) -> tuple[int, int, int]:
        mode, uid, gid = (number(field[i : i + 8], at) for i in (0, 8, 16))
        return _remember(self._owners, field, (mode & 0o7777, _identity(uid), _identity(gid)))

    def _device(self, field: bytes, at: int) -> tuple[int, int]:
        return _remember(self._devices, field, (number(field[:8], at), number(field[8:], at)))

    # Extension headers: PAX records and GNU long names apply to the next member.

    def _begin_extension(self, fields: _Fields, stop: int) -> int:
        if fields.size > self._limits.pax_bytes:
            raise exceeded("pax_bytes", self._limits.pax_bytes, fields.name)
        self._extension, self._global_name = fields.kind, fields.name
        self._data_end = stop + fields.size
        self._padding = -fields.size % BLOCK
        if not fields.size:
            return self._end_extension(b"", stop)
        self._need, self._take = fields.size, self._end_extension
        return 0

    def _end_extension(self, payload: bytes, stop: int) -> int:
        self._need, self._take = BLOCK, self._header
        payload = bytes(payload)
        if self._extension == b"L":
            self._long_name = payload.partition(b"\0")[0]
        elif self._extension == b"K":
            self._long_link = payload.partition(b"\0")[0]
        else:
            self._records = pax.records(payload)
            if self._extension == GLOBAL:
                self._global(stop)
        return self._padding

    def _global(self, stop: int) -> None:
        member = Member(GLOBAL, self._global_name, 0, 0, 0, 0, 0, 0, b"", None, 0, 0, None)
        self._merge(member)
        self._forget()
        self.entries += 1
        if self.entries > self._limits.entries:
            raise exceeded("entries", self._limits.entries, member.name)
        self._sink(member)

    def _forget(self) -> None:
        self._records, self._long_name, self._long_link = {}, b"", b""

    def _merge(self, member: Member) -> None:
        """Let the PAX records, then the GNU long names override the header."""
        for key, value in self._records.items():
            if key.startswith(pax.XATTR):
                member.xattrs = member.xattrs or {}
                member.xattrs[key[len(pax.XATTR) :]] = value
            elif value:
                _override(member, key, value)
        if self._long_name:
            member.name = self._long_name
        if self._long_link:
            member.link = self._long_link

    def _extended(self, fields: _Fields, block: bytes, stop: int) -> int:
        kind, name, (mode, uid, gid), size, mtime, link, (major, minor) = fields
        member = Member(kind, name, mode, uid, gid, size, mtime, 0, link, None, major, minor, None)
        self._merge(member)
        records = self._records
        self._forget()
        if kind == _OLD_FILE:
            member.kind = DIRECTORY if member.name.endswith(b"/") else FILE
        stored = 0 if member.kind in _WITHOUT_DATA else member.size
        if stored < 0:
            raise Corrupt(f"tar member {shown(member.name)}: negative size")
        self._data_end = stop + stored
        if kind == _GNU_SPARSE:
            return self._old_sparse(member, block, stored, stop)
        if (form := pax.sparse_format(records)) is not None:
            return self._pax_sparse(member, records, form, stored, stop)
        member.size = stored
        member.data = stop + self._origin if stored else None
        return self._emit(member, stored)

    def _emit(self, member: Member, stored: int) -> int:
        """Hand the member on; ``stored`` bytes of its data follow."""
        if member.size > self._limits.file_bytes:
            raise exceeded("file_bytes", self._limits.file_bytes, member.name)
        if b"\0" in member.name:
            raise Corrupt(f"tar member {shown(member.name)}: NUL in the name")
        if member.xattrs and sum(map(len, member.xattrs)) + sum(map(len, member.xattrs.values())) > self._limits.xattr_bytes:
            raise exceeded("xattr_bytes", self._limits.xattr_bytes, member.name)
        self._sink(member)
        return (stored + 511) & -512

    # Sparse members

    def _pax_sparse(self, member: Member, records: dict[bytes, bytes], form: bytes, stored: int, stop: int) -> int:
        member.name = records.get(b"GNU.sparse.name", b"") or member.name
        real = records.get(b"GNU.sparse.size", b"") or records.get(b"GNU.sparse.realsize", b"")
        if real:
            member.size = pax.integer(real)
        if member.kind in _WITHOUT_DATA or member.size < 0:
            raise Corrupt(f"tar member {shown(member.name)}: cannot be sparse")
        if form == b"0":
            return self._emit_sparse(member, pax.header_map(records, self._limits, member.name), stored, stored, stop)
        self._map = member, pax.DataMap(self._limits, member.name), stored
        self._take = self._map_block
        return 0

    def _map_block(self, block: bytes, stop: int) -> int:
        assert self._map is not None
        member, sparse_map, left = self._map
        if left < BLOCK:
            raise Corrupt(f"tar member {shown(member.name)}: sparse map is longer than the data")
        pieces = sparse_map.feed(bytes(block))
        self._map = member, sparse_map, left - BLOCK
        if pieces is None:
            return 0
        self._take, self._map = self._header, None
        return self._emit_sparse(member, pieces, left - BLOCK, left - BLOCK, stop)

    def _old_sparse(self, member: Member, block: bytes, stored: int, stop: int) -> int:
        if block[257:265] != _GNU:
            raise Corrupt(f"tar member {shown(member.name)}: sparse member of an unknown format")
        array, real = _OLD_SPARSE.unpack(block)
        member.size = number(real, stop - BLOCK)
        member.kind = FILE
        self._sparse = member, [], stored
        return self._sparse_array(array, stop)

    def _sparse_block(self, block: bytes, stop: int) -> int:
        self._data_end += BLOCK
        return self._sparse_array(bytes(block[:505]), stop)

    def _sparse_array(self, array: bytes, stop: int) -> int:
        assert self._sparse is not None
        member, pieces, stored = self._sparse
        for i in range(0, len(array) - 1, _PIECE_BYTES):
            if array[i] == 0:
                break
            pieces.append((number(array[i : i + 12], stop), number(array[i + 12 : i + 24], stop)))
        if len(pieces) > self._limits.sparse_extents:
            raise exceeded("sparse_extents", self._limits.sparse_extents, member.name)
        if array[-1]:
            self._take = self._sparse_block
            return 0
        self._take, self._sparse = self._header, None
        return self._emit_sparse(member, pieces, stored, stored, stop)

    def _emit_sparse(self, member: Member, pieces: list[pax.Piece], stored: int, follows: int, stop: int) -> int:
        pax.check_pieces(pieces, member.size, stored)
        offset = stop + self._origin
        extents: list[tuple[int, int, int]] = []
        for logical, length in pieces:
            if length:
                extents.append((logical, length, offset))
                offset += length
        whole = len(extents) == 1 and extents[0][:2] == (0, member.size)
        member.data = extents[0][2] if whole else extents if member.size else None
        return self._emit(member, follows)


def octal(digits: bytes, at: int) -> int:
    """A field of octal digits only."""
    try:
        return int(digits, 8)
    except ValueError:
        raise Corrupt(f"tar header at byte {at}: not an octal number: {digits!r}") from None


def number(field: bytes, at: int, *, binary: bool = True) -> int:
    """A numeric field: octal with spaces or NULs around, or base-256 (two's complement, 64 bits at most)."""
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


def _identity(value: int) -> int:
    """A user or group id as the kernel takes it: its low 32 bits, all ones meaning "do not set"."""
    value &= 0xFFFFFFFF
    return -1 if value == 0xFFFFFFFF else value


def _remember(memo: dict[bytes, _V], field: bytes, value: _V) -> _V:
    if len(memo) >= _MEMO:
        memo.clear()
    memo[field] = value
    return value


def _override(member: Member, key: bytes, value: bytes) -> None:
    """Apply one PAX record that is not an extended attribute."""
    if key == b"path":
        member.name = value
    elif key == b"linkpath":
        member.link = value
    elif key == b"size":
        member.size = pax.integer(value)
    elif key == b"mtime":
        member.mtime, member.mtime_ns = pax.timestamp(value)
    elif key == b"uid":
        member.uid = _identity(pax.integer(value))
    elif key == b"gid":
        member.gid = _identity(pax.integer(value))
    elif key in (b"atime", b"ctime"):
        pax.timestamp(value)  # a malformed one is an error, as for every reader of the format


def _prefixed(name: bytes, magic: bytes, prefix: bytes, rest: bytes, at: int) -> bytes:
    """The name with the header's prefix, which is something else in GNU headers and shorter in star's."""
    if magic == _GNU:
        try:  # access and change time
            for field in (prefix[:12], prefix[12:24]):
                if field[0]:
                    number(field, at)
            return name
        except Corrupt:  # a prefix after all, by an old version of Go
            prefix = prefix.partition(b"\0")[0]
            prefix = prefix if prefix.isascii() else b""
    elif rest.endswith(_STAR_TRAILER):
        number(prefix[131:143], at)
        number(prefix[143:155], at)
        prefix = prefix[:131]
    prefix = prefix.partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name
