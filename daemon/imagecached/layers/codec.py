"""Compressed layer blobs → tar bytes, by pulling: the caller owns the buffers, the codec owns the format.

An :class:`Inflater` reads a :class:`Source` and fills buffers that the caller gives and may use again, so a
stream that inflates ten-thousandfold costs no more memory than any other, and no buffer is made per piece.
Making one already reads from the source, so both belong on a worker thread. Nothing here checks digests or
reads the tar.

Which codec: as in containerd, the media type says whether the blob may be compressed and the first bytes say
how. So a gzip body under a zstd type is read as gzip, an uncompressed body under a gzip type as tar; only the
OCI type ``…layer.v1.tar`` is taken as it stands. The diffID decides in the end whether that was right.

Strictness: several gzip members and several zstd frames are one stream; skippable zstd frames and NUL padding
after a gzip member are passed over (gzip(1) does so, Go refuses the padding). Anything else after valid data,
a stream that stops early, a wrong checksum: Corrupt.
"""

from __future__ import annotations

from collections.abc import Callable
from gzip import BadGzipFile
from typing import BinaryIO, Final, Protocol, cast

import zstandard
from isal import isal_zlib
from isal.isal_zlib import _GzipReader

from imagecached.errors import Corrupt, Unsupported

INPUT_BYTES: Final = 128 << 10
ZSTD_WINDOW_BYTES: Final = 128 << 20

_RAW = "application/vnd.oci.image.layer.v1.tar"
_SNIFFED = frozenset(
    {
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    }
)
_FOREIGN = (
    "application/vnd.oci.image.layer.nondistributable.",
    "application/vnd.docker.image.rootfs.foreign.",
)
_GZIP_MAGIC = b"\x1f\x8b\x08"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = range(0x184D2A50, 0x184D2A60)
_MAGIC_BYTES = 8
_IsalError = cast(type[Exception], isal_zlib.error)


class Source(Protocol):
    """Where compressed bytes come from. Both calls may block and give b"" or 0 only at the end.

    ``readinto`` may give less than asked, ``read`` less or more; what ``read`` returned must stay as it is.
    """

    def read(self, size: int = -1, /) -> bytes | memoryview: ...

    def readinto(self, buffer: memoryview, /) -> int: ...


class Inflater(Protocol):
    """``readinto`` fills ``buffer`` to its end except with the stream's last bytes, and returns 0 at the end.

    It has read the source to its end by then. Raises Corrupt, Unsupported, and whatever the source raises.
    """

    def readinto(self, buffer: memoryview, /) -> int: ...


def check_media_type(media_type: str) -> None:
    """Unsupported, naming the type, unless layers of this media type can be read."""
    if media_type.startswith(_FOREIGN):
        raise Unsupported(f"layer of a media type that registries must not hand out: {media_type}")
    if media_type != _RAW and media_type not in _SNIFFED:
        raise Unsupported(f"layer of unknown media type {media_type[:150]!r}")


def inflater(media_type: str, source: Source) -> Inflater:
    """The codec for a blob of ``media_type`` (rule: see the module) that ``source`` gives. Unsupported."""
    check_media_type(media_type)
    if media_type == _RAW:
        return _Plain(source)
    rewound = _Rewound(source)
    if rewound.head.startswith(_GZIP_MAGIC):
        return _Gzip(rewound)
    if rewound.head.startswith(_ZSTD_MAGIC) or _starts_skippable(rewound.head):
        return _Zstd(rewound)
    return _Plain(rewound)


def _starts_skippable(head: bytes) -> bool:
    return len(head) >= _MAGIC_BYTES and int.from_bytes(head[:4], "little") in _SKIPPABLE_MAGIC


class _Rewound:
    """A source whose first bytes have been looked at and are given once more."""

    def __init__(self, source: Source) -> None:
        self._source = source
        head = bytearray()
        while len(head) < _MAGIC_BYTES and (piece := source.read(_MAGIC_BYTES - len(head))):
            head += piece
        self.head = self._rest = bytes(head)

    def read(self, size: int = -1, /) -> bytes | memoryview:
        if not self._rest:
            return self._source.read(size)
        piece, self._rest = self._rest, b""
        return piece

    def readinto(self, buffer: memoryview, /) -> int:
        if not self._rest:
            return self._source.readinto(buffer)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Plain:
    def __init__(self, source: Source) -> None:
        self._source = source

    def readinto(self, buffer: memoryview, /) -> int:
        return _fill(self._source.readinto, buffer)


