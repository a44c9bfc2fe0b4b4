"""The front of a layer file, and whether the rest is what it says.

====================  ==================================================================================
0 … 1023              header: JSON padded with NUL, see :class:`Header`; its last 32 bytes are the sha256
                      of the others
1024 … 1151           EROFS superblock, written last; zeros to 4095
4096 …                the tar stream, ``tar_bytes`` long (a seam: data of linked files)
metadata.offset …     all the rest, covered by ``metadata_digest``: zeros to a page's end, realigned
                      chunks of sparse files, EROFS metadata, notes (MessagePack), zeros to a page's end
====================  ==================================================================================

So every byte of a layer file is covered: by the diffID, by one of the two digests, or it follows from them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from imagecached.errors import Corrupt, InvalidInput
from imagecached.layers import erofs
from imagecached.layers.notes import Notes
from imagecached.oci.digest import Digest

FORMAT: Final = 1
HEADER_BYTES: Final = 1024
DATA_OFFSET: Final = 4096
_TEXT_BYTES: Final = HEADER_BYTES - 32
_READ_BYTES: Final = 1 << 20


class Area(msgspec.Struct, frozen=True):
    """A byte range of the file."""

    offset: int
    bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.bytes


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes 0–1023 of a layer file or seam."""

    format: int
    tar_bytes: int  # 0 in a seam
    entries: int  # members of the tar; a seam: inodes
    inodes: int
    image: Area  # EROFS metadata: nid n lies at offset + 32 n
    notes: Area
    metadata: Area  # everything behind the data
    metadata_digest: str
    diff_id: str | None = None  # layer file
    chain_id: str | None = None  # seam

    @property
    def file_bytes(self) -> int:
        """Length of the file."""
        return self.metadata.end

    def encoded(self) -> bytes:
        """The 1024 bytes on disk."""
        return _framed(msgspec.json.encode(self))

    def superblock(self) -> bytes:
        """The EROFS superblock that belongs to this header."""
        identity = self.diff_id or self.chain_id or ""
        return erofs.superblock(
            meta=self.image.offset,
            inodes=self.inodes,
            file_bytes=self.file_bytes,
            uuid=hashlib.sha256(identity.encode()).digest()[:16],
        )


def read_header(fd: int) -> Header:
    """The header of an open layer file or seam. Corrupt if it is none, or does not fit the file; OSError."""
    raw = os.pread(fd, HEADER_BYTES, 0)
    text = raw[:_TEXT_BYTES].rstrip(b"\0")
    if raw != _framed(text):
        raise Corrupt("not a layer file, or its header is damaged")
    try:
        header = msgspec.json.decode(text, type=Header)
        for digest in (header.metadata_digest, header.diff_id, header.chain_id):
            if digest is not None:
                Digest.parse(digest)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidInput) as error:
        raise Corrupt("layer file: its header cannot be read") from error
    if header.format != FORMAT:
        raise Corrupt(f"layer file of unknown format {header.format}")
    if not _fits(header, os.fstat(fd).st_size):
        raise Corrupt("layer file: its header does not fit the file")
    return header


def read_notes(fd: int, header: Header) -> Notes:
    """The notes of an open layer file or seam. Corrupt, OSError."""
    try:
        return msgspec.msgpack.decode(os.pread(fd, header.notes.bytes, header.notes.offset), type=Notes)
    except msgspec.MsgspecError as error:
        raise Corrupt("layer file: its notes cannot be read") from error


def verify_layer(path: Path, diff_id: Digest) -> None:
    """Digest tar and metadata again, check header and superblock. Corrupt says what differs; OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        header = read_header(fd)
        if header.diff_id != diff_id:
            raise Corrupt(f"layer file of {diff_id}: its header says {header.diff_id}")
        front = os.pread(fd, DATA_OFFSET - HEADER_BYTES, HEADER_BYTES)
        if front != header.superblock().ljust(DATA_OFFSET - HEADER_BYTES, b"\0"):
            raise Corrupt(f"layer file of {diff_id}: wrong superblock")
        _check(fd, header.metadata, Digest.parse(header.metadata_digest), f"metadata of {diff_id}")
        _check(fd, Area(DATA_OFFSET, header.tar_bytes), diff_id, f"tar of {diff_id}")
    finally:
        os.close(fd)


def read_area(fd: int, area: Area, sink: Callable[[bytes], object]) -> None:
    """Hand all of an area to ``sink``, piece by piece. Corrupt if the file ends before; OSError."""
    at = area.offset
    while at < area.end:
        piece = os.pread(fd, min(_READ_BYTES, area.end - at), at)
        if not piece:
            raise Corrupt(f"layer file: ends at byte {at}")
        sink(piece)
        at += len(piece)


def _framed(text: bytes) -> bytes:
    """The header's text with padding and digest: damage is found before anything in it is believed."""
    padded = text.ljust(_TEXT_BYTES, b"\0")
    return padded + hashlib.sha256(padded).digest()


def _fits(header: Header, file_bytes: int) -> bool:
    """Whether the areas follow each other inside a file of that length."""
    metadata, image, notes = header.metadata, header.image, header.notes
    tar_end = DATA_OFFSET + header.tar_bytes
    edges = [
        DATA_OFFSET,
        tar_end,
        metadata.offset,
        image.offset,
        image.end,
        notes.offset,
        notes.end,
        metadata.end,
    ]
    behind_tar = header.diff_id is None or metadata.offset == tar_end
    return edges == sorted(edges) and metadata.end == file_bytes and behind_tar


def _check(fd: int, area: Area, expected: Digest, what: str) -> None:
    hasher = expected.hasher()
    read_area(fd, area, hasher.update)
    if hasher.hexdigest() != expected.hex:
        raise Corrupt(f"{what}: expected digest {expected}, found {expected.algorithm}:{hasher.hexdigest()}")
