"""What one layer may cost: the bounds that keep a hostile tar from taking the node.

Exceeding a bound raises :class:`~imagecached.errors.Corrupt` naming the bound and the member. The defaults
are far above what real layers need and low enough that memory and disk stay bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imagecached.errors import Corrupt

_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for one layer; every field is a count or a number of bytes."""

    entries: int = 2_000_000  # members of the archive; parent directories it does not mention count again
    tar_bytes: int = 1 << 40  # the uncompressed stream
    metadata_bytes: int = 512 << 20  # what is written behind the stream: realigned data, inodes, notes
    path_bytes: int = 4096  # a member's path, as PATH_MAX of the kernel
    depth: int = 1024  # components of a member's path
    xattr_bytes: int = 1 << 20  # names and values of one member's extended attributes
    sparse_extents: int = 1_000_000  # pieces of one sparse member, and of all together
    file_bytes: int = 1 << 43  # logical size of one file
    pax_bytes: int = 1 << 20  # one PAX header or GNU long name

    @property
    def text_bytes(self) -> int:
        """Bound for names, link targets and extended attributes of all members; memory holds them."""
        return self.metadata_bytes // 4


def shown(name: bytes) -> str:
    """A member's name for a message: printable, one line, shortened in the middle."""
    text = ascii(name)[1:]
    if len(text) <= _SHOWN:
        return text
    return f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"


def exceeded(limit: str, bound: int, name: bytes) -> Corrupt:
    """The error for a member that needs more than ``bound`` of ``limit`` (a field of :class:`Limits`)."""
    return Corrupt(f"tar member {shown(name)}: more than {bound} {limit.replace('_', ' ')}")
