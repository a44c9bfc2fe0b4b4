"""Archive formats: sparse files, PAX oddities, ends and truncations, empty layers."""

from __future__ import annotations

from tests.support.awkward.case import Layer, Layers
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
    signed,
)


def cases() -> Layers:
    return {**_sparse(), **_pax(), **_ends(), **_layers(), **_headers()}


def _old_sparse(pieces: list[tuple[int, int]], real: int, data: bytes) -> bytes:
    """GNU's old sparse format; pieces beyond the fourth go into extension blocks."""
    first, rest = pieces[:4], pieces[4:]
    body = bytes(41) + _pieces(first, 96) + (b"\1" if rest else b"\0") + number(real, 12)
    blocks = header(b"sparse", b"S", size=len(data), magic=b"ustar  \0", tail=body)
    while rest:
        part, rest = rest[:21], rest[21:]
        blocks += _pieces(part, 504) + (b"\1" if rest else b"\0") + bytes(7)
    return blocks + padded(data)


def _pieces(pieces: list[tuple[int, int]], width: int) -> bytes:
    return b"".join(number(offset, 12) + number(size, 12) for offset, size in pieces).ljust(width, b"\0")


def _sparse() -> Layers:
    a, b = b"A" * 512, b"B" * 1000
    v00 = pax(
        [
            (b"GNU.sparse.size", b"10000"),
            (b"GNU.sparse.numblocks", b"2"),
            (b"GNU.sparse.offset", b"0"),
            (b"GNU.sparse.numbytes", b"512"),
            (b"GNU.sparse.offset", b"4096"),
            (b"GNU.sparse.numbytes", b"1000"),
        ]
    )
    v01 = pax(
        {
            b"GNU.sparse.name": b"real",
            b"GNU.sparse.size": b"10000",
            b"GNU.sparse.numblocks": b"2",
            b"GNU.sparse.map": b"0,512,4096,1000",
        }
    )
    v10 = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": b"real",
        b"GNU.sparse.realsize": b"10000",
    }
    map10 = padded(b"2\n0\n512\n4096\n1000\n")

    def one(records: dict[bytes, bytes], body: bytes) -> Layer:
        return [pax(records), header(b"GNUSparseFile.0/x", size=len(body)) + padded(body), entry(b"after")]

    unaligned = padded(b"3\n1\n3\n100\n5\n9000\n7\n") + b"abcHELLOseven!!"
    many = [(i * 1000, 10) for i in range(60)]
    return {
        "sparse-0.0": [[v00, header(b"sparse", size=1512) + padded(a + b), entry(b"after")]],
        "sparse-0.1": [[v01, header(b"GNUSparseFile.0/x", size=1512) + padded(a + b), entry(b"after")]],
        "sparse-1.0": [one(v10, map10 + a + b)],
        "sparse-1.0-unaligned": [one({**v10}, unaligned)],
        "sparse-1.0-all-hole": [one({**v10}, padded(b"0\n"))],
        "sparse-1.0-huge-hole": [
            one({**v10, b"GNU.sparse.realsize": b"3000000000"}, padded(b"2\n0\n3\n2999999999\n1\n") + b"abcz")
        ],
        "sparse-1.0-no-realsize": [
            one({k: v for k, v in v10.items() if k != b"GNU.sparse.realsize"}, map10 + a + b)
        ],
        "sparse-1.0-overlap": [one({**v10}, padded(b"2\n0\n512\n100\n1000\n") + a + b)],
        "sparse-1.0-past-end": [one({**v10, b"GNU.sparse.realsize": b"4000"}, map10 + a + b)],
        "sparse-1.0-data-short": [one({**v10}, map10 + a)],
        "sparse-1.0-data-long": [one({**v10}, map10 + a + b + b"C" * 600)],
        "sparse-1.0-negative": [one({**v10}, padded(b"1\n-5\n10\n") + bytes(10))],
        "sparse-1.0-garbage-map": [one({**v10}, padded(b"x\n") + a)],
        "sparse-1.0-trailing-empty": [one({**v10}, padded(b"2\n0\n512\n10000\n0\n") + a)],
        "sparse-1.0-data-to-end": [one({**v10, b"GNU.sparse.realsize": b"5096"}, map10 + a + b)],
        "sparse-1.0-map-two-blocks": [
            one(
                {**v10, b"GNU.sparse.realsize": b"70000"},
                padded(b"60\n" + b"".join(b"%d\n%d\n" % p for p in many)) + b"0123456789" * 60,
            )
        ],
        "sparse-unknown-version": [one({**v10, b"GNU.sparse.major": b"2"}, map10 + a + b)],
        "sparse-old": [[_old_sparse([(0, 512), (4096, 1000)], 10000, a + b), entry(b"after")]],
        "sparse-old-trailing-empty": [[_old_sparse([(0, 512), (10000, 0)], 10000, a), entry(b"after")]],
        "sparse-old-extended": [[_old_sparse(many, 70000, b"0123456789" * 60), entry(b"after")]],
        "sparse-old-all-hole": [[_old_sparse([(5000, 0)], 5000, b""), entry(b"after")]],
        "sparse-old-overlap": [[_old_sparse([(0, 512), (100, 1000)], 10000, a + b), entry(b"after")]],
        "sparse-old-past-end": [[_old_sparse([(0, 512), (4096, 1000)], 4500, a + b), entry(b"after")]],
        "sparse-old-ustar-magic": [[header(b"sparse", b"S", size=3) + padded(b"abc"), entry(b"after")]],
        "sparse-empty-map-0.1": [
            [
                pax(
                    {
                        b"GNU.sparse.name": b"real",
                        b"GNU.sparse.size": b"5000",
                        b"GNU.sparse.numblocks": b"0",
                        b"GNU.sparse.map": b"",
                    }
                ),
                header(b"x"),
                entry(b"after"),
            ]
        ],
        "sparse-directory-flag": [
            [pax(v10), header(b"GNUSparseFile.0/d", b"5", size=len(map10)) + map10, entry(b"after")]
        ],
    }


