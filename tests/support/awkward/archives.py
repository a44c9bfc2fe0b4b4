"""Archive formats: sparse files, PAX oddities, ends and truncations, empty layers."""

from __future__ import annotations

from tests.support.awkward.case import Case, case
from tests.support.rawtar import (
    BLOCK,
    END,
    archive,
    directory,
    entry,
    gnu_long,
    header,
    number,
    padded,
    pax,
)


def cases() -> list[Case]:
    return [*_sparse(), *_pax(), *_ends(), *_layers(), *_headers()]


def _old_sparse(pieces: list[tuple[int, int]], real: int, data: bytes, extended: int = 0) -> bytes:
    """GNU's old sparse format; pieces beyond the fourth go into extension blocks."""
    first, rest = pieces[:4], pieces[4:]
    body = bytes(41) + b"".join(number(o, 12) + number(n, 12) for o, n in first).ljust(96, b"\0")
    body += (b"\1" if rest else b"\0") + number(real, 12)
    blocks = header(b"sparse", b"S", size=len(data), magic=b"ustar  \0", tail=body)
    while rest:
        part, rest = rest[:21], rest[21:]
        blocks += b"".join(number(o, 12) + number(n, 12) for o, n in part).ljust(504, b"\0") + (b"\1" if rest else b"\0") + bytes(7)
    return blocks + padded(data)


def _sparse() -> list[Case]:
    a, b = b"A" * 512, b"B" * 1000
    v00 = pax([(b"GNU.sparse.size", b"10000"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"0"), (b"GNU.sparse.numbytes", b"512"), (b"GNU.sparse.offset", b"4096"), (b"GNU.sparse.numbytes", b"1000")])
    v01 = pax({b"GNU.sparse.name": b"real", b"GNU.sparse.size": b"10000", b"GNU.sparse.numblocks": b"2", b"GNU.sparse.map": b"0,512,4096,1000"})
    v10 = {b"GNU.sparse.major": b"1", b"GNU.sparse.minor": b"0", b"GNU.sparse.name": b"real", b"GNU.sparse.realsize": b"10000"}
    map10 = padded(b"2\n0\n512\n4096\n1000\n")

    def one(records: dict[bytes, bytes], body: bytes) -> bytes:
        return archive(pax(records), header(b"GNUSparseFile.0/x", size=len(body)) + padded(body), entry(b"after"))

    unaligned = padded(b"3\n1\n3\n100\n5\n9000\n7\n") + b"abcHELLOseven!!"
    many = [(i * 1000, 10) for i in range(60)]
    return [
        case("sparse-0.0", archive(v00, header(b"sparse", size=1512) + padded(a + b), entry(b"after"))),
        case("sparse-0.1", archive(v01, header(b"GNUSparseFile.0/x", size=1512) + padded(a + b), entry(b"after"))),
        case("sparse-1.0", one(v10, map10 + a + b)),
        case("sparse-1.0-unaligned", one({**v10}, unaligned)),
        case("sparse-1.0-all-hole", one({**v10}, padded(b"0\n"))),
        case("sparse-1.0-huge-hole", one({**v10, b"GNU.sparse.realsize": b"3000000000"}, padded(b"2\n0\n3\n2999999999\n1\n") + b"abcz")),
        case("sparse-1.0-no-realsize", one({k: v for k, v in v10.items() if k != b"GNU.sparse.realsize"}, map10 + a + b)),
        case("sparse-1.0-overlap", one({**v10}, padded(b"2\n0\n512\n100\n1000\n") + a + b)),
        case("sparse-1.0-past-end", one({**v10, b"GNU.sparse.realsize": b"4000"}, map10 + a + b)),
        case("sparse-1.0-data-short", one({**v10}, map10 + a)),
        case("sparse-1.0-data-long", one({**v10}, map10 + a + b + b"C" * 600)),
        case("sparse-1.0-negative", one({**v10}, padded(b"1\n-5\n10\n") + bytes(10))),
        case("sparse-1.0-garbage-map", one({**v10}, padded(b"x\n") + a)),
        case("sparse-1.0-trailing-empty", one({**v10}, padded(b"2\n0\n512\n10000\n0\n") + a)),
        case("sparse-1.0-data-to-end", one({**v10, b"GNU.sparse.realsize": b"5096"}, map10 + a + b)),
        case("sparse-1.0-map-two-blocks", one({**v10, b"GNU.sparse.realsize": b"70000"}, padded(b"60\n" + b"".join(b"%d\n%d\n" % p for p in many)) + b"0123456789" * 60)),
        case("sparse-unknown-version", one({**v10, b"GNU.sparse.major": b"2"}, map10 + a + b)),
        case("sparse-old", archive(_old_sparse([(0, 512), (4096, 1000)], 10000, a + b), entry(b"after"))),
        case("sparse-old-trailing-empty", archive(_old_sparse([(0, 512), (10000, 0)], 10000, a), entry(b"after"))),
        case("sparse-old-extended", archive(_old_sparse(many, 70000, b"0123456789" * 60), entry(b"after"))),
        case("sparse-old-all-hole", archive(_old_sparse([(5000, 0)], 5000, b""), entry(b"after"))),
        case("sparse-old-overlap", archive(_old_sparse([(0, 512), (100, 1000)], 10000, a + b), entry(b"after"))),
        case("sparse-old-past-end", archive(_old_sparse([(0, 512), (4096, 1000)], 4500, a + b), entry(b"after"))),
        case("sparse-old-ustar-magic", archive(header(b"sparse", b"S", size=3) + padded(b"abc"), entry(b"after"))),
        case("sparse-empty-map-0.1", archive(pax({b"GNU.sparse.name": b"real", b"GNU.sparse.size": b"5000", b"GNU.sparse.numblocks": b"0", b"GNU.sparse.map": b""}), header(b"x"), entry(b"after"))),
        case("sparse-directory-flag", archive(pax(v10), header(b"GNUSparseFile.0/d", b"5", size=len(map10)) + map10, entry(b"after"))),
    ]


