"""Modes, owners, times, devices, odd type flags and extended attributes."""

from __future__ import annotations

from tests.support.awkward.case import Layer, Layers
from tests.support.rawtar import directory, entry, header, padded, pax, symlink

_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
_ACL = bytes.fromhex(
    "0200000001000700ffffffff02000700e803000004000500ffffffff10000700ffffffff20000500ffffffff"
)
_ACL_MINIMAL = bytes.fromhex("0200000001000600ffffffff04000400ffffffff20000000ffffffff")


_SIZES = (0, 1, 3, 169, 170, 171, 511, 512, 513, 1364, 1365, 1366, 4096, 70_000)


def cases() -> Layers:
    return {**_modes(), **_owners(), **_times(), **_kinds(), **_xattrs()}


def _modes() -> Layers:
    return {
        "mode-all-bits": [
            [*(entry(b"m%o" % m, mode=m) for m in (0, 0o1, 0o1777, 0o2755, 0o4755, 0o6777, 0o7777))]
        ],
        "mode-directories": [[*(directory(b"m%o/" % m, m) for m in (0, 0o1777, 0o2755, 0o4755, 0o7000))]],
        "mode-with-type-bits": [
            [entry(b"f", mode=0o100644), directory(b"d/", 0o040755), entry(b"lies", mode=0o040755)]
        ],
        "mode-huge": [[entry(b"f", mode=0o7777777), entry(b"g", mode=0o10000)]],
        "mode-symlink": [[symlink(b"s", b"x"), header(b"s2", b"2", link=b"x", mode=0o4600, uid=3)]],
        "mode-setuid-with-owner": [[entry(b"f", mode=0o6755, uid=10, gid=20, data=b"x")]],
        "mode-setgid-directory-inherits": [
            [
                directory(b"d/", 0o2777, gid=50),
                entry(b"d/f", gid=0),
                directory(b"d/e/", gid=0),
                entry(b"d/implicit/x"),
            ]
        ],
        "mode-negative": [[header(b"f", mode=-1)]],
    }


def _owners() -> Layers:
    ids = (65534, 2**21, 2**31 - 1, 2**31, 4_000_000_000, 2**32 - 2)
    return {
        "owner-large": [[*(entry(b"u%d" % i, uid=i, gid=i) for i in ids)]],
        "owner-large-pax": [
            [*(entry(b"u%d" % i, records={b"uid": b"%d" % i, b"gid": b"%d" % i}) for i in ids)]
        ],
        "owner-minus-one": [[entry(b"f", uid=2**32 - 1, gid=2**32 - 1)]],
        "owner-minus-one-pax": [[entry(b"f", records={b"uid": b"-1"})]],
        "owner-minus-one-setgid-parent": [
            [
                directory(b"d/", 0o2777, uid=5, gid=6),
                entry(b"d/f", uid=2**32 - 1, gid=2**32 - 1),
                symlink(b"d/s", b"t"),
            ]
        ],
        "owner-minus-one-directory-again": [
            [directory(b"d/", uid=5, gid=6), directory(b"d/", uid=2**32 - 1, gid=2**32 - 1)]
        ],
        "owner-minus-one-link": [
            [entry(b"f", uid=5, gid=6), entry(b"l", b"1", link=b"f", uid=2**32 - 1, gid=2**32 - 1)]
        ],
        "owner-negative": [[header(b"f", uid=-5)]],
        "owner-over-32-bits": [[entry(b"f", uid=2**32, gid=2**32 + 7)]],
        "owner-over-32-bits-pax": [[entry(b"f", records={b"uid": b"4294967303"})]],
        "owner-names-only": [[pax({b"uname": b"daemon", b"gname": b"daemon"}), header(b"f", uid=5, gid=6)]],
        "owner-pax-garbage": [[pax({b"uid": b"ten"}), header(b"f"), entry(b"other")]],
        "owner-pax-empty": [[pax({b"uid": b""}), header(b"f", uid=7), entry(b"other")]],
    }


