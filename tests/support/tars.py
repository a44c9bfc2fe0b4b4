"""Layers made by hand, entry by entry; the same call gives the same bytes.

tar(directory("etc", mode=0o700), file("etc/motd", b"hi"), whiteout("etc/old"), symlink("e", "etc"))
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypedDict, Unpack

EPOCH: Final = 1_700_000_000
"""The mtime of entries that do not name one, in seconds."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A header and, for regular files, the bytes after it."""

    header: tarfile.TarInfo
    content: bytes = b""


class Facts(TypedDict, total=False):
    """What any entry may say of itself; ``mtime`` in seconds, with a fraction if wanted."""

    uid: int
    gid: int
    mtime: float
    xattrs: Mapping[str, bytes]


def entry(name: str, kind: bytes, *, mode: int, target: str = "", **facts: Unpack[Facts]) -> Entry:
    """An entry without content; ``kind`` is one of tarfile's type constants. Xattrs become PAX records."""
    header = tarfile.TarInfo(name)
    header.type, header.mode, header.linkname = kind, mode, target
    header.uid, header.gid = facts.get("uid", 0), facts.get("gid", 0)
    header.mtime = facts.get("mtime", EPOCH)
    header.pax_headers = {
        # tarfile writes records as UTF-8; surrogates carry any other byte through.
        f"SCHILY.xattr.{key}": value.decode("utf-8", "surrogateescape")
        for key, value in facts.get("xattrs", {}).items()
    }
    return Entry(header)


def file(name: str, content: bytes = b"", *, mode: int = 0o644, **facts: Unpack[Facts]) -> Entry:
    """A regular file."""
    made = entry(name, tarfile.REGTYPE, mode=mode, **facts)
    made.header.size = len(content)
    return Entry(made.header, content)


def directory(name: str, *, mode: int = 0o755, **facts: Unpack[Facts]) -> Entry:
    """A directory."""
    return entry(name, tarfile.DIRTYPE, mode=mode, **facts)


def symlink(name: str, target: str, **facts: Unpack[Facts]) -> Entry:
    """A symbolic link; the target is taken as it is."""
    return entry(name, tarfile.SYMTYPE, mode=0o777, target=target, **facts)


def hardlink(name: str, target: str, **facts: Unpack[Facts]) -> Entry:
    """A second name of the entry ``target`` of this layer, or of a lower one."""
    return entry(name, tarfile.LNKTYPE, mode=0o644, target=target, **facts)


def fifo(name: str, *, mode: int = 0o600, **facts: Unpack[Facts]) -> Entry:
    """A named pipe."""
    return entry(name, tarfile.FIFOTYPE, mode=mode, **facts)


def device(name: str, major: int, minor: int, *, block: bool = False, mode: int = 0o600) -> Entry:
    """A character or block device."""
    made = entry(name, tarfile.BLKTYPE if block else tarfile.CHRTYPE, mode=mode)
    made.header.devmajor, made.header.devminor = major, minor
    return made


def whiteout(path: str) -> Entry:
    """The removal of a lower layer's ``path``, in the OCI spelling."""
    folder, slash, name = path.rpartition("/")
    return file(f"{folder}{slash}.wh.{name}")


def opaque(folder: str) -> Entry:
    """The mark that hides all that lower layers hold in ``folder``."""
    return file(f"{folder}/.wh..wh..opq")


def tar(*entries: Entry) -> bytes:
    """An archive of these entries in this order; PAX headers only where an entry needs them."""
    return tar_of(entries)


def tar_of(entries: Iterable[Entry]) -> bytes:
    """The same for entries made on the way."""
    archive = io.BytesIO()
    with tarfile.open(
        fileobj=archive, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
    ) as writer:
        for one in entries:
            writer.addfile(one.header, io.BytesIO(one.content))
    return archive.getvalue()


def joined(*archives: bytes) -> bytes:
    """One archive with the entries of several, one after the other."""
    both = io.BytesIO()
    with tarfile.open(fileobj=both, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as writer:
        for archive in archives:
            with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as reader:
                for header in reader:
                    writer.addfile(header, reader.extractfile(header) if header.isreg() else None)
    return both.getvalue()
