"""Modes, owners, times, devices, odd type flags and extended attributes."""

from __future__ import annotations

from tests.support.awkward.case import Case, case
from tests.support.rawtar import archive, directory, entry, header, padded, pax, symlink

_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
_ACL = bytes.fromhex("02000000" "01000700ffffffff" "02000700e8030000" "04000500ffffffff" "10000700ffffffff" "20000500ffffffff")
_ACL_MINIMAL = bytes.fromhex("02000000" "01000600ffffffff" "04000400ffffffff" "20000000ffffffff")


def cases() -> list[Case]:
    return [*_modes(), *_owners(), *_times(), *_kinds(), *_xattrs()]


def _modes() -> list[Case]:
    return [
        case("mode-all-bits", archive(*(entry(b"m%o" % m, mode=m) for m in (0, 0o1, 0o1777, 0o2755, 0o4755, 0o6777, 0o7777)))),
        case("mode-directories", archive(*(directory(b"m%o/" % m, m) for m in (0, 0o1777, 0o2755, 0o4755, 0o7000)))),
        case("mode-with-type-bits", archive(entry(b"f", mode=0o100644), directory(b"d/", 0o040755), entry(b"lies", mode=0o040755))),
        case("mode-huge", archive(entry(b"f", mode=0o7777777), entry(b"g", mode=0o10000))),
        case("mode-symlink", archive(symlink(b"s", b"x") , header(b"s2", b"2", link=b"x", mode=0o4600, uid=3))),
        case("mode-setuid-with-owner", archive(entry(b"f", mode=0o6755, uid=10, gid=20, data=b"x"))),
        case("mode-setgid-directory-inherits", archive(directory(b"d/", 0o2777, gid=50), entry(b"d/f", gid=0), directory(b"d/e/", gid=0), entry(b"d/implicit/x"))),
        case("mode-negative", archive(header(b"f", mode=-1))),
    ]


def _owners() -> list[Case]:
    ids = (65534, 2**21, 2**31 - 1, 2**31, 4_000_000_000, 2**32 - 2)
    return [
        case("owner-large", archive(*(entry(b"u%d" % i, uid=i, gid=i) for i in ids))),
        case("owner-large-pax", archive(*(entry(b"u%d" % i, records={b"uid": b"%d" % i, b"gid": b"%d" % i}) for i in ids))),
        case("owner-minus-one", archive(entry(b"f", uid=2**32 - 1, gid=2**32 - 1))),
        case("owner-minus-one-pax", archive(entry(b"f", records={b"uid": b"-1"}))),
        case("owner-negative", archive(header(b"f", uid=-5))),
        case("owner-over-32-bits", archive(entry(b"f", uid=2**32, gid=2**32 + 7))),
        case("owner-over-32-bits-pax", archive(entry(b"f", records={b"uid": b"4294967303"}))),
        case("owner-names-only", archive(pax({b"uname": b"daemon", b"gname": b"daemon"}), header(b"f", uid=5, gid=6))),
        case("owner-pax-garbage", archive(pax({b"uid": b"ten"}), header(b"f"), entry(b"other"))),
        case("owner-pax-empty", archive(pax({b"uid": b""}), header(b"f", uid=7), entry(b"other"))),
    ]


def _times() -> list[Case]:
    pax_times = {
        b"ns": b"1700000000.123456789",
        b"more": b"1700000000.1234567899",
        b"short": b"1700000000.5",
        b"dot": b"1700000000.",
        b"negative": b"-1.5",
        b"negative-small": b"-0.5",
        b"minus-zero": b"-0",
        b"epoch": b"0",
        b"2200": b"7258118400.25",
        b"2446": b"15032385535",
        b"after-2446": b"15032385536",
        b"just-under-2262": b"9223372036.854775806",
        b"just-2262": b"9223372036.854775807",
        b"after-2262": b"9223372036.854775808",
        b"year-5000": b"95617584000",
    }
    return [
        *(case(f"time-pax-{k.decode()}", archive(entry(b"f", records={b"mtime": v}), directory(b"d/", records={b"mtime": v}), symlink(b"s", b"t", records={b"mtime": v}))) for k, v in pax_times.items()),
        case("time-pax-garbage", archive(entry(b"f", records={b"mtime": b"noon"}))),
        case("time-pax-empty", archive(entry(b"f", records={b"mtime": b""}, mtime=123))),
        case("time-pax-huge", archive(entry(b"f", records={b"mtime": b"9223372036854775807"}))),
        case("time-pax-over-int64", archive(entry(b"f", records={b"mtime": b"9223372036854775808"}))),
        case("time-pax-atime-later", archive(entry(b"f", records={b"atime": b"1800000000", b"ctime": b"1"}))),
        case("time-header-negative", archive(entry(b"f", mtime=-100))),
        case("time-header-2200", archive(entry(b"f", mtime=7258118400), directory(b"d/", mtime=7258118400))),
        case("time-header-huge", archive(entry(b"f", mtime=2**62))),
        case("time-directory-children-after", archive(directory(b"d/", mtime=10), entry(b"d/a"), directory(b"d/e/", mtime=20), entry(b"d/e/b"))),
        case("time-directory-twice", archive(directory(b"d/", mtime=10), entry(b"d/a"), directory(b"d/", mtime=20))),
        case("time-device-fifo", archive(entry(b"c", b"3", device=(1, 3), mtime=10), entry(b"p", b"6", mtime=20))),
    ]


