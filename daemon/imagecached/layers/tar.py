"""A push scanner for tar streams: bytes in any chunks, members out.

Owns the archive's syntax and knows nothing of trees or files. It reads what Go's ``archive/tar`` reads, in
the same way, because that is what the image's other users unpack with: V7, ustar, star, GNU (long names,
base-256 numbers, sparse) and PAX (``x`` records, sparse 0.0, 0.1 and 1.0). Global PAX headers (``g``) come
out as members and do *not* apply to what follows. End: two zero blocks, or the end of the stream at a
member's boundary (also inside a member's padding); what follows the zero blocks is ignored.

File data is never touched, only skipped: a member says where its data lies. Invariants: the result does not
depend on how the stream is cut into chunks; any bytes whatever give members, Corrupt, or what the sink
raises; memory is bounded by :class:`Limits`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from imagecached.errors import Corrupt
from imagecached.layers import pax
from imagecached.layers.header import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    GLOBAL,
    GNU_MAGIC,
    GNU_SPARSE,
    LINK,
    OLD_FILE,
    SYMLINK,
    WITHOUT_DATA,
    ZERO_BLOCK,
    Decoder,
    Fields,
    View,
    identity,
    number,
)
from imagecached.layers.limits import Limits, exceeded, shown
from imagecached.layers.node import Extent

__all__ = [
    "BLOCK_DEVICE", "CHARACTER", "DIRECTORY", "FIFO", "FILE", "GLOBAL", "LINK", "SYMLINK",
    "Member", "Scanner",
]  # fmt: skip

_EXTENSIONS: Final = frozenset((b"x", GLOBAL, b"L", b"K"))
_OLD_SPARSE: Final = struct.Struct("<386x97s12s17x")  # four pieces and the flag "more follow", real size
_OLD_SPARSE_MORE: Final = 505  # bytes of an extension block: 21 pieces and the flag
_PIECE_BYTES: Final = 24


@dataclass(slots=True)
class Member:
    """One member of the archive, its extension headers merged in. Names are as written, not cleaned."""

    kind: bytes  # type flag; sparse and old-style files arrive as FILE, old-style directories as DIRECTORY
    name: bytes
    mode: int  # permission, setuid, setgid and sticky bits
    uid: int  # 32 bits, or -1: do not set, as chown(2) takes it
    gid: int
    size: int  # logical size of a file
    mtime: int  # seconds, within 1970…2262
    mtime_ns: int
    link: bytes
    data: int | list[Extent] | None  # where a file's data lies, offsets being the stream's plus ``origin``
    major: int
    minor: int
    xattrs: dict[bytes, bytes] | None  # full names


class Scanner:
    """Scans one archive. ``sink`` gets each member when its header is complete, before its data went by.

    ``origin``: what to add to a stream offset to get a member's data offset.
    """

    def __init__(self, sink: Callable[[Member], None], limits: Limits, origin: int = 0) -> None:
        self._sink = sink
        self._limits = limits
        self._origin = origin
        self._decode = Decoder().decode
        self.entries = 0
        self._fed = 0  # stream bytes seen
        self._next = 0  # stream offset of the next piece to look at
        self._need = BLOCK  # its length
        self._take: Callable[[View, int], int] = self._header  # looks at it; returns the bytes to skip then
        self._partial = bytearray()  # the piece's beginning, when a chunk ended inside it
        self._data_end = 0  # the stream may not end before this
        self._ended = False
        self._extension = b""  # type flag of the extension header being read
        self._padding = 0
        self._global_name = b""
        self._records: dict[bytes, bytes] = {}
        self._long_name = b""
        self._long_link = b""
        self._pieces = 0  # of all sparse members
        self._sparse: tuple[Member, list[pax.Piece], int] | None = (
            None  # old GNU: pieces so far, stored bytes
        )
        self._map: tuple[Member, pax.DataMap, int] | None = None  # PAX 1.0: the map, stored bytes left

    def feed(self, data: bytes | memoryview) -> None:
        """Scan the next bytes of the stream. They are not kept."""
        begin = self._fed
        end = self._fed = begin + len(data)
        at = self._next
        while at < end and not self._ended:
            stop = at + self._need
            if stop <= end and not self._partial:
                at = stop + self._take(data[at - begin : stop - begin], stop)
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

    def _header(self, block: View, stop: int) -> int:
        fields = self._decode(block, stop - BLOCK)
        if fields is None:
            self._take = self._second_zero
            return 0
        if fields.kind in _EXTENSIONS:
            return self._begin_extension(fields, stop)
        self._count(fields.name)
        if self._records or self._long_name or self._long_link or fields.kind == GNU_SPARSE:
            return self._extended(fields, block, stop)
        kind, name, (mode, uid, gid), size, mtime, link, (major, minor) = fields
        if kind == OLD_FILE:
            kind = DIRECTORY if name.endswith(b"/") else FILE
        stored = 0 if kind in WITHOUT_DATA else size
        if stored > self._limits.file_bytes:
            raise exceeded("file_bytes", self._limits.file_bytes, name)
        self._data_end = stop + stored
        data = stop + self._origin if stored else None
        self._sink(Member(kind, name, mode, uid, gid, stored, mtime, 0, link, data, major, minor, None))
        return (stored + 511) & -512

    def _second_zero(self, block: View, stop: int) -> int:
        if block != ZERO_BLOCK:
            raise Corrupt(f"tar header at byte {stop - BLOCK}: follows a zero block")
        self._ended = True
        return 0

    # Extension headers: PAX records and GNU long names apply to the next member.

    def _begin_extension(self, fields: Fields, stop: int) -> int:
        if fields.size > self._limits.pax_bytes:
            raise exceeded("pax_bytes", self._limits.pax_bytes, fields.name)
        self._extension, self._global_name = fields.kind, fields.name
        self._data_end = stop + fields.size
        self._padding = -fields.size % BLOCK
        if not fields.size:
            return self._end_extension(b"", stop)
        self._need, self._take = fields.size, self._end_extension
        return 0

    def _end_extension(self, lent: View, _stop: int) -> int:
        self._need, self._take = BLOCK, self._header
        payload = bytes(lent)
        if self._extension == b"L":
            self._long_name = payload.partition(b"\0")[0]
        elif self._extension == b"K":
            self._long_link = payload.partition(b"\0")[0]
        else:
            self._records = pax.records(payload)
            if self._extension == GLOBAL:
                self._global()
        return self._padding

    def _global(self) -> None:
        """A global header: its records count for itself only, and it makes earlier extension headers void."""
        member = Member(GLOBAL, self._global_name, 0, 0, 0, 0, 0, 0, b"", None, 0, 0, None)
        self._long_name = self._long_link = b""
        self._merge(member)
        self._forget()
        self._count(member.name)
        self._sink(member)

    def _count(self, name: bytes) -> None:
        self.entries += 1
        if self.entries > self._limits.entries:
            raise exceeded("entries", self._limits.entries, name)

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

    def _extended(self, fields: Fields, block: View, stop: int) -> int:
        kind, name, (mode, uid, gid), size, mtime, link, (major, minor) = fields
        member = Member(kind, name, mode, uid, gid, size, mtime, 0, link, None, major, minor, None)
        self._merge(member)
        records = self._records
        self._forget()
        if kind == OLD_FILE:
            member.kind = DIRECTORY if member.name.endswith(b"/") else FILE
        stored = 0 if member.kind in WITHOUT_DATA else member.size
        if stored < 0:
            raise Corrupt(f"tar member {shown(member.name)}: negative size")
        self._data_end = stop + stored
        if kind == GNU_SPARSE:
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
        if (
            sum(len(key) + len(value) for key, value in (member.xattrs or {}).items())
            > self._limits.xattr_bytes
        ):
            raise exceeded("xattr_bytes", self._limits.xattr_bytes, member.name)
        self._sink(member)
        return (stored + 511) & -512

    # Sparse members

    def _pax_sparse(
        self, member: Member, records: dict[bytes, bytes], form: bytes, stored: int, stop: int
    ) -> int:
        member.name = records.get(b"GNU.sparse.name", b"") or member.name
        real = records.get(b"GNU.sparse.size", b"") or records.get(b"GNU.sparse.realsize", b"")
        if real:
            member.size = pax.integer(real)
        if member.kind in WITHOUT_DATA or member.size < 0:
            raise Corrupt(f"tar member {shown(member.name)}: cannot be sparse")
        if form == b"0":
            return self._emit_sparse(member, pax.header_map(records), stored, stop)
        self._map = member, pax.DataMap(self._limits, member.name), stored
        self._take = self._map_block
        return 0

    def _map_block(self, block: View, stop: int) -> int:
        assert self._map is not None
        member, sparse_map, left = self._map
        if left < BLOCK:
            raise Corrupt(f"tar member {shown(member.name)}: sparse map is longer than the data")
        pieces = sparse_map.feed(bytes(block))
        self._map = member, sparse_map, left - BLOCK
        if pieces is None:
            return 0
        self._take, self._map = self._header, None
        return self._emit_sparse(member, pieces, left - BLOCK, stop)

    def _old_sparse(self, member: Member, block: View, stored: int, stop: int) -> int:
        if block[257:265] != GNU_MAGIC:
            raise Corrupt(f"tar member {shown(member.name)}: sparse member of an unknown format")
        array, real = _OLD_SPARSE.unpack(block)
        member.size = number(real, stop - BLOCK)
        member.kind = FILE
        self._sparse = member, [], stored
        return self._sparse_array(array, stop)

    def _sparse_block(self, block: View, stop: int) -> int:
        self._data_end += BLOCK
        return self._sparse_array(bytes(block[:_OLD_SPARSE_MORE]), stop)

    def _sparse_array(self, array: bytes, stop: int) -> int:
        assert self._sparse is not None
        member, pieces, stored = self._sparse
        for i in range(0, len(array) - 1, _PIECE_BYTES):
            if array[i] == 0:
                break
            pieces.append((number(array[i : i + 12], stop), number(array[i + 12 : i + 24], stop)))
        if array[-1]:
            if len(pieces) > self._limits.sparse_extents:
                raise exceeded("sparse_extents", self._limits.sparse_extents, member.name)
            self._take = self._sparse_block
            return 0
        self._take, self._sparse = self._header, None
        return self._emit_sparse(member, pieces, stored, stop)

    def _emit_sparse(self, member: Member, pieces: list[pax.Piece], stored: int, stop: int) -> int:
        self._pieces += len(pieces)
        if self._pieces > self._limits.sparse_extents:
            raise exceeded("sparse_extents", self._limits.sparse_extents, member.name)
        pax.check_pieces(pieces, member.size, stored)
        offset = stop + self._origin
        extents: list[Extent] = []
        for logical, length in pieces:
            if length:
                extents.append((logical, length, offset))
                offset += length
        whole = len(extents) == 1 and extents[0][:2] == (0, member.size)
        member.data = extents[0][2] if whole else extents if member.size else None
        return self._emit(member, stored)


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
        member.uid = identity(pax.integer(value))
    elif key == b"gid":
        member.gid = identity(pax.integer(value))
    elif key in (b"atime", b"ctime"):
        pax.timestamp(value)  # a malformed one is an error, as for every reader of the format
