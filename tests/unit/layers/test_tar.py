"""The scanner: what it reads, how it ends, what it refuses."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import Corrupt
from imagecached.layers.limits import Limits
from imagecached.layers.tar import Member, Scanner
from tests.support.rawtar import END, NOON, archive, entry, gnu_long, header, padded, pax, signed
from tests.unit.layers.building import contents, scanned

GNU = b"ustar  \0"
V7 = bytes(8)


def one(*blocks: bytes, end: bytes = END) -> Member:
    """The only member of an archive."""
    (member,) = scanned(b"".join(blocks) + end)
    return member


# ---- Against Python's writer

_kinds = {
    tarfile.REGTYPE: b"0",
    tarfile.DIRTYPE: b"5",
    tarfile.SYMTYPE: b"2",
    tarfile.LNKTYPE: b"1",
    tarfile.CHRTYPE: b"3",
    tarfile.BLKTYPE: b"4",
    tarfile.FIFOTYPE: b"6",
}
_path = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
    | st.binary(min_size=1, max_size=20).map(
        lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
    ),
    min_size=1,
    max_size=8,
).map("/".join)


@st.composite
def tarinfos(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    """A member as tarfile takes it, and its data."""
    info = tarfile.TarInfo(draw(_path))
    info.type = draw(st.sampled_from(sorted(_kinds)))
    info.mode = draw(st.integers(0, 0o7777))
    info.uid, info.gid = draw(st.integers(0, 2**32 - 2)), draw(st.integers(0, 2**31))
    info.mtime = draw(st.integers(0, 2**33))
    info.uname = draw(st.sampled_from(["", "root", "jürgen"]))
    if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(_path)
    if info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        info.devmajor, info.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1))
    data = draw(st.binary(max_size=1500)) if info.type == tarfile.REGTYPE else b""
    info.size = len(data)
    return info, data


@given(
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(tarinfos(), max_size=6),
    st.integers(1, 3000),
)
def test_reads_what_pythons_tarfile_writes(
    form: int, items: list[tuple[tarfile.TarInfo, bytes]], step: int
) -> None:
    """Every fact and all data come back, in each format, however the stream is cut."""
    buffer = io.BytesIO()
    written = []
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="utf-8") as out:
        for info, data in items:
            try:
                out.addfile(info, io.BytesIO(data))
            except ValueError:  # ustar cannot express it
                continue
            written.append((info, data))
    tar = buffer.getvalue()
    found = scanned(tar, step=step)
    assert len(found) == len(written)
    for member, (info, data) in zip(found, written, strict=True):
        assert _facts(member) == _expected(info)
        assert contents(tar, member) == data


def _facts(member: Member) -> tuple[Any, ...]:
    device = (member.major, member.minor) if member.kind in b"34" else (0, 0)
    return (
        member.kind, member.name.rstrip(b"/"), member.mode, member.uid, member.gid, member.size,
        member.mtime, member.mtime_ns, member.link, device, member.xattrs,
    )  # fmt: skip


def _expected(info: tarfile.TarInfo) -> tuple[Any, ...]:
    name, link = (text.encode("utf-8", "surrogateescape") for text in (info.name, info.linkname))
    return (
        _kinds[info.type], name.rstrip(b"/"), info.mode, info.uid, info.gid, info.size,
        info.mtime, 0, link, (info.devmajor, info.devminor), None,
    )  # fmt: skip


# ---- Header fields


def test_a_prefix_comes_before_the_name() -> None:
    """ustar splits long names in two fields; both may be full."""
    member = one(header(b"n" * 100, prefix=b"p" * 155))
    assert member.name == b"p" * 155 + b"/" + b"n" * 100


def test_an_old_header_has_no_prefix_and_no_devices() -> None:
    """In V7 headers the fields behind the link name mean nothing."""
    member = one(header(b"f", b"3", prefix=b"p", device=(7, 8), magic=V7))
    assert (member.name, member.major, member.minor) == (b"f", 0, 0)


def test_gnu_headers_have_times_in_the_place_of_the_prefix() -> None:
    """Access and change time do not become part of the name."""
    times = b"14000000000\0" * 2
    assert one(header(b"f", magic=GNU, tail=times)).name == b"f"


def test_a_prefix_in_a_gnu_header_is_taken_where_it_cannot_be_a_time() -> None:
    """An old version of Go wrote such headers."""
    assert one(header(b"f", magic=GNU, prefix=b"usr/lib")).name == b"usr/lib/f"
    assert one(header(b"f", magic=GNU, prefix=b"us\xffr/lib")).name == b"f"


def test_star_headers_have_a_shorter_prefix() -> None:
    """Behind 131 bytes come the times, which must be numbers."""
    tail = b"p" * 131 + b"00000000001\0" * 2 + bytes(8) + b"tar\0"
    assert one(header(b"f", tail=tail)).name == b"p" * 131 + b"/f"
    with pytest.raises(Corrupt, match="octal"):
        one(header(b"f", tail=tail.replace(b"1", b"z")))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (b"0000644\0", 0o644),
        (b" 644 \0\0\0", 0o644),
        (b"00000644", 0o644),
        (b"\0\0\x00644 \0", 0o644),
        (b"644\0zzzz", 0o644),
        (bytes(8), 0),
        (b"        ", 0),
        (b"\x80\0\0\0\0\0\x01\xa4", 0o644),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", 0o7777),
    ],
)
def test_numbers_may_be_written_in_many_ways(field: bytes, value: int) -> None:
    """Octal with any padding, or base-256, also negative."""
    block = header(b"f")
    assert one(signed(block[:100] + field + block[108:])).mode == value


@pytest.mark.parametrize("field", [b"0000688\0", b"-000644\0", b"0o00644\0", b"0_00644\0", b"644 644\0"])
def test_other_numbers_are_refused(field: bytes) -> None:
    """What Python would take for a number need not be one in a tar."""
    block = header(b"f")
    with pytest.raises(Corrupt, match="octal"):
        one(signed(block[:100] + field + block[108:]))


def test_large_numbers_in_base_256() -> None:
    """Owner and size beyond octal; owners are cut to 32 bits, all ones mean "leave it"."""
    member = one(header(b"d", b"5", uid=4_000_000_000, gid=(1 << 32) + 7, size=-5))
    assert (member.uid, member.gid, member.size) == (4_000_000_000, 7, 0)
    assert one(header(b"d", b"5", uid=2**32 - 1, gid=-1)).uid == -1


@pytest.mark.parametrize(
    ("given", "kept"), [(-1, 0), (9_223_372_036, 9_223_372_036), (9_223_372_037, 0), (2**62, 0)]
)
def test_times_stay_between_1970_and_2262(given: int, kept: int) -> None:
    """Whatever is outside becomes the epoch, as the reference sets it."""
    assert one(header(b"f", mtime=given)).mtime == kept


def test_a_negative_size_is_refused() -> None:
    """Only types without data may have one."""
    with pytest.raises(Corrupt, match="negative size"):
        one(header(b"f", size=-1))


def test_both_checksums_are_known() -> None:
    """Old tars sum signed bytes."""
    block = header(b"\xff" * 20)
    unsigned = int(block[148:154], 8)
    old = block[:148] + b"%06o\0 " % (unsigned - 20 * 256) + block[156:]
    assert one(old).name == b"\xff" * 20
    with pytest.raises(Corrupt, match="checksum"):
        one(block[:148] + b"%06o\0 " % (unsigned + 1) + block[156:])


def test_a_sum_that_differs_by_adlers_modulus_is_wrong() -> None:
    """The quick sum is exact, also for blocks full of high bytes."""
    block = bytearray(header(b"\xff" * 100, link=b"\xff" * 100, prefix=b"\xff" * 155))
    block[265:329] = b"\xff" * 64
    good = signed(bytes(block))
    assert one(good).name.startswith(b"\xff")
    stored = int(good[148:154], 8)
    assert stored > 65521
    with pytest.raises(Corrupt, match="checksum"):
        one(good[:148] + b"%06o\0 " % (stored - 65521) + good[156:])


def test_old_style_files_and_directories() -> None:
    """Type NUL is a file, or a directory when the name ends in a slash; then its size means nothing."""
    found = scanned(archive(header(b"d/", b"\0", size=7), header(b"f", b"\0", size=3), padded(b"abc")))
    assert [(member.kind, member.size) for member in found] == [(b"5", 0), (b"0", 3)]


def test_links_have_no_data_whatever_their_size_says() -> None:
    """The next header follows at once."""
    found = scanned(archive(header(b"l", b"1", link=b"f", size=4096), header(b"f")))
    assert [member.name for member in found] == [b"l", b"f"]


# ---- Extension headers


def test_pax_records_override_the_header() -> None:
    """Names, owner, size and time with nanoseconds, and extended attributes with any bytes."""
    records = {
        b"path": b"long/name",
        b"linkpath": b"ignored for files",
        b"size": b"5",
        b"uid": b"123456789",
        b"gid": b"987654321",
        b"mtime": b"1700000001.1234567891",
        b"SCHILY.xattr.user.x": b"a=b\n\0c",
        b"comment": b"nothing",
    }
    tar = archive(pax(records), header(b"short", size=0), padded(b"hello"))
    (member,) = scanned(tar)
    assert member.name == b"long/name"
    assert contents(tar, member) == b"hello"
    assert (member.uid, member.gid) == (123456789, 987654321)
    assert (member.mtime, member.mtime_ns) == (1_700_000_001, 123_456_789)
    assert member.xattrs == {b"user.x": b"a=b\n\0c"}


def test_empty_pax_values_leave_the_header_as_it_is() -> None:
    """Except that an extended attribute may be empty."""
    member = one(pax({b"path": b"", b"uid": b"", b"SCHILY.xattr.user.e": b""}), header(b"f", uid=3))
    assert (member.name, member.uid, member.xattrs) == (b"f", 3, {b"user.e": b""})


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (b"0.5", (0, 500_000_000)),
        (b"-0.5", (0, 0)),
        (b"-1", (0, 0)),
        (b"+7.", (7, 0)),
        (b"9223372036.854775807", (9223372036, 854775807)),
        (b"9223372036.854775808", (0, 0)),
        (b"1.00000000099", (1, 0)),
    ],
)
def test_pax_times(text: bytes, time: tuple[int, int]) -> None:
    """Truncated to nanoseconds and bounded."""
    member = one(pax({b"mtime": text}), header(b"f"))
    assert (member.mtime, member.mtime_ns) == time


@pytest.mark.parametrize(
    "payload",
    [
        b"x", b"5 a=", b"11 path=a\n", b"8 path=a\n", b"10 path=a ", b"12 pathaaaa\n", b" 8 a=bc\n",
        b"99 a=b\n", b"-5 a=b\n", b"0x9 a=b\n", b"1_0 a=bb\n", b"6 =b\n\n", b"12 path=a\0b\n", b"9 a\0b=c\n",
        b"14 uid=12 34 \n", b"12 mtime=x\n\n", b"16 mtime=1.2.3\n", b"30 size=99999999999999999999\n",
    ],
)  # fmt: skip
def test_malformed_pax_headers_are_refused(payload: bytes) -> None:
    """Wrong lengths, no key, no number where one belongs."""
    with pytest.raises(Corrupt):
        one(header(b"x", b"x", size=len(payload)), padded(payload), header(b"f"))


def test_gnu_long_names_win_over_pax() -> None:
    """Both long fields end at a NUL; the last of several counts."""
    member = one(
        gnu_long(b"first", b"L"),
        gnu_long(b"n" * 300, b"L"),
        gnu_long(b"t" * 300, b"K"),
        pax({b"path": b"other", b"linkpath": b"other"}),
        header(b"l", b"2", link=b"short"),
    )
    assert (member.name, member.link) == (b"n" * 300, b"t" * 300)


def test_a_later_pax_header_replaces_the_earlier() -> None:
    """Records of two extended headers are not merged."""
    member = one(pax({b"uid": b"5"}), pax({b"gid": b"6"}), header(b"f"))
    assert (member.uid, member.gid) == (0, 6)


def test_global_headers_are_members_and_change_nothing_else() -> None:
    """They end the reach of extension headers before them, as in the reference."""
    found = scanned(
        archive(
            gnu_long(b"lost", b"L"),
            pax({b"uid": b"5"}),
            pax({b"path": b"glob", b"gid": b"9"}, b"g"),
            header(b"f"),
        )
    )
    assert [(member.kind, member.name) for member in found] == [(b"g", b"glob"), (b"0", b"f")]
    assert (found[1].uid, found[1].gid) == (0, 0)


def test_extension_headers_may_be_empty() -> None:
    """Also at the end of a chunk."""
    tar = archive(header(b"x", b"x"), header(b"L", b"L"), header(b"f"))
    assert [member.name for member in scanned(tar, step=512)] == [b"f"]


# ---- The end


@pytest.mark.parametrize("end", [b"", bytes(512), END, END + b"garbage" * 99, bytes(10240)])
def test_an_archive_may_end_in_several_ways(end: bytes) -> None:
    """At a member's boundary, after one or two blocks of zeros; behind two nothing is read."""
    assert one(entry(b"f", data=b"x" * 600), end=end).size == 600


