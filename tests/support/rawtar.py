"""Tar archives byte by byte: what no well-behaved writer would produce.

`tarfile` refuses or tidies most of what a hostile or merely odd layer holds, so this module writes headers
itself. Everything is explicit: a PAX header is written only for the records given, a checksum is right unless
the caller overrides the bytes, and an archive ends the way the caller says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

BLOCK = 512
NOON = 1_700_000_000
"""The modification time entries get when a test does not care: 2023-11-14 22:13:20 UTC."""

FILE, HARD_LINK, SYMLINK, CHAR, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
END = bytes(2 * BLOCK)


def number(value: int, width: int) -> bytes:
    """`value` as octal digits where they suffice, else in GNU's base-256 form (also for negative values)."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0x80 if value >= 0 else 0xFF]) + (value % (1 << (8 * (width - 1)))).to_bytes(
        width - 1, "big"
    )


def header(
    name: bytes,
    kind: bytes = FILE,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = NOON,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    magic: bytes = b"ustar\x0000",
    tail: bytes | None = None,
) -> bytes:
    """One 512-byte header block; `name`, `link` and `prefix` are cut at their fields' widths, not checked.

    `tail` replaces the 167 bytes after the device numbers (prefix and padding), for GNU's old formats.
    """
    rest = prefix[:155].ljust(155, b"\0") + bytes(12) if tail is None else tail.ljust(167, b"\0")
    fields = [
        name[:100].ljust(100, b"\0"),
        number(mode, 8),
        number(uid, 8),
        number(gid, 8),
        number(size, 12),
        number(mtime, 12),
        b" " * 8,
        kind,
        link[:100].ljust(100, b"\0"),
        magic,
        bytes(64),
        number(device[0], 8),
        number(device[1], 8),
        rest,
    ]
    return signed(b"".join(fields))


def signed(block: bytes) -> bytes:
    """The header block with its checksum field made right."""
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def pax_record(key: bytes, value: bytes) -> bytes:
    """One `length key=value` line; the length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body


def pax(records: Mapping[bytes, bytes] | Iterable[tuple[bytes, bytes]], kind: bytes = b"x") -> bytes:
    """A PAX extended header (`x`) or global header (`g`) with these records in this order."""
    pairs = records.items() if isinstance(records, Mapping) else records
    body = b"".join(pax_record(key, value) for key, value in pairs)
    return header(b"PaxHeaders/x", kind, size=len(body)) + padded(body)


def gnu_long(text: bytes, kind: bytes) -> bytes:
    """GNU's long name (`L`) or long link (`K`) entry."""
    return header(b"././@LongLink", kind, size=len(text) + 1, magic=b"ustar  \0") + padded(text + b"\0")


def entry(
    name: bytes,
    kind: bytes = FILE,
    data: bytes = b"",
    *,
    mode: int | None = None,
    uid: int = 0,
    gid: int = 0,
    mtime: int = NOON,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[bytes, bytes] | None = None,
    records: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """One member: PAX header if there is anything for it, header, padded data.

    Names and link targets longer than 100 bytes go into PAX records, as every current writer does.
    """
    extra = dict(records or {})
    if len(name) > 100:
        extra.setdefault(b"path", name)
    if len(link) > 100:
        extra.setdefault(b"linkpath", link)
    extra.update({b"SCHILY.xattr." + key: value for key, value in (xattrs or {}).items()})
    permissions = mode if mode is not None else 0o755 if kind == DIRECTORY else 0o644
    own = header(
        name, kind, mode=permissions, uid=uid, gid=gid, size=len(data), mtime=mtime, link=link, device=device
    )
    return (pax(extra) if extra else b"") + own + padded(data)


def directory(name: bytes, mode: int = 0o755, **more: object) -> bytes:
    return entry(name, DIRECTORY, mode=mode, **more)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **more: object) -> bytes:
    return entry(name, SYMLINK, link=target, mode=0o777, **more)  # type: ignore[arg-type]


def hard_link(name: bytes, target: bytes, **more: object) -> bytes:
    return entry(name, HARD_LINK, link=target, **more)  # type: ignore[arg-type]


def whiteout(path: bytes, **more: object) -> bytes:
    """The marker that removes `path` of the lower layers."""
    parent, slash, base = path.rpartition(b"/")
    return entry(parent + slash + b".wh." + base, **more)  # type: ignore[arg-type]


def opaque(path: bytes) -> bytes:
    """The marker that hides what the lower layers have in the directory `path`."""
    return entry((path + b"/" if path else b"") + b".wh..wh..opq")


def archive(*members: bytes, end: bytes = END) -> bytes:
    """The members followed by the end-of-archive blocks."""
    return b"".join(members) + end
