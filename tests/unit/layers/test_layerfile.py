"""The layer file: what lies where, in which order it is written, and how damage shows."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagecached.errors import Corrupt, OutOfSpace
from imagecached.layers.layerfile import (
    DATA_OFFSET,
    HEADER_BYTES,
    LayerWriter,
    read_header,
    read_notes,
    verify_layer,
    write_image,
)
from imagecached.layers.limits import Limits
from imagecached.layers.notes import Notes
from imagecached.oci.digest import Digest
from tests.support.rawtar import archive, directory, entry, hard_link, symlink, whiteout
from tests.unit.layers.building import LIMITS, layer_file
from tests.unit.layers.test_erofs import file, folder
from tests.unit.layers.test_sparse import format_10

TAR = archive(
    entry(b"usr/bin/tool", data=b"#!" * 900, xattrs={b"user.a": b"b"}),
    symlink(b"bin", b"usr/bin"),
    whiteout(b"etc/gone"),
    hard_link(b"l", b"lower/file"),
    format_10([(100, 700), (5000, 33)], 9000),
    *[directory(b"many/%d" % i) for i in range(100)],
)
DIFF_ID = Digest.of(TAR)
TEXT_BYTES = HEADER_BYTES - 32


def framed(text: bytes) -> bytes:
    """A header with this text."""
    padded = text.ljust(TEXT_BYTES, b"\0")
    return padded + hashlib.sha256(padded).digest()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A finished layer file of TAR."""
    path = tmp_path / "layer.erofs"
    layer_file(path, TAR)
    return path


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """An empty file to write to."""
    opened = os.open(tmp_path / "new.erofs", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    yield opened
    os.close(opened)


def _write(fd: int, limits: Limits) -> None:
    writer = LayerWriter(fd, limits, None)
    writer.feed(TAR)
    writer.finish()


def test_the_tar_lies_verbatim_behind_the_front(image: Path) -> None:
    """So that the diffID can be checked at any time; the rest is described by the header."""
    raw = image.read_bytes()
    with image.open("rb") as file:
        header = read_header(file.fileno())
    assert raw[DATA_OFFSET : DATA_OFFSET + len(TAR)] == TAR
    assert (header.diff_id, header.chain_id, header.tar_bytes) == (DIFF_ID, None, len(TAR))
    assert header.file_bytes == len(raw)
    assert header.metadata_digest == Digest.of(raw[header.metadata.offset : header.metadata.end])
    assert raw[1024:1028] == bytes.fromhex("e2e1f5e0")
    assert raw[1152:DATA_OFFSET] == bytes(DATA_OFFSET - 1152)
    assert len(raw) % 4096 == header.image.offset % 4096 == 0


def test_the_info_says_what_was_written(tmp_path: Path) -> None:
    """DiffID, length of tar and file, number of members."""
    info = layer_file(tmp_path / "x", TAR)
    assert (info.diff_id, info.tar_bytes, info.entries) == (DIFF_ID, len(TAR), 105)
    assert info.file_bytes == (tmp_path / "x").stat().st_size


def test_notes_are_read_back(image: Path) -> None:
    """What the layers below have to answer."""
    with image.open("rb") as file:
        notes = read_notes(file.fileno(), read_header(file.fileno()))
    assert notes.implicit == [b"etc", b"many", b"usr", b"usr/bin"]
    assert [(note.paths, note.target) for note in notes.links] == [([b"l"], b"lower/file")]
    assert notes.whiteouts == [b"etc"]


def test_an_empty_layer_is_a_layer(tmp_path: Path) -> None:
    """Whether it has an end or not."""
    for tar in (b"", bytes(1024)):
        info = layer_file(tmp_path / "x", tar)
        assert (info.tar_bytes, info.entries) == (len(tar), 0)
        verify_layer(tmp_path / "x", Digest.of(tar))


@given(st.lists(st.integers(1, len(TAR) - 1), max_size=8))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chunks_never_change_a_byte_of_the_file(tmp_path: Path, cuts: list[int]) -> None:
    """Nor does a buffer that is reused."""
    layer_file(tmp_path / "whole", TAR)
    edges = [0, *sorted(cuts), len(TAR)]
    descriptor = os.open(tmp_path / "cut", os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        writer = LayerWriter(descriptor, LIMITS, DIFF_ID)
        for start, stop in pairwise(edges):
            lent = bytearray(TAR[start:stop])
            writer.feed(memoryview(lent))
            lent[:] = b"\xee" * len(lent)
        writer.finish()
    finally:
        os.close(descriptor)
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


def test_other_digest_algorithms(fd: int, tmp_path: Path) -> None:
    """A diffID may be sha512."""
    expected = Digest.of(TAR, "sha512")
    writer = LayerWriter(fd, LIMITS, expected)
    writer.feed(TAR)
    assert writer.finish().diff_id == expected
    verify_layer(tmp_path / "new.erofs", expected)


def test_a_wrong_diff_id_leaves_no_superblock(fd: int) -> None:
    """Nothing could mount the file."""
    writer = LayerWriter(fd, LIMITS, Digest.of(b"other"))
    writer.feed(TAR)
    with pytest.raises(Corrupt, match="expected diffID"):
        writer.finish()
    assert os.pread(fd, DATA_OFFSET, 0) == bytes(DATA_OFFSET)


def test_a_truncated_layer_leaves_no_superblock(fd: int) -> None:
    """Even if its digest were right."""
    writer = LayerWriter(fd, LIMITS, None)
    writer.feed(TAR[:1300])
    with pytest.raises(Corrupt, match="truncated"):
        writer.finish()
    assert os.pread(fd, DATA_OFFSET, 0) == bytes(DATA_OFFSET)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Limits(tar_bytes=len(TAR) - 1), f"longer than {len(TAR) - 1} bytes"),
        (Limits(metadata_bytes=8192), "8192 metadata bytes"),
    ],
)
def test_limits_of_the_file(fd: int, limits: Limits, named: str) -> None:
    """The stream and what is written behind it are bounded."""
    with pytest.raises(Corrupt, match=named):
        _write(fd, limits)


