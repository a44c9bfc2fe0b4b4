"""Numbers and formats as Go's reader takes them: header fields, PAX records, magics and prefixes."""

from __future__ import annotations

from tests.support.awkward.case import Layer, Layers
from tests.support.rawtar import archive, entry, gnu_long, header, padded, pax, signed

_OCTAL = {
    "spaces": b"   644  ",
    "unterminated": b"00000644",
    "nul-then-junk": b"644\0junk",
    "space-inside": b"6 44\0\0\0\0",
    "plus": b"+644\0\0\0\0",
    "minus": b"-644\0\0\0\0",
    "prefix": b"0o644\0\0\0",
    "underscore": b"6_44\0\0\0\0",
    "digit-8": b"648\0\0\0\0\0",
    "tab": b"\t644\0\0\0\0",
    "nul-first": b"\x00644\0\0\0\0",
    "blank": b"        ",
    "base256-short": b"\x80\0\0\0\0\0\1\xa4",
    "base256-huge": b"\xbf\xff\xff\xff\xff\xff\xff\xff",
}
_WHOLE = {
    "plus": b"+5",
    "minus": b"-5",
    "space": b" 5",
    "space-after": b"5 ",
    "underscore": b"1_000",
    "hex": b"0x5",
    "zeros": b"0005",
    "arabic": b"\xd9\xa5",
    "dot": b"5.0",
    "exponent": b"1e3",
    "empty-sign": b"-",
    "int64": b"9223372036854775807",
    "more-than-int64": b"9223372036854775808",
}
_TIMES = {
    "plus": b"+5.5",
    "no-seconds": b".5",
    "minus-no-seconds": b"-.5",
    "two-dots": b"1.2.3",
    "space": b"1 .5",
    "underscore": b"1_0.5",
    "sign-in-fraction": b"1.-5",
    "letters-in-fraction": b"1.5x",
    "exponent": b"1e5",
    "minus-fraction": b"-5.000000001",
    "arabic": b"\xd9\xa5",
    "infinity": b"inf",
}


_NUMBERS = ("gid", "atime", "ctime", "devmajor")


def cases() -> Layers:
    return {
        **{f"octal-{name}": [_field(100, text)] for name, text in _OCTAL.items()},
        **{f"octal-size-{name}": [_field(124, text.ljust(12, b"\0"))] for name, text in _OCTAL.items()},
        **{f"octal-device-{name}": [_field(329, text)] for name, text in _OCTAL.items()},
        **{f"pax-uid-{name}": [_record(b"uid", text)] for name, text in _WHOLE.items()},
        **{f"pax-size-{name}": [_record(b"size", text)] for name, text in _WHOLE.items()},
        **{f"pax-mtime-{name}": [_record(b"mtime", text)] for name, text in _TIMES.items()},
        **{
            f"pax-{key}-garbage": [_record(key.encode(), b"x")]
            for key in ("gid", "atime", "ctime", "devmajor")
        },
        **_records(),
        **_formats(),
    }


def _field(offset: int, field: bytes) -> Layer:
    block = header(b"f")
    return [signed(block[:offset] + field + block[offset + len(field) :]), entry(b"after")]


def _record(key: bytes, value: bytes) -> Layer:
    return [pax({key: value}), header(b"f", uid=9), entry(b"after")]


def _records() -> Layers:
    return {
        "pax-unknown-keys": [[_plain({b"VENDOR.thing": b"x", b"SCHILY.dev": b"y", b"charset": b"z"})]],
        "pax-linkpath-on-file": [[_plain({b"linkpath": b"elsewhere"})]],
        "pax-names-with-slashes": [[_plain({b"path": b"//a/./b/../c//"})]],
        "pax-value-with-newlines": [[_plain({b"path": b"a\nb\n"})]],
        "pax-space-in-key": [[_plain({b"pa th": b"x"})]],
        "pax-sparse-name-only": [[_plain({b"GNU.sparse.name": b"real"})]],
        "pax-sparse-major-only": [[_plain({b"GNU.sparse.major": b"1"})]],
        "pax-xattr-no-name": [[_plain({b"SCHILY.xattr": b"x"})]],
        "pax-trailing-zeros": [
            [header(b"x", b"x", size=20) + padded(b"11 path=ab\n" + bytes(9)), header(b"f")]
        ],
        "pax-for-pax": [[pax({b"size": b"0"}), pax({b"uid": b"5"}), header(b"f")]],
        "pax-before-global": [[pax({b"uid": b"5"}), pax({b"comment": b"x"}, b"g"), header(b"f")]],
        "gnu-long-2m": [[gnu_long(b"n" * 2_000_000, b"L"), header(b"f")]],
        "gnu-long-link-for-file": [[gnu_long(b"elsewhere", b"K"), header(b"f"), entry(b"after")]],
        "gnu-long-twice": [[gnu_long(b"one", b"L"), gnu_long(b"two", b"L"), header(b"f")]],
        "gnu-long-slash": [
            [gnu_long(b"dir/", b"L"), header(b"f"), gnu_long(b"d/", b"L"), header(b"f", b"5")]
        ],
        "gnu-long-absolute": [[gnu_long(b"/../abs", b"L"), header(b"f")]],
    }


def _plain(records: dict[bytes, bytes]) -> bytes:
    return pax(records) + header(b"f") + entry(b"after")


def _formats() -> Layers:
    old = b"ustar  \0"
    prefix = b"prefix/dir"
    return {
        "format-ustar-version-99": [[header(b"f", magic=b"ustar\x0099", prefix=prefix)]],
        "format-gnu-prefix": [[header(b"f", magic=old, tail=prefix)]],
        "format-gnu-prefix-with-slash": [[header(b"f", magic=old, tail=b"x/" * 40)]],
        "format-v7-prefix": [[header(b"f", magic=bytes(8), prefix=prefix)]],
        "format-half-gnu": [[header(b"f", magic=b"ustar  x", prefix=prefix)]],
        "format-v7-device": [[header(b"c", b"3", magic=bytes(8), device=(1, 3)), entry(b"after")]],
        "format-v7-directory-flag": [[header(b"d", b"5", magic=bytes(8), mode=0o700), entry(b"d/x")]],
        "format-v7-nul-flag-slash": [[header(b"d/", b"\0", magic=bytes(8), mode=0o700), entry(b"d/x")]],
        "format-nul-flag-pax-slash": [
            [pax({b"path": b"d/"}), header(b"d", b"\0", mode=0o700), entry(b"d/x")]
        ],
        "format-nul-flag-pax-no-slash": [[pax({b"path": b"f"}), header(b"f/", b"\0"), entry(b"after")]],
        "format-prefix-with-pax-path": [[pax({b"path": b"p"}), header(b"f", prefix=prefix)]],
        "format-empty-name-prefix": [[header(b"", prefix=prefix), entry(b"after")]],
        "format-prefix-only-slash": [[header(b"f", prefix=b"/"), entry(b"after")]],
        "format-header-of-spaces": [archive(b" " * 512, entry(b"after"))],
    }
