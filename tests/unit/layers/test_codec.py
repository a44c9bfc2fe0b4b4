"""Inflaters: what they read, how strictly, in how little memory."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import weakref
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import Corrupt, Unavailable, Unsupported
from imagecached.layers.codec import ZSTD_WINDOW_BYTES, check_media_type, inflater

OCI = "application/vnd.oci.image.layer.v1.tar"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
SNIFFED = [f"{OCI}+gzip", f"{OCI}+zstd", DOCKER, f"{DOCKER}.gzip", f"{DOCKER}.zstd"]
SKIPPABLE = b"\x53\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"ignored"


class Pieces:
    """Hands out ``data`` cut at ``cuts``; ``read`` gives whole pieces, as the pipeline's source does."""

    def __init__(self, data: bytes, cuts: list[int] | None = None) -> None:
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
        self.pieces = [data[a:b] for a, b in pairwise(edges)]

    def read(self, size: int = -1, /) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def readinto(self, buffer: memoryview, /) -> int:
        piece = self.read()
        count = min(len(piece), len(buffer))
        buffer[:count] = piece[:count]
        if piece[count:]:
            self.pieces.insert(0, piece[count:])
        return count


def inflate(blob: bytes, media_type: str, cuts: list[int] | None = None, step: int = 1000) -> bytes:
    source = Pieces(blob, cuts)
    codec = inflater(media_type, source)
    buffer = memoryview(bytearray(step))
    out = io.BytesIO()
    while count := codec.readinto(buffer):
        out.write(buffer[:count])
        if count < step:
            assert codec.readinto(buffer) == 0
            break
    assert codec.readinto(buffer) == 0
    assert not source.pieces
    return out.getvalue()


def zstd(data: bytes, *, checksum: bool = True, content_size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=content_size).compress(data)


def streamed_zstd(data: bytes, window_log: int = 20) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
    worker = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return worker.compress(data) + worker.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + worker.flush()


compressors: st.SearchStrategy[Callable[[bytes], bytes]] = st.sampled_from(
    [gzip.compress, zstd, streamed_zstd, lambda data: zstd(data, checksum=False, content_size=False)]
)
bodies = st.lists(st.binary(max_size=3000) | st.integers(0, 300_000).map(bytes), max_size=3)
cut_lists = st.lists(st.integers(0, 1 << 20), max_size=8)