def test_an_archive_may_end_inside_padding() -> None:
    """The last file's data is complete then."""
    tar = entry(b"f", data=b"x" * 600)
    assert len(scanned(tar[:-300])) == 1
    assert len(scanned(tar[: 512 + 600])) == 1
    with pytest.raises(Corrupt, match="truncated"):
        scanned(tar[: 512 + 599])


@pytest.mark.parametrize("cut", [1, 511, 512 + 5, 1023, 1024 + 40])
def test_truncation_is_noticed(cut: int) -> None:
    """In a header, in a PAX header's records, in the header behind it."""
    tar = pax({b"path": b"x" * 700}) + header(b"f")
    with pytest.raises(Corrupt, match="truncated"):
        scanned(tar[:cut])


def test_a_second_block_of_zeros_must_follow_the_first() -> None:
    """Anything else is refused; a part of one is a truncation."""
    with pytest.raises(Corrupt, match="zero block"):
        scanned(bytes(512) + header(b"f"))
    with pytest.raises(Corrupt, match="truncated"):
        scanned(bytes(700))


def test_nothing_at_all_is_an_empty_layer() -> None:
    """Some tools make such layers."""
    assert scanned(b"") == []


# ---- Limits and chunks


@pytest.mark.parametrize(
    ("limits", "tar", "named"),
    [
        (Limits(entries=2), archive(*[header(b"f%d" % i) for i in range(3)]), "2 entries"),
        (Limits(entries=2), archive(*[pax({b"a": b"b"}, b"g")] * 3), "2 entries"),
        (Limits(file_bytes=9), header(b"f", size=10), "9 file bytes"),
        (Limits(file_bytes=9), pax({b"size": b"10"}) + header(b"f"), "9 file bytes"),
        (Limits(pax_bytes=600), header(b"x", b"x", size=601), "600 pax bytes"),
        (Limits(pax_bytes=600), header(b"L", b"L", size=1 << 40), "600 pax bytes"),
        (Limits(xattr_bytes=9), pax({b"SCHILY.xattr.user.a": b"1234"}) + header(b"f"), "9 xattr bytes"),
    ],
)
def test_limits_are_named_with_the_member(limits: Limits, tar: bytes, named: str) -> None:
    """A bomb ends the scan before it costs anything."""
    with pytest.raises(Corrupt, match=f"tar member .*more than {named}"):
        scanned(tar, limits=limits)


@given(st.lists(st.integers(0, 9000), max_size=12))
def test_chunks_never_change_the_result(cuts: list[int]) -> None:
    """Wherever the stream is cut, also in views that are reused, the members are the same."""
    tar = archive(
        entry(b"a" * 300, data=b"x" * 1000, xattrs={b"user.a": b"v" * 700}),
        gnu_long(b"n" * 600, b"L"),
        entry(b"f", data=b"y" * 513),
        entry(b"d/", b"5"),
    )
    found: list[Member] = []
    scanner = Scanner(found.append, Limits())
    edges = [0, *sorted(cut % len(tar) for cut in cuts), len(tar)]
    for start, stop in pairwise(edges):
        lent = bytearray(tar[start:stop])
        scanner.feed(memoryview(lent))
        lent[:] = b"\xaa" * len(lent)
    scanner.finish()
    assert found == scanned(tar)
    assert found[0].mtime == NOON