def _kinds() -> list[Case]:
    numbers = ((0, 0), (1, 3), (4095, 1048575), (4096, 0), (0, 1048576), (255, 256), (2**20, 2**30))
    flags = [b"\0", b"7", b"8", b"A", b"D", b"E", b"I", b"M", b"N", b"S", b"V", b"X", b"Z", b"s", b"W", b"\x80"]
    return [
        *(case(f"device-char-{a}-{b}", archive(entry(b"c", b"3", device=(a, b)), entry(b"after"))) for a, b in numbers),
        *(case(f"device-block-{a}-{b}", archive(entry(b"b", b"4", device=(a, b)), entry(b"after"))) for a, b in numbers[:4]),
        case("device-char-0-0-over-lower", archive(entry(b"c", data=b"x")), archive(entry(b"c", b"3", device=(0, 0)))),
        case("device-char-0-0-in-lower", archive(entry(b"c", b"3", device=(0, 0)), entry(b"d/c", b"3", device=(0, 0))), archive(entry(b"d/x"))),
        case("device-negative", archive(header(b"c", b"3", device=(-1, -1)), entry(b"after"))),
        case("device-with-size", archive(header(b"c", b"3", device=(1, 3), size=5) + padded(b"hello"), entry(b"after"))),
        case("fifo-with-size", archive(header(b"p", b"6", size=5) + padded(b"hello"), entry(b"after"))),
        case("directory-with-size", archive(header(b"d/", b"5", mode=0o755, size=5) + padded(b"hello"), entry(b"after"))),
        case("directory-with-size-no-data", archive(header(b"d/", b"5", mode=0o755, size=5), entry(b"after"))),
        case("symlink-with-size", archive(header(b"s", b"2", link=b"t", size=5) + padded(b"hello"), entry(b"after"))),
        case("symlink-with-size-no-data", archive(header(b"s", b"2", link=b"t", size=5), entry(b"after"))),
        *(case(f"flag-{f.hex()}", archive(header(b"odd", f, size=3) + padded(b"abc"), entry(b"after"))) for f in flags),
        case("flag-57-contiguous-big", archive(header(b"odd", b"7", size=1000) + padded(b"q" * 1000), entry(b"after"))),
    ]