def _times() -> Layers:
    pax_times = {
        "ns": b"1700000000.123456789",
        "more": b"1700000000.1234567899",
        "short": b"1700000000.5",
        "dot": b"1700000000.",
        "negative": b"-1.5",
        "negative-small": b"-0.5",
        "minus-zero": b"-0",
        "epoch": b"0",
        "2200": b"7258118400.25",
        "2446": b"15032385535",
        "after-2446": b"15032385536",
        "just-under-2262": b"9223372036.854775806",
        "just-2262": b"9223372036.854775807",
        "after-2262": b"9223372036.854775808",
        "year-5000": b"95617584000",
    }
    return {
        **{f"time-pax-{name}": [_timed(value)] for name, value in pax_times.items()},
        "time-pax-garbage": [[entry(b"f", records={b"mtime": b"noon"})]],
        "time-pax-empty": [[entry(b"f", records={b"mtime": b""}, mtime=123)]],
        "time-pax-huge": [[entry(b"f", records={b"mtime": b"9223372036854775807"})]],
        "time-pax-over-int64": [[entry(b"f", records={b"mtime": b"9223372036854775808"})]],
        "time-pax-atime-later": [[entry(b"f", records={b"atime": b"1800000000", b"ctime": b"1"})]],
        "time-header-negative": [[entry(b"f", mtime=-100)]],
        "time-header-2200": [[entry(b"f", mtime=7258118400), directory(b"d/", mtime=7258118400)]],
        "time-header-huge": [[entry(b"f", mtime=2**62)]],
        "time-directory-children-after": [
            [directory(b"d/", mtime=10), entry(b"d/a"), directory(b"d/e/", mtime=20), entry(b"d/e/b")]
        ],
        "time-directory-twice": [[directory(b"d/", mtime=10), entry(b"d/a"), directory(b"d/", mtime=20)]],
        "time-device-fifo": [[entry(b"c", b"3", device=(1, 3), mtime=10), entry(b"p", b"6", mtime=20)]],
    }


def _timed(value: bytes) -> Layer:
    records = {b"mtime": value}
    return [
        entry(b"f", records=records),
        directory(b"d/", records=records),
        symlink(b"s", b"t", records=records),
    ]


def _kinds() -> Layers:
    numbers = ((0, 0), (1, 3), (4095, 1048575), (4096, 0), (0, 1048576), (255, 256), (2**20, 2**30))
    flags = [
        b"\0",
        b"7",
        b"8",
        b"A",
        b"D",
        b"E",
        b"I",
        b"M",
        b"N",
        b"S",
        b"V",
        b"X",
        b"Z",
        b"s",
        b"W",
        b"\x80",
    ]
    return {
        **{f"device-char-{a}-{b}": [[entry(b"c", b"3", device=(a, b)), entry(b"after")]] for a, b in numbers},
        **{
            f"device-block-{a}-{b}": [[entry(b"b", b"4", device=(a, b)), entry(b"after")]]
            for a, b in numbers[:4]
        },
        "file-sizes": [[entry(b"f%d" % size, data=b"%d" % size * size) for size in _SIZES]],
        "device-char-0-0-over-lower": [[entry(b"c", data=b"x")], [entry(b"c", b"3", device=(0, 0))]],
        "device-char-0-0-in-lower": [
            [entry(b"c", b"3", device=(0, 0)), entry(b"d/c", b"3", device=(0, 0))],
            [entry(b"d/x")],
        ],
        "device-negative": [[header(b"c", b"3", device=(-1, -1)), entry(b"after")]],
        "device-with-size": [[header(b"c", b"3", device=(1, 3), size=5) + padded(b"hello"), entry(b"after")]],
        "fifo-with-size": [[header(b"p", b"6", size=5) + padded(b"hello"), entry(b"after")]],
        "directory-with-size": [
            [header(b"d/", b"5", mode=0o755, size=5) + padded(b"hello"), entry(b"after")]
        ],
        "directory-with-size-no-data": [[header(b"d/", b"5", mode=0o755, size=5), entry(b"after")]],
        "symlink-with-size": [[header(b"s", b"2", link=b"t", size=5) + padded(b"hello"), entry(b"after")]],
        "symlink-with-size-no-data": [[header(b"s", b"2", link=b"t", size=5), entry(b"after")]],
        **{f"flag-{f.hex()}": [[header(b"odd", f, size=3) + padded(b"abc"), entry(b"after")]] for f in flags},
        "flag-57-contiguous-big": [[header(b"odd", b"7", size=1000) + padded(b"q" * 1000), entry(b"after")]],
    }