def _pax() -> Layers:
    glob = {
        b"path": b"global",
        b"mtime": b"55",
        b"uid": b"77",
        b"SCHILY.xattr.user.g": b"1",
        b"comment": b"hi",
    }
    return {
        "pax-global": [[pax(glob, b"g"), entry(b"f"), entry(b"g")]],
        "pax-global-comment": [[pax({b"comment": b"abc"}, b"g"), entry(b"f")]],
        "pax-global-named-parent": [
            [header(b"some/dir/name", b"g", size=11) + padded(b"11 a=bcdef\n"), entry(b"f")]
        ],
        "pax-global-only": [[pax({b"comment": b"abc"}, b"g")]],
        "pax-global-twice-with-file": [
            [pax({b"comment": b"abc"}, b"g"), pax({b"comment": b"abc"}, b"g"), entry(b"f")]
        ],
        "pax-global-over-file": [[entry(b"PaxHeaders/x", data=b"mine"), pax({b"comment": b"abc"}, b"g")]],
        "pax-two-headers": [[pax({b"uid": b"5"}), pax({b"gid": b"6"}), header(b"f")]],
        "pax-x-upper": [[pax({b"uid": b"5"}, b"X"), header(b"f")]],
        "pax-duplicate-key": [[pax([(b"path", b"one"), (b"path", b"two")]), header(b"f")]],
        "pax-size": [[pax({b"size": b"5"}), header(b"f", size=0) + padded(b"hello"), entry(b"after")]],
        "pax-size-smaller": [
            [pax({b"size": b"5"}), header(b"f", size=1000) + padded(b"hello"), entry(b"after")]
        ],
        "pax-size-negative": [[pax({b"size": b"-5"}), header(b"f", size=0), entry(b"after")]],
        "pax-size-garbage": [[pax({b"size": b"1e3"}), header(b"f", size=0), entry(b"after")]],
        "pax-size-directory": [[pax({b"size": b"5"}), header(b"d/", b"5", mode=0o755), entry(b"after")]],
        "pax-link-size": [
            [entry(b"t", data=b"hello"), pax({b"size": b"5"}), header(b"l", b"1", link=b"t"), entry(b"after")]
        ],
        "pax-linkpath": [[pax({b"linkpath": b"target"}), header(b"s", b"2", link=b"other")]],
        "pax-path-over-gnu-long": [[gnu_long(b"gnu", b"L"), pax({b"path": b"paxed"}), header(b"f")]],
        "pax-path-before-gnu-long": [[pax({b"path": b"paxed"}), gnu_long(b"gnu", b"L"), header(b"f")]],
        "pax-bad-length": [
            [header(b"x", b"x", size=10) + padded(b"99 path=ab\n"), header(b"f"), entry(b"after")]
        ],
        "pax-no-newline": [
            [header(b"x", b"x", size=10) + padded(b"10 path=ab"), header(b"f"), entry(b"after")]
        ],
        "pax-no-equals": [
            [header(b"x", b"x", size=9) + padded(b"9 pathab\n"), header(b"f"), entry(b"after")]
        ],
        "pax-empty-key": [[header(b"x", b"x", size=6) + padded(b"6 =ab\n"), header(b"f"), entry(b"after")]],
        "pax-zero-size": [[header(b"x", b"x", size=0), header(b"f")]],
        "pax-nul-value": [[pax({b"comment": b"a\0b"}), header(b"f")]],
        "pax-nul-key": [[pax({b"com\0ment": b"ab"}), header(b"f")]],
        "pax-nul-uname": [[pax({b"uname": b"a\0b"}), header(b"f")]],
        "pax-then-end": [[entry(b"f"), pax({b"path": b"x"})]],
        "pax-large-1m": [[pax({b"comment": b"c" * 1_000_000}), header(b"f")]],
        "pax-large-2m": [[pax({b"comment": b"c" * 2_000_000}), header(b"f")]],
        "pax-hdrcharset": [[pax({b"hdrcharset": b"BINARY", b"path": b"\xff\xfe"}), header(b"f")]],
        "pax-leading-zero-length": [
            [header(b"x", b"x", size=12) + padded(b"012 path=ab\n"), header(b"f"), entry(b"after")]
        ],
        "gnu-long-empty": [[gnu_long(b"", b"L"), header(b"kept"), entry(b"after")]],
        "gnu-long-unterminated": [
            [header(b"././@LongLink", b"L", size=5, magic=b"ustar  \0") + padded(b"abcde"), header(b"f")]
        ],
        "gnu-long-then-end": [[entry(b"f"), gnu_long(b"long", b"L")]],
        "gnu-atime": [
            [header(b"f", magic=b"ustar  \0", tail=number(1_800_000_000, 12) + number(1_800_000_000, 12))]
        ],
    }