@given(compress=compressors, parts=bodies, cuts=cut_lists, step=st.integers(1, 5000))
def test_one_stream_however_it_is_cut(
    compress: Callable[[bytes], bytes], parts: list[bytes], cuts: list[int], step: int
) -> None:
    """Members or frames in a row are one stream; neither the pieces nor the buffer's size change it."""
    data = b"".join(parts)
    blob = b"".join(map(compress, parts)) or compress(b"")
    assert inflate(blob, SNIFFED[0], cuts, max(step, len(data) // 50)) == data


@given(compress=compressors, data=st.binary(max_size=2000), cuts=cut_lists, at=st.integers(0, 1 << 20))
def test_truncation_is_corrupt(
    compress: Callable[[bytes], bytes], data: bytes, cuts: list[int], at: int
) -> None:
    """A stream that stops anywhere after its magic and before its end is Corrupt."""
    blob = compress(data)
    keep = 4 + at % (len(blob) - 4)
    with pytest.raises(Corrupt, match="stops early"):
        inflate(blob[:keep], SNIFFED[1], cuts)


@given(
    compress=compressors,
    data=st.binary(max_size=2000),
    garbage=st.binary(min_size=1, max_size=40),
    cuts=cut_lists,
)
def test_bytes_after_the_end_are_corrupt(
    compress: Callable[[bytes], bytes], data: bytes, garbage: bytes, cuts: list[int]
) -> None:
    """Whatever follows the last member or frame and is none itself is Corrupt."""
    blob = compress(data)
    if blob.startswith(b"\x1f\x8b") and not garbage.strip(b"\0"):
        assert inflate(blob + garbage, SNIFFED[0], cuts) == data
        return
    with pytest.raises(Corrupt):
        inflate(blob + garbage, SNIFFED[0], cuts)


@given(
    compress=compressors, data=st.binary(min_size=1, max_size=500), at=st.integers(), flip=st.integers(1, 255)
)
def test_damage_is_corrupt_or_harmless(
    compress: Callable[[bytes], bytes], data: bytes, at: int, flip: int
) -> None:
    """One changed byte gives Corrupt, Unsupported, or bytes for the diffID to judge: nothing else escapes."""
    blob = bytearray(compress(data))
    blob[at % len(blob)] ^= flip
    try:
        inflate(bytes(blob), SNIFFED[0])
    except (Corrupt, Unsupported) as error:
        assert str(error).startswith(("gzip: ", "zstd: "))  # noqa: PT017  either outcome is right


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"]), cut_lists)
def test_any_bytes_give_bytes_or_corrupt(tail: bytes, magic: bytes, cuts: list[int]) -> None:
    """Arbitrary input never raises another class."""
    with suppress(Corrupt, Unsupported):
        inflate(magic + tail, DOCKER, cuts)


@pytest.mark.parametrize("media_type", SNIFFED)
@pytest.mark.parametrize("compress", [gzip.compress, zstd, bytes], ids=["gzip", "zstd", "plain"])
def test_the_bytes_decide_where_the_type_allows_compression(
    media_type: str, compress: Callable[[bytes], bytes]
) -> None:
    """As containerd: the type says that it may be compressed, the magic says how."""
    assert inflate(compress(b"tar" * 500), media_type) == b"tar" * 500


def test_the_uncompressed_oci_type_is_not_looked_into() -> None:
    """A tar whose first name starts with gzip's magic stays a tar."""
    blob = gzip.compress(b"tar")
    assert inflate(blob, OCI) == blob


def test_an_empty_blob_is_an_empty_stream() -> None:
    """Zero bytes are no damage for the codec; what an empty layer means is the tar reader's business."""
    assert all(inflate(b"", media_type) == b"" for media_type in [OCI, *SNIFFED])


def test_skippable_frames_are_passed_over() -> None:
    """Before, between and after frames; alone they are an empty stream."""
    blob = SKIPPABLE + zstd(b"one") + SKIPPABLE * 2 + zstd(b"two") + SKIPPABLE
    assert inflate(blob, f"{OCI}+zstd", list(range(200))) == b"onetwo"
    assert inflate(SKIPPABLE, f"{OCI}+zstd") == b""


def test_checksums_are_verified() -> None:
    """A wrong trailer is Corrupt in both formats, also in a member that is not the last."""
    plain = b"payload" * 10
    member = gzip.compress(plain)
    for broken in (member[:-8] + bytes(4) + member[-4:], member[:-4] + bytes(4)):
        with pytest.raises(Corrupt, match="gzip: "):
            inflate(broken + member, DOCKER)
    frame = zstd(plain)
    with pytest.raises(Corrupt, match="zstd: "):
        inflate(frame[:-4] + bytes(4) + frame, DOCKER)


def test_zstd_window_is_bounded() -> None:
    """A frame that wants more memory than the bound is Unsupported, one at the bound is read."""
    assert inflate(streamed_zstd(b"x" * 9, window_log=27), DOCKER) == b"x" * 9
    with pytest.raises(Unsupported, match=f"window of {1 << 28} bytes, at most {ZSTD_WINDOW_BYTES}"):
        inflate(streamed_zstd(b"x" * 9, window_log=28), DOCKER)


@pytest.mark.parametrize("compress", [gzip.compress, zstd, bytes], ids=["gzip", "zstd", "plain"])
@pytest.mark.parametrize("error", [OSError(5, "disk"), Unavailable("gone"), KeyError("x")], ids=repr)
def test_errors_of_the_source_pass_through(compress: Callable[[bytes], bytes], error: Exception) -> None:
    """The codec renames its own errors only."""

    class Breaking(Pieces):
        def read(self, size: int = -1, /) -> bytes:
            if not self.pieces:
                raise error
            return super().read(size)

    codec = inflater(DOCKER, Breaking(compress(b"tar" * 100)[:-9]))
    with pytest.raises(type(error)) as caught:
        codec.readinto(memoryview(bytearray(4096)))
    assert caught.value is error


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_a_bomb_costs_no_memory(form: str) -> None:
    """Half a gigabyte of zeros goes through one small buffer."""
    if form == "gzip":
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        blob = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
    else:
        blob = zstd(bytes(1 << 20)) * 512
    codec = inflater(DOCKER, Pieces(blob))
    buffer = memoryview(bytearray(1 << 18))
    total = 0
    tracemalloc.start()
    try:
        while count := codec.readinto(buffer):
            total += count
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
    assert total == 512 << 20


@pytest.mark.parametrize("compress", [gzip.compress, zstd, bytes], ids=["gzip", "zstd", "plain"])
def test_a_codec_ends_with_its_last_reference(compress: Callable[[bytes], bytes]) -> None:
    """No cycle through the C readers, which the garbage collector cannot see into, keeps buffers alive."""
    source = Pieces(compress(b"tar" * 500))
    codec = inflater(DOCKER, source)
    codec.readinto(memoryview(bytearray(64)))
    watch = weakref.ref(source)
    del source, codec
    assert watch() is None


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        f"{OCI}+encrypted",
        f"{OCI}+lz4",
        "application/vnd.oci.empty.v1+json",
        "",
    ],
)
def test_other_media_types_are_refused_by_name(media_type: str) -> None:
    """Before anything is read."""
    with pytest.raises(Unsupported, match="media type") as caught:
        check_media_type(media_type)
    assert media_type in str(caught.value)
    with pytest.raises(Unsupported):
        inflater(media_type, Pieces(b"x"))