class _Gzip:
    """RFC 1952, any number of members; isal checks every trailer.

    ``_GzipReader`` is what ``isal.igzip.open`` reads from; the public face adds a buffer, a copy and a new
    object per piece.
    """

    def __init__(self, source: Source) -> None:
        self._read = _GzipReader(cast(BinaryIO, source), INPUT_BYTES).readinto

    def readinto(self, buffer: memoryview, /) -> int:
        return _fill(self._step, buffer)

    def _step(self, buffer: memoryview) -> int:
        try:
            return self._read(buffer)
        except EOFError:
            raise Corrupt("gzip: the stream stops early") from None
        except (BadGzipFile, _IsalError) as error:
            raise Corrupt(f"gzip: {error}") from None


class _Zstd:
    """RFC 8878, any number of frames. libzstd decodes, :class:`_Frames` sees what its reader keeps quiet."""

    def __init__(self, source: Source) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES)
        self._read: Callable[[memoryview], int] = decompressor.stream_reader(
            cast(BinaryIO, _Followed(source)), read_size=INPUT_BYTES, read_across_frames=True
        ).readinto

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return _fill(self._read, buffer)
        except zstandard.ZstdError as error:
            raise Corrupt(f"zstd: {error}") from None


class _Followed:
    """The source as libzstd reads it: its end must be the end of a frame."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._frames = _Frames()

    def read(self, size: int = -1, /) -> bytes | memoryview:
        data = self._source.read(size)
        self._frames.follow(memoryview(data))
        if not data and not self._frames.complete:
            raise Corrupt("zstd: the stream stops early")
        return data


class _Frames:
    """Follows frame and block boundaries without decoding, a few bytes in every 128 KiB (RFC 8878 § 3.1).

    python-zstandard's reader ends quietly when its input ends inside a frame, drops up to three stray bytes
    at the end, and gives a window that is too large the same error class as damage.
    """

    def __init__(self) -> None:
        self._field = bytearray()
        self._wanted = 4
        self._parse: Callable[[bytes], None] = self._magic
        self._skip = 0
        self._descriptor_bits = 0

    @property
    def complete(self) -> bool:
        """True between frames."""
        return not self._field and not self._skip and self._parse == self._magic

    def follow(self, data: memoryview) -> None:
        """See the next bytes of the stream. Corrupt, Unsupported."""
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._field), len(data) - position)
                self._field += data[position : position + step]
                if len(self._field) == self._wanted:
                    field = bytes(self._field)
                    self._field.clear()
                    self._parse(field)
            position += step

    def _expect(self, size: int, parse: Callable[[bytes], None]) -> None:
        self._wanted, self._parse = size, parse

    def _magic(self, field: bytes) -> None:
        if field == _ZSTD_MAGIC:
            self._expect(1, self._descriptor)
        elif int.from_bytes(field, "little") in _SKIPPABLE_MAGIC:
            self._expect(4, self._skippable)
        else:
            raise Corrupt(f"zstd: not a frame: {field.hex()}")

    def _skippable(self, field: bytes) -> None:
        self._skip = int.from_bytes(field, "little")
        self._expect(4, self._magic)

    def _descriptor(self, field: bytes) -> None:
        bits = self._descriptor_bits = field[0]
        single = bits >> 5 & 1
        content_size = (single, 2, 4, 8)[bits >> 6]
        dictionary = (0, 1, 2, 4)[bits & 3]
        self._expect((not single) + dictionary + content_size, self._frame_header)

    def _frame_header(self, field: bytes) -> None:
        if not self._descriptor_bits >> 5 & 1:
            base = 1 << 10 + (field[0] >> 3)
            window = base + (base >> 3) * (field[0] & 7)
            if window > ZSTD_WINDOW_BYTES:
                raise Unsupported(f"zstd: window of {window} bytes, at most {ZSTD_WINDOW_BYTES} are read")
        self._expect(3, self._block)

    def _block(self, field: bytes) -> None:
        header = int.from_bytes(field, "little")
        kind = header >> 1 & 3
        self._skip = 1 if kind == 1 else header >> 3
        if header & 1:
            self._skip += 4 * (self._descriptor_bits >> 2 & 1)
            self._expect(4, self._magic)


def _fill(read: Callable[[memoryview], int], buffer: memoryview) -> int:
    """Fill ``buffer`` by as many reads as it takes; the number of bytes put there."""
    filled = read(buffer)
    while 0 < filled < len(buffer):
        count = read(buffer[filled:])
        if not count:
            break
        filled += count
    return filled