def _ends() -> Layers:
    whole = archive(entry(b"f", data=b"hello"), directory(b"d/"), entry(b"d/g", data=b"x" * 1000))
    bare = whole[: -len(END)]
    return {
        "end-none": [bare],
        "end-one-block": [bare + bytes(BLOCK)],
        "end-one-block-then-entry": [bare + bytes(BLOCK) + entry(b"later") + END],
        "end-padded-10k": [whole + bytes(-len(whole) % 10240)],
        "end-garbage": [whole + b"garbage" * 100],
        "end-garbage-blocks": [whole + b"g" * BLOCK * 3],
        "end-then-entry": [whole + entry(b"later", data=b"late") + END],
        "end-partial-block": [bare + bytes(100)],
        "end-partial-second-block": [bare + bytes(BLOCK + 100)],
        "end-one-block-then-garbage": [bare + bytes(BLOCK) + b"g" * BLOCK],
        "truncated-in-data": [bare[: -BLOCK - 300]],
        "truncated-in-padding": [bare[:-10]],
        "truncated-in-last-padding-block": [bare[:-20]],
        "truncated-in-header": [bare + entry(b"cut")[:300]],
        "truncated-after-header": [bare + header(b"cut", size=1000)],
        "truncated-in-pax": [bare + pax({b"path": b"y" * 600})[:700]],
        "truncated-after-pax": [bare + pax({b"path": b"y" * 600})],
        "truncated-empty-file-ok": [entry(b"e")],
    }


def _layers() -> Layers:
    one = [directory(b"d/"), entry(b"d/f", data=b"1")]
    empty: list[bytes] = []
    return {
        "layer-empty": [empty],
        "layer-empty-above": [one, empty],
        "layer-empty-several": [empty, one, empty, [entry(b"d/g")], empty, empty],
        "layer-empty-below": [empty, one],
        "layer-zero-bytes": [one, b""],
        "layer-zero-bytes-only": [b""],
        "layer-empty-10k": [bytes(10240), one],
        "layer-one-block": [one, bytes(BLOCK)],
        "layer-twice": [one, one],
        "layer-twice-around-change": [one, [entry(b"d/f", data=b"2"), entry(b"d/g")], one],
        "layer-garbage": [b"this is not a tar" * 100],
        "layer-120": [[entry(b"n%d" % i), entry(b"d/n%d" % i)] for i in range(120)],
        "layer-many": [*([entry(b"l%d" % i), entry(b"d/l%d" % i)] for i in range(30))],
    }


def _headers() -> Layers:
    good = header(b"f", size=3)
    bad = good[:148] + b"000000\0 " + good[156:]
    as_signed = bytearray(header(b"\xff" * 10))
    total = sum(
        x if x < 128 else x - 256 for x in (bytes(as_signed[:148]) + b" " * 8 + bytes(as_signed[156:]))
    )
    as_signed[148:156] = b"%06o\0 " % total
    return {
        "header-bad-checksum": [[bad + padded(b"abc"), entry(b"after")]],
        "header-signed-checksum": [[bytes(as_signed), entry(b"after")]],
        "header-spaced-numbers": [[_patched(b"f", 100, b"   644  "), entry(b"after")]],
        "header-garbage-mode": [[_patched(b"f", 100, b"rw-r--r-"), entry(b"after")]],
        "header-empty-numbers": [[_patched(b"f", 100, bytes(32)), entry(b"after")]],
        "header-negative-size": [[header(b"f", size=-1), entry(b"after")]],
        "header-huge-size": [[header(b"f", size=2**62), entry(b"after")]],
        "header-size-over-63-bits": [[_patched(b"f", 124, b"\x80\0\0\0\xff" + b"\xff" * 7), entry(b"after")]],
        "header-star-magic": [
            [header(b"f", tail=(b"p" * 131 + b"\0" + bytes(24) + bytes(4) + b"tar\0")[:167]), entry(b"after")]
        ],
        "header-unknown-magic": [[header(b"f", magic=b"ustarXYZ"), entry(b"after")]],
        "header-gnu-magic-directory": [
            [header(b"d/", b"5", mode=0o700, magic=b"ustar  \0"), entry(b"after")]
        ],
    }


def _patched(name: bytes, offset: int, field: bytes) -> bytes:
    block = header(name)
    return signed(block[:offset] + field + block[offset + len(field) :])