def _pax() -> list[Case]:
    glob = {b"path": b"global", b"mtime": b"55", b"uid": b"77", b"SCHILY.xattr.user.g": b"1", b"comment": b"hi"}
    return [
        case("pax-global", archive(pax(glob, b"g"), entry(b"f"), entry(b"g"))),
        case("pax-global-comment", archive(pax({b"comment": b"abc"}, b"g"), entry(b"f"))),
        case("pax-global-named-parent", archive(header(b"some/dir/name", b"g", size=len(padded(b"11 a=bcdef\n")) and 11) + padded(b"11 a=bcdef\n"), entry(b"f"))),
        case("pax-global-only", archive(pax({b"comment": b"abc"}, b"g"))),
        case("pax-global-twice-with-file", archive(pax({b"comment": b"abc"}, b"g"), pax({b"comment": b"abc"}, b"g"), entry(b"f"))),
        case("pax-global-over-file", archive(entry(b"PaxHeaders/x", data=b"mine"), pax({b"comment": b"abc"}, b"g"))),
        case("pax-two-headers", archive(pax({b"uid": b"5"}), pax({b"gid": b"6"}), header(b"f"))),
        case("pax-x-upper", archive(pax({b"uid": b"5"}, b"X"), header(b"f"))),
        case("pax-duplicate-key", archive(pax([(b"path", b"one"), (b"path", b"two")]), header(b"f"))),
        case("pax-size", archive(pax({b"size": b"5"}), header(b"f", size=0) + padded(b"hello"), entry(b"after"))),
        case("pax-size-smaller", archive(pax({b"size": b"5"}), header(b"f", size=1000) + padded(b"hello"), entry(b"after"))),
        case("pax-size-negative", archive(pax({b"size": b"-5"}), header(b"f", size=0), entry(b"after"))),
        case("pax-size-garbage", archive(pax({b"size": b"1e3"}), header(b"f", size=0), entry(b"after"))),
        case("pax-size-directory", archive(pax({b"size": b"5"}), header(b"d/", b"5", mode=0o755) , entry(b"after"))),
        case("pax-link-size", archive(entry(b"t", data=b"hello"), pax({b"size": b"5"}), header(b"l", b"1", link=b"t"), entry(b"after"))),
        case("pax-linkpath", archive(pax({b"linkpath": b"target"}), header(b"s", b"2", link=b"other"))),
        case("pax-path-over-gnu-long", archive(gnu_long(b"gnu", b"L"), pax({b"path": b"paxed"}), header(b"f"))),
        case("pax-path-before-gnu-long", archive(pax({b"path": b"paxed"}), gnu_long(b"gnu", b"L"), header(b"f"))),
        case("pax-bad-length", archive(header(b"x", b"x", size=10) + padded(b"99 path=ab\n"), header(b"f"), entry(b"after"))),
        case("pax-no-newline", archive(header(b"x", b"x", size=10) + padded(b"10 path=ab"), header(b"f"), entry(b"after"))),
        case("pax-no-equals", archive(header(b"x", b"x", size=9) + padded(b"9 pathab\n"), header(b"f"), entry(b"after"))),
        case("pax-empty-key", archive(header(b"x", b"x", size=6) + padded(b"6 =ab\n"), header(b"f"), entry(b"after"))),
        case("pax-zero-size", archive(header(b"x", b"x", size=0), header(b"f"))),
        case("pax-nul-value", archive(pax({b"comment": b"a\0b"}), header(b"f"))),
        case("pax-nul-key", archive(pax({b"com\0ment": b"ab"}), header(b"f"))),
        case("pax-nul-uname", archive(pax({b"uname": b"a\0b"}), header(b"f"))),
        case("pax-then-end", archive(entry(b"f"), pax({b"path": b"x"}))),
        case("pax-large-1m", archive(pax({b"comment": b"c" * 1_000_000}), header(b"f"))),
        case("pax-large-2m", archive(pax({b"comment": b"c" * 2_000_000}), header(b"f"))),
        case("pax-hdrcharset", archive(pax({b"hdrcharset": b"BINARY", b"path": b"\xff\xfe"}), header(b"f"))),
        case("pax-leading-zero-length", archive(header(b"x", b"x", size=12) + padded(b"012 path=ab\n"), header(b"f"), entry(b"after"))),
        case("gnu-long-empty", archive(gnu_long(b"", b"L"), header(b"kept"), entry(b"after"))),
        case("gnu-long-unterminated", archive(header(b"././@LongLink", b"L", size=5, magic=b"ustar  \0") + padded(b"abcde"), header(b"f"))),
        case("gnu-long-then-end", archive(entry(b"f"), gnu_long(b"long", b"L"))),
        case("gnu-atime", archive(header(b"f", magic=b"ustar  \0", tail=number(1_800_000_000, 12) + number(1_800_000_000, 12)))),
    ]