def _xattrs() -> Layers:
    def on_all(key: bytes, value: bytes) -> Layer:
        x = {key: value}
        plain = [entry(b"f", xattrs=x), directory(b"d/", xattrs=x), entry(b"d/below")]
        return [*plain, symlink(b"s", b"f", xattrs=x), entry(b"p", b"6", xattrs=x)]

    def on_file(key: bytes, value: bytes) -> Layer:
        return [entry(b"f", data=b"x", xattrs={key: value}), directory(b"d/", xattrs={key: value})]

    many = {b"user.k%03d" % i: b"v" * 10 for i in range(60)}
    return {
        "xattr-user": [on_file(b"user.a", b"value\n=\xff")],
        "xattr-user-nul": [on_file(b"user.a", b"a\0b")],
        "xattr-user-empty-value": [on_file(b"user.a", b"")],
        "xattr-user-everywhere": [on_all(b"user.a", b"1")],
        "xattr-trusted": [on_all(b"trusted.a", b"1")],
        "xattr-overlay-opaque": [on_file(b"trusted.overlay.opaque", b"y")],
        "xattr-overlay-redirect": [on_file(b"trusted.overlay.redirect", b"/etc")],
        "xattr-overlay-metacopy": [on_file(b"trusted.overlay.metacopy", b"")],
        "xattr-user-overlay": [on_file(b"user.overlay.opaque", b"y")],
        "xattr-overlay-escaped": [on_file(b"trusted.overlay.overlay.opaque", b"y")],
        "xattr-capability": [
            [
                entry(b"f", xattrs={b"security.capability": _CAPABILITY}, mode=0o755),
                entry(b"g", xattrs={b"security.capability": _CAPABILITY}, uid=5),
            ]
        ],
        "xattr-capability-everywhere": [on_all(b"security.capability", _CAPABILITY)],
        "xattr-capability-bad": [on_file(b"security.capability", b"junk")],
        "xattr-selinux": [on_all(b"security.selinux", b"system_u:object_r:x_t:s0\0")],
        "xattr-security-other": [on_all(b"security.other", b"x")],
        "xattr-ima": [on_file(b"security.ima", b"\x04x")],
        "xattr-evm": [on_file(b"security.evm", b"\x04x")],
        "xattr-acl-access": [
            [
                entry(b"f", xattrs={b"system.posix_acl_access": _ACL}),
                directory(b"d/", xattrs={b"system.posix_acl_access": _ACL}),
            ]
        ],
        "xattr-acl-access-mode-differs": [
            [entry(b"f", mode=0o600, xattrs={b"system.posix_acl_access": _ACL})]
        ],
        "xattr-acl-access-minimal": [
            [entry(b"f", mode=0o777, xattrs={b"system.posix_acl_access": _ACL_MINIMAL})]
        ],
        "xattr-acl-bad": [on_file(b"system.posix_acl_access", b"\x02\0\0\0junk")],
        "xattr-acl-empty": [on_file(b"system.posix_acl_access", b"")],
        "xattr-acl-default": [[directory(b"d/", xattrs={b"system.posix_acl_default": _ACL})]],
        "xattr-acl-default-inherited": [
            [
                directory(b"d/", 0o750, xattrs={b"system.posix_acl_default": _ACL}),
                entry(b"d/f", mode=0o640),
                directory(b"d/e/", 0o700),
                entry(b"d/i/x"),
                symlink(b"d/s", b"x"),
                entry(b"d/p", b"6", mode=0o600),
            ]
        ],
        "xattr-acl-default-inherited-upper": [
            [directory(b"d/", 0o750, xattrs={b"system.posix_acl_default": _ACL})],
            [entry(b"d/f", mode=0o640), directory(b"d/e/", 0o700)],
        ],
        "xattr-acl-default-minimal-inherited": [
            [
                directory(b"d/", 0o750, xattrs={b"system.posix_acl_default": _ACL_MINIMAL}),
                entry(b"d/f", mode=0o666),
                directory(b"d/e/", 0o777),
            ]
        ],
        "xattr-acl-default-own-access": [
            [
                directory(b"d/", xattrs={b"system.posix_acl_default": _ACL}),
                entry(b"d/f", mode=0o600, xattrs={b"system.posix_acl_access": _ACL_MINIMAL}),
                entry(b"d/g", mode=0o600, xattrs={b"system.posix_acl_access": b""}),
                entry(b"d/c", b"3", device=(1, 3), mode=0o666),
                directory(b"d/e/", xattrs={b"system.posix_acl_default": _ACL_MINIMAL}),
                entry(b"d/e/f"),
            ]
        ],
        "xattr-acl-set-later": [
            [
                directory(b"d/"),
                entry(b"d/before"),
                directory(b"d/", xattrs={b"system.posix_acl_default": _ACL}),
                entry(b"d/after"),
                entry(b"d/before", b"1", link=b"d/after", mode=0o611),
            ]
        ],
        "xattr-acl-root-ignored": [
            [directory(b"./", xattrs={b"system.posix_acl_default": _ACL}), entry(b"f")]
        ],
        "xattr-acl-default-on-file": [[entry(b"f", xattrs={b"system.posix_acl_default": _ACL})]],
        "xattr-system-other": [on_file(b"system.other", b"x")],
        "xattr-no-namespace": [on_file(b"plain", b"x")],
        "xattr-unknown-namespace": [on_file(b"zorp.a", b"x")],
        "xattr-btrfs": [on_file(b"btrfs.compression", b"zstd")],
        "xattr-key-empty": [on_file(b"", b"x")],
        "xattr-key-user-dot": [on_file(b"user.", b"x")],
        "xattr-key-equals": [[pax([(b"SCHILY.xattr.user.a=b", b"c")]), header(b"f")]],
        "xattr-key-long": [on_file(b"user." + b"k" * 250, b"x")],
        "xattr-key-too-long": [on_file(b"user." + b"k" * 251, b"x")],
        "xattr-key-invalid-utf8": [on_file(b"user.\xff\xfe", b"x")],
        "xattr-value-2k": [on_file(b"user.big", b"v" * 2000)],
        "xattr-value-3900": [on_file(b"user.big", b"v" * 3900)],
        "xattr-value-4500": [on_file(b"user.big", b"v" * 4500)],
        "xattr-value-65536": [on_file(b"user.big", b"v" * 65536)],
        "xattr-value-65537": [on_file(b"user.big", b"v" * 65537)],
        "xattr-many": [[entry(b"f", xattrs=many), directory(b"d/", xattrs=many)]],
        "xattr-libarchive": [[pax({b"LIBARCHIVE.xattr.user.a": b"AAAA"}), header(b"f")]],
        "xattr-schily-acl": [
            [
                pax({b"SCHILY.acl.access": b"user::rwx,user:1000:rwx,group::r-x,mask::rwx,other::r-x"}),
                header(b"f"),
            ]
        ],
        "xattr-shared": [[*(entry(b"f%d" % i, xattrs={b"user.same": b"value" * 10}) for i in range(50))]],
        "xattr-implicit-parent-copies": [
            [directory(b"d/", xattrs={b"user.a": b"1", b"security.selinux": b"x"})],
            [entry(b"d/x")],
        ],
        "xattr-directory-lower-differs": [
            [directory(b"d/", xattrs={b"user.a": b"1"})],
            [directory(b"d/", xattrs={b"user.b": b"2"})],
        ],
        "xattr-replaced-file": [[entry(b"f", xattrs={b"user.a": b"1"}), entry(b"f")]],
    }