def test_the_superblock_is_written_last_and_alone(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else is durable before it, and it is durable before finish returns."""
    log: list[str] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def write(descriptor: int, data: bytes, offset: int) -> int:
        log.append(f"{offset}+{len(data)}" if offset < DATA_OFFSET else "rest")
        return pwrite(descriptor, data, offset)

    def sync(descriptor: int) -> None:
        log.append("sync")
        fdatasync(descriptor)

    monkeypatch.setattr(os, "pwrite", write)
    monkeypatch.setattr(os, "fdatasync", sync)
    writer = LayerWriter(fd, LIMITS, DIFF_ID)
    writer.feed(TAR)
    writer.finish()
    assert log[-4:] == [f"0+{HEADER_BYTES}", "sync", "1024+128", "sync"]
    assert set(log[:-4]) == {"rest"}


def test_short_writes_are_continued(fd: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take less than it was given."""
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:1000], offset)
    )
    writer = LayerWriter(fd, LIMITS, DIFF_ID)
    writer.feed(TAR)
    writer.finish()
    verify_layer(tmp_path / "new.erofs", DIFF_ID)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "ftruncate"])
def test_a_full_disk_is_out_of_space(
    fd: int, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    """Wherever it shows."""

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OutOfSpace):
        _write(fd, LIMITS)