def _xattrs() -> list[Case]:
    def on_all(key: bytes, value: bytes) -> bytes:
        x = {key: value}
        return archive(entry(b"f", xattrs=x), directory(b"d/", xattrs=x), entry(b"d/below"), symlink(b"s", b"f", xattrs=x), entry(b"p", b"6", xattrs=x))

    def on_file(key: bytes, value: bytes) -> bytes:
        return archive(entry(b"f", data=b"x", xattrs={key: value}), directory(b"d/", xattrs={key: value}))

    many = {b"user.k%03d" % i: b"v" * 10 for i in range(60)}
    return [
        case("xattr-user", on_file(b"user.a", b"value\n=\xff")),
        case("xattr-user-nul", on_file(b"user.a", b"a\0b")),
        case("xattr-user-empty-value", on_file(b"user.a", b"")),
        case("xattr-user-everywhere", on_all(b"user.a", b"1")),
        case("xattr-trusted", on_all(b"trusted.a", b"1")),
        case("xattr-overlay-opaque", on_file(b"trusted.overlay.opaque", b"y")),
        case("xattr-overlay-redirect", on_file(b"trusted.overlay.redirect", b"/etc")),
        case("xattr-overlay-metacopy", on_file(b"trusted.overlay.metacopy", b"")),
        case("xattr-user-overlay", on_file(b"user.overlay.opaque", b"y")),
        case("xattr-overlay-escaped", on_file(b"trusted.overlay.overlay.opaque", b"y")),
        case("xattr-capability", archive(entry(b"f", xattrs={b"security.capability": _CAPABILITY}, mode=0o755), entry(b"g", xattrs={b"security.capability": _CAPABILITY}, uid=5))),
        case("xattr-capability-everywhere", on_all(b"security.capability", _CAPABILITY)),
        case("xattr-capability-bad", on_file(b"security.capability", b"junk")),
        case("xattr-selinux", on_all(b"security.selinux", b"system_u:object_r:x_t:s0\0")),
        case("xattr-security-other", on_all(b"security.other", b"x")),
        case("xattr-ima", on_file(b"security.ima", b"\x04x")),
        case("xattr-evm", on_file(b"security.evm", b"\x04x")),
        case("xattr-acl-access", archive(entry(b"f", xattrs={b"system.posix_acl_access": _ACL}), directory(b"d/", xattrs={b"system.posix_acl_access": _ACL}))),
        case("xattr-acl-access-mode-differs", archive(entry(b"f", mode=0o600, xattrs={b"system.posix_acl_access": _ACL}))),
        case("xattr-acl-access-minimal", archive(entry(b"f", mode=0o777, xattrs={b"system.posix_acl_access": _ACL_MINIMAL}))),
        case("xattr-acl-bad", on_file(b"system.posix_acl_access", b"\x02\0\0\0junk")),
        case("xattr-acl-empty", on_file(b"system.posix_acl_access", b"")),
        case("xattr-acl-default", archive(directory(b"d/", xattrs={b"system.posix_acl_default": _ACL}))),
        case("xattr-acl-default-inherited", archive(directory(b"d/", 0o750, xattrs={b"system.posix_acl_default": _ACL}), entry(b"d/f", mode=0o640), directory(b"d/e/", 0o700), entry(b"d/i/x"), symlink(b"d/s", b"x"), entry(b"d/p", b"6", mode=0o600))),
        case("xattr-acl-default-inherited-upper", archive(directory(b"d/", 0o750, xattrs={b"system.posix_acl_default": _ACL})), archive(entry(b"d/f", mode=0o640), directory(b"d/e/", 0o700))),
        case("xattr-acl-default-minimal-inherited", archive(directory(b"d/", 0o750, xattrs={b"system.posix_acl_default": _ACL_MINIMAL}), entry(b"d/f", mode=0o666), directory(b"d/e/", 0o777))),
        case("xattr-acl-default-on-file", archive(entry(b"f", xattrs={b"system.posix_acl_default": _ACL}))),
        case("xattr-system-other", on_file(b"system.other", b"x")),
        case("xattr-no-namespace", on_file(b"plain", b"x")),
        case("xattr-unknown-namespace", on_file(b"zorp.a", b"x")),
        case("xattr-btrfs", on_file(b"btrfs.compression", b"zstd")),
        case("xattr-key-empty", on_file(b"", b"x")),
        case("xattr-key-user-dot", on_file(b"user.", b"x")),
        case("xattr-key-equals", archive(pax([(b"SCHILY.xattr.user.a=b", b"c")]), header(b"f"))),
        case("xattr-key-long", on_file(b"user." + b"k" * 250, b"x")),
        case("xattr-key-too-long", on_file(b"user." + b"k" * 251, b"x")),
        case("xattr-key-invalid-utf8", on_file(b"user.\xff\xfe", b"x")),
        case("xattr-value-2k", on_file(b"user.big", b"v" * 2000)),
        case("xattr-value-3900", on_file(b"user.big", b"v" * 3900)),
        case("xattr-value-4500", on_file(b"user.big", b"v" * 4500)),
        case("xattr-value-65536", on_file(b"user.big", b"v" * 65536)),
        case("xattr-value-65537", on_file(b"user.big", b"v" * 65537)),
        case("xattr-many", archive(entry(b"f", xattrs=many), directory(b"d/", xattrs=many))),
        case("xattr-libarchive", archive(pax({b"LIBARCHIVE.xattr.user.a": b"AAAA"}), header(b"f"))),
        case("xattr-schily-acl", archive(pax({b"SCHILY.acl.access": b"user::rwx,user:1000:rwx,group::r-x,mask::rwx,other::r-x"}), header(b"f"))),
        case("xattr-shared", archive(*(entry(b"f%d" % i, xattrs={b"user.same": b"value" * 10}) for i in range(50)))),
        case("xattr-implicit-parent-copies", archive(directory(b"d/", xattrs={b"user.a": b"1", b"security.selinux": b"x"})), archive(entry(b"d/x"))),
        case("xattr-directory-lower-differs", archive(directory(b"d/", xattrs={b"user.a": b"1"})), archive(directory(b"d/", xattrs={b"user.b": b"2"}))),
        case("xattr-replaced-file", archive(entry(b"f", xattrs={b"user.a": b"1"}), entry(b"f"))),
    ]
