"""Compressed layers: several members and frames, garbage after them, truncation, media types that lie."""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable

import zstandard

from tests.support.awkward.case import TAR, Blob, Layers
from tests.support.rawtar import archive, directory, entry

GZIP, ZSTD = TAR + "+gzip", TAR + "+zstd"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"


def cases() -> Layers:
    return {
        **{f"gzip-{name}": [Blob(data, GZIP, tar)] for name, (data, tar) in _each(_gzip).items()},
        **{f"zstd-{name}": [Blob(data, ZSTD, tar)] for name, (data, tar) in _each(_zstd).items()},
        **{f"label-{name}": [blob] for name, blob in _labels().items()},
        **_empty(),
        **_repeated(),
    }


def _tar(name: str) -> bytes:
    """A small archive that is different for every case: containerd does not unpack the same tar twice."""
    return archive(
        directory(b"d/"), entry(b"d/f", data=name.encode()), entry(b"g", data=bytes(range(256)) * 40)
    )


def _each(make: Callable[[bytes], dict[str, bytes]]) -> dict[str, tuple[bytes, bytes]]:
    names = make(_tar("names")).keys()
    tars = {name: _tar(f"{make.__name__} {name}") for name in names}
    return {name: (make(tar)[name], tar) for name, tar in tars.items()}


def _gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _zs(data: bytes, **more: bool) -> bytes:
    return zstandard.ZstdCompressor(**more).compress(data)  # type: ignore[arg-type]


def _gzip(tar: bytes) -> dict[str, bytes]:
    whole, half = _gz(tar), len(tar) // 2 + 7
    header = b"\x1f\x8b\x08" + bytes([4 | 8 | 16 | 2]) + bytes(6) + b"\x04\0ABCD" + b"name\0" + b"comment\0"
    raw = zlib.compressobj(6, zlib.DEFLATED, -15)
    fields = header + struct.pack("<H", zlib.crc32(header) & 0xFFFF) + raw.compress(tar) + raw.flush()
    return {
        "one-member": whole,
        "two-members": _gz(tar[:half]) + _gz(tar[half:]),
        "empty-member-first": _gz(b"") + whole,
        "empty-member-last": whole + _gz(b""),
        "optional-fields": fields + struct.pack("<II", zlib.crc32(tar), len(tar)),
        "stored": gzip.compress(tar, 0, mtime=0),
        "zero-padding": whole + bytes(512),
        "garbage": whole + b"garbage after the end",
        "half-header-after": whole + b"\x1f\x8b\x08",
        "truncated": whole[:-20],
        "without-trailer": whole[:-8],
        "wrong-crc": whole[:-8] + bytes(4) + whole[-4:],
        "wrong-length": whole[:-4] + b"\1\2\3\4",
    }


def _zstd(tar: bytes) -> dict[str, bytes]:
    whole, half = _zs(tar), len(tar) // 2 + 7
    skip = struct.pack("<II", 0x184D2A53, 6) + b"skipme"
    return {
        "one-frame": whole,
        "two-frames": _zs(tar[:half]) + _zs(tar[half:]),
        "with-checksum": _zs(tar, write_checksum=True),
        "no-content-size": _zs(tar, write_content_size=False),
        "skippable-first": skip + whole,
        "skippable-middle": _zs(tar[:half]) + skip + _zs(tar[half:]),
        "skippable-last": whole + skip + skip,
        "empty-frame": _zs(b"") + whole + _zs(b""),
        "window-8m": _windowed(tar, 23),
        "window-128m": _windowed(tar, 27),
        "window-256m": _windowed(tar, 28),
        "garbage": whole + b"garbage after the end",
        "zero-padding": whole + bytes(64),
        "truncated": whole[:-5],
        "cut-in-skippable": whole + skip[:-2],
        "wrong-checksum": _zs(tar, write_checksum=True)[:-4] + b"\1\2\3\4",
    }


def _windowed(tar: bytes, log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(tar) + stream.flush()


def _labels() -> dict[str, Blob]:
    def plain(tar: bytes) -> bytes:
        return tar

    wanted: dict[str, tuple[Callable[[bytes], bytes], str]] = {
        "docker-gzip": (_gz, _DOCKER + ".gzip"),
        "docker-plain": (plain, _DOCKER),
        "docker-zstd": (_zs, _DOCKER + ".zstd"),
        "nondistributable": (_gz, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        "docker-foreign": (_gz, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
        "plain-data-gzip": (_gz, TAR),
        "plain-data-zstd": (_zs, TAR),
        "gzip-data-plain": (plain, GZIP),
        "gzip-data-zstd": (_zs, GZIP),
        "zstd-data-gzip": (_gz, ZSTD),
        "zstd-data-plain": (plain, ZSTD),
        "unknown": (_gz, "application/octet-stream"),
        "unknown-suffix": (_gz, TAR + "+lz4"),
        "encrypted": (_gz, TAR + "+gzip+encrypted"),
        "empty-json": (lambda tar: b"{}", "application/vnd.oci.empty.v1+json"),
    }
    tars = {name: _tar(f"label {name}") for name in wanted}
    return {name: Blob(pack(tars[name]), kind, tars[name]) for name, (pack, kind) in wanted.items()}


def _empty() -> Layers:
    # The tars differ from each other in length only, so that each is a chain of its own.
    return {
        "empty-gzip-layer": [Blob(_gz(bytes(1024)), GZIP, bytes(1024))],
        "empty-gzip-of-nothing": [Blob(_gz(b""), GZIP, b"")],
        "empty-gzip-label-no-bytes-above": [_tar("below"), Blob(b"", GZIP, b"")],
    }


def _repeated() -> Layers:
    twice, both = _tar("twice"), _tar("both")
    return {
        "repeated-gzip-layer": [Blob(_gz(twice), GZIP, twice)] * 2,
        "repeated-gzip-and-plain": [Blob(_gz(both), GZIP, both), Blob(both, TAR, both)],
    }