def test_other_failures_of_the_disk_stay_what_they_are(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours knows what to do about EIO."""

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(OSError, match="broken"):
        LayerWriter(fd, LIMITS, None).feed(TAR)


# ---- Damage


def test_every_damaged_part_is_found(image: Path) -> None:
    """One bit anywhere: in the header, the superblock, the gap, the tar, the metadata, the notes."""
    raw = bytearray(image.read_bytes())
    verify_layer(image, DIFF_ID)
    edges = (5, 300, 980, 991, 992, 1023, 1024, 1100, 1151, 1152, 4095, 4096, len(raw) - 1)
    for at in (*edges, *range(4100, len(raw), 997)):
        raw[at] ^= 0x40
        image.write_bytes(raw)
        with pytest.raises(Corrupt):
            verify_layer(image, DIFF_ID)
        raw[at] ^= 0x40


def test_another_layers_file_is_not_this_layers(image: Path) -> None:
    """Its header says which it is."""
    with pytest.raises(Corrupt, match="its header says"):
        verify_layer(image, Digest.of(b"other"))


def test_a_truncated_or_grown_file_is_found(image: Path) -> None:
    """Its length is in the header."""
    size = image.stat().st_size
    for wrong in (0, 100, 4096, size - 1, size + 1):
        os.truncate(image, wrong)
        with pytest.raises(Corrupt):
            verify_layer(image, DIFF_ID)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"tar_bytes": 1 << 40},
        {"tar_bytes": -1},
        {"metadata_digest": "sha256:zz"},
        {"diff_id": "none"},
        {"image": {"offset": 0, "bytes": 10}},
        {"notes": {"offset": 1 << 50, "bytes": 1}},
        {"notes": {"offset": 8192, "bytes": -1}},
        {"metadata": {"offset": 4096, "bytes": 1 << 60}},
        {"entries": "many"},
        {"unknown": 1, "notes": None},
    ],
)
def test_a_header_must_fit_its_file(image: Path, change: dict[str, object]) -> None:
    """Areas inside the file, in order; known format; digests that are digests."""
    raw = image.read_bytes()
    header = msgspec.json.decode(raw[:TEXT_BYTES].rstrip(b"\0")) | change
    image.write_bytes(framed(msgspec.json.encode(header)) + raw[HEADER_BYTES:])
    with image.open("rb") as file, pytest.raises(Corrupt):
        read_header(file.fileno())


@given(st.binary(max_size=1100) | st.binary(max_size=TEXT_BYTES).map(framed))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_are_a_header_or_corrupt(tmp_path: Path, raw: bytes) -> None:
    """No other error, also when the digest in it is right."""
    (tmp_path / "x").write_bytes(raw)
    with (tmp_path / "x").open("rb") as file, pytest.raises(Corrupt):
        read_header(file.fileno())


def test_damaged_notes_are_corrupt(image: Path) -> None:
    """When somebody reads them without verifying first."""
    with image.open("r+b") as file:
        header = read_header(file.fileno())
        os.pwrite(file.fileno(), b"\xc1" * 10, header.notes.offset)
        with pytest.raises(Corrupt, match="notes"):
            read_notes(file.fileno(), header)


def test_a_seam_is_written_the_same_way(fd: int) -> None:
    """Without a tar, named by its chain; its data is where the caller put it."""
    os.pwrite(fd, b"data" * 200, DATA_OFFSET)
    chain = Digest.of(b"chain")
    header = write_image(
        fd,
        folder(f=file(800)),
        Notes(),
        data_end=DATA_OFFSET + 800,
        tar_bytes=0,
        entries=2,
        limits=LIMITS,
        chain_id=chain,
    )
    assert read_header(fd) == header
    assert (header.diff_id, header.chain_id, header.inodes) == (None, chain, 2)
    assert hashlib.sha256(os.pread(fd, 800, DATA_OFFSET)).hexdigest() == Digest.of(b"data" * 200).hex


def test_a_file_that_erofs_cannot_address_is_refused(fd: int) -> None:
    """Block addresses have 32 bits, whatever the configured limits say."""
    with pytest.raises(Corrupt, match="cannot address"):
        write_image(fd, folder(), Notes(), data_end=1 << 41, tar_bytes=0, entries=1, limits=LIMITS)
    assert os.fstat(fd).st_size == 0