def _ends() -> list[Case]:
    whole = archive(entry(b"f", data=b"hello"), directory(b"d/"), entry(b"d/g", data=b"x" * 1000))
    bare = whole[: -len(END)]
    return [
        case("end-none", bare),
        case("end-one-block", bare + bytes(BLOCK)),
        case("end-one-block-then-entry", bare + bytes(BLOCK) + entry(b"later") + END),
        case("end-padded-10k", whole + bytes(-len(whole) % 10240)),
        case("end-garbage", whole + b"garbage" * 100),
        case("end-garbage-blocks", whole + b"g" * BLOCK * 3),
        case("end-then-entry", whole + entry(b"later", data=b"late") + END),
        case("end-partial-block", bare + bytes(100)),
        case("end-partial-second-block", bare + bytes(BLOCK + 100)),
        case("end-one-block-then-garbage", bare + bytes(BLOCK) + b"g" * BLOCK),
        case("truncated-in-data", bare[: -BLOCK - 300]),
        case("truncated-in-padding", bare[: -10]),
        case("truncated-in-last-padding-block", bare[: -20]),
        case("truncated-in-header", bare + entry(b"cut")[:300]),
        case("truncated-after-header", bare + header(b"cut", size=1000)),
        case("truncated-in-pax", bare + pax({b"path": b"y" * 600})[:700]),
        case("truncated-after-pax", bare + pax({b"path": b"y" * 600})),
        case("truncated-empty-file-ok", archive(entry(b"e"), end=b"")),
    ]


def _layers() -> list[Case]:
    one = archive(directory(b"d/"), entry(b"d/f", data=b"1"))
    empty = archive()
    return [
        case("layer-empty", empty),
        case("layer-empty-above", one, empty),
        case("layer-empty-below", empty, one),
        case("layer-zero-bytes", one, b""),
        case("layer-zero-bytes-only", b""),
        case("layer-empty-10k", bytes(10240), one),
        case("layer-one-block", one, bytes(BLOCK)),
        case("layer-twice", one, one),
        case("layer-twice-around-change", one, archive(entry(b"d/f", data=b"2"), entry(b"d/g")), one),
        case("layer-garbage", b"this is not a tar" * 100),
        case("layer-many", *(archive(entry(b"l%d" % i), entry(b"d/l%d" % i)) for i in range(30))),
    ]


def _headers() -> list[Case]:
    good = header(b"f", size=3)
    bad = good[:148] + b"000000\0 " + good[156:]
    as_signed = bytearray(header(b"\xff" * 10))
    total = sum(x if x < 128 else x - 256 for x in (bytes(as_signed[:148]) + b" " * 8 + bytes(as_signed[156:])))
    as_signed[148:156] = b"%06o\0 " % total
    return [
        case("header-bad-checksum", archive(bad + padded(b"abc"), entry(b"after"))),
        case("header-signed-checksum", archive(bytes(as_signed), entry(b"after"))),
        case("header-spaced-numbers", archive(_patched(b"f", 100, b"   644  "), entry(b"after"))),
        case("header-garbage-mode", archive(_patched(b"f", 100, b"rw-r--r-"), entry(b"after"))),
        case("header-empty-numbers", archive(_patched(b"f", 100, bytes(32)), entry(b"after"))),
        case("header-negative-size", archive(header(b"f", size=-1), entry(b"after"))),
        case("header-huge-size", archive(header(b"f", size=2**62), entry(b"after"))),
        case("header-size-over-63-bits", archive(_patched(b"f", 124, b"\x80\0\0\0\xff" + b"\xff" * 7), entry(b"after"))),
        case("header-star-magic", archive(header(b"f", tail=(b"p" * 131 + b"\0" + bytes(24) + bytes(4) + b"tar\0")[:167]), entry(b"after"))),
        case("header-unknown-magic", archive(header(b"f", magic=b"ustarXYZ"), entry(b"after"))),
        case("header-gnu-magic-directory", archive(header(b"d/", b"5", mode=0o700, magic=b"ustar  \0"), entry(b"after"))),
    ]


def _patched(name: bytes, offset: int, field: bytes) -> bytes:
    from tests.support.rawtar import signed

    block = header(name)
    return signed(block[:offset] + field + block[offset + len(field) :])
