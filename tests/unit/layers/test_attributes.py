"""Extended attributes and ACLs: as the kernel takes them, changes them and gives them back."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from imagecached.errors import Corrupt
from imagecached.layers import acl, attributes
from imagecached.layers.node import Node
from tests.support.rawtar import CHAR, directory, entry, symlink, whiteout
from tests.unit.layers.building import at, grown

NAMED = [(1, 6, 0), (2, 7, 1000), (4, 5, 0), (16, 7, 0), (32, 4, 0)]


def raw(*entries: tuple[int, int, int], version: int = 2) -> bytes:
    """An ACL as a tar carries it."""
    return struct.pack("<I", version) + b"".join(struct.pack("<HHI", *one) for one in entries)


def stored(*entries: tuple[int, int, int]) -> bytes:
    """An ACL as the kernel gives it back: no id where none belongs."""
    return raw(*((tag, perm, who if tag in (2, 8) else 0xFFFFFFFF) for tag, perm, who in entries))


CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
CAPABLE = {b"security.capability": CAPABILITY}
CAPABLE_OF_ROOTID = {b"security.capability": struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 1000)}
LABELS = {b"user.a": b"", b"security.selinux": b"u:r\0"}
KEPT = {b"security.a": b"2"}


@pytest.mark.parametrize(
    ("member", "kept"),
    [
        (entry(b"x", xattrs=LABELS), LABELS),
        (
            entry(b"x", xattrs={b"trusted.overlay.opaque": b"y", b"trusted.": b"", b"trusted.x" * 99: b""}),
            None,
        ),
        (entry(b"x", xattrs={b"nonsense": b"1", b"system.x": b"1", b"btrfs.c": b"1", b"userx": b"2"}), None),
        (entry(b"x", xattrs=CAPABLE), CAPABLE),
        (entry(b"x", xattrs=CAPABLE_OF_ROOTID), CAPABLE_OF_ROOTID),
        (symlink(b"x", b"t", xattrs={b"user.a": b"1", **KEPT}), KEPT),
        (entry(b"x", CHAR, device=(1, 3), xattrs={b"user.a": b"1", **KEPT}), KEPT),
        (symlink(b"x", b"t", xattrs={acl.ACCESS: raw(*NAMED), acl.DEFAULT: b"\2\0\0\0\0"}), None),
        (entry(b"x", xattrs={acl.ACCESS: raw(*NAMED, version=3)}), None),
        (entry(b"x", xattrs={acl.ACCESS: b"", acl.DEFAULT: b"\2\0\0\0"}), None),
    ],
)
def test_what_is_kept_of_each_type(member: bytes, kept: dict[bytes, bytes] | None) -> None:
    """Namespaces that Linux does not have there are dropped, and so is what only overlayfs may say."""
    root, _ = grown(member)
    assert at(root, b"x").xattrs == kept


@pytest.mark.parametrize(
    "xattrs",
    [
        {b"": b"1"},
        {b"user.": b"1"},
        {b"security.": b"1"},
        {b"user." + b"n" * 251: b"1"},
        {b"x" * 256: b"1"},
        {b"user.a": b"v" * 65536},
        {b"user.%d" % i: b"v" * 60000 for i in range(5)},
        {b"security.capability": b""},
        {b"security.capability": CAPABILITY[:-1]},
        {b"security.capability": CAPABILITY + bytes(4)},
        {acl.ACCESS: b"\2"},
        {acl.ACCESS: b"\2\0\0\0\0"},
        {acl.ACCESS: raw((1, 6, 0))},
        {acl.ACCESS: raw((4, 6, 0), (1, 6, 0), (32, 4, 0))},
        {acl.ACCESS: raw((1, 6, 0), (2, 6, 5), (4, 6, 0), (32, 4, 0))},
        {acl.ACCESS: raw((1, 8, 0), (4, 6, 0), (32, 4, 0))},
        {acl.ACCESS: raw((1, 6, 0), (2, 6, 0xFFFFFFFF), (4, 6, 0), (16, 7, 0), (32, 4, 0))},
        {acl.ACCESS: raw((1, 6, 0), (1, 6, 0), (4, 6, 0), (32, 4, 0))},
        {acl.ACCESS: raw((1, 6, 0), (4, 6, 0), (32, 4, 0), (64, 4, 0))},
        {acl.DEFAULT: raw(*NAMED)},
    ],
)  # fmt: skip
def test_what_the_kernel_refuses_is_refused(xattrs: dict[bytes, bytes]) -> None:
    """Without a name, too long, malformed; and a default ACL on what is no directory."""
    with pytest.raises(Corrupt, match="tar member 'x'"):
        grown(entry(b"x", xattrs=xattrs))


def test_an_access_acl_follows_the_mode() -> None:
    """Owner, mask and others are the header's mode; one that says no more than the mode is dropped."""
    root, _ = grown(
        entry(b"x", mode=0o640, xattrs={acl.ACCESS: raw(*NAMED)}),
        entry(b"y", mode=0o640, xattrs={acl.ACCESS: raw((1, 7, 0), (4, 7, 0), (32, 7, 0))}),
    )
    assert at(root, b"x").xattrs == {
        acl.ACCESS: stored((1, 6, 0), (2, 7, 1000), (4, 5, 0), (16, 4, 0), (32, 0, 0))
    }
    assert (at(root, b"y").mode, at(root, b"y").xattrs) == (stat.S_IFREG | 0o640, None)


def test_children_inherit_a_default_acl() -> None:
    """Files its permissions, directories also the default; links, whiteouts and old inodes nothing."""
    default = stored((1, 7, 0), (2, 5, 7), (4, 5, 0), (16, 7, 0), (32, 5, 0))
    root, _ = grown(
        entry(b"old"),
        directory(b"d", 0o755, xattrs={acl.DEFAULT: default}),
        entry(b"d/f", mode=0o640),
        entry(b"d/made/g", mode=0o600),
        symlink(b"d/s", b"x"),
        whiteout(b"d/w"),
        directory(b"plain", xattrs={acl.DEFAULT: raw((1, 7, 0), (4, 5, 0), (32, 5, 0))}),
        entry(b"plain/f"),
    )

    def access(mode: int) -> bytes:
        return stored((1, mode >> 6, 0), (2, 5, 7), (4, 5, 0), (16, mode >> 3 & 7, 0), (32, mode & 7, 0))

    assert at(root, b"d/f").xattrs == {acl.ACCESS: access(0o640)}
    assert at(root, b"d/made").xattrs == {acl.ACCESS: access(0o755), acl.DEFAULT: default}
    assert at(root, b"d/made/g").xattrs == {acl.ACCESS: access(0o600)}
    assert (at(root, b"d/s").xattrs, at(root, b"d/w").xattrs, at(root, b"plain/f").xattrs) == (
        None,
        None,
        None,
    )


def test_a_second_entry_adds_attributes_and_removes_an_acl_with_an_empty_one() -> None:
    """A directory member over a directory sets its attributes on top of those that are there."""
    root, _ = grown(
        directory(b"d", xattrs={b"user.a": b"1", acl.DEFAULT: raw(*NAMED), acl.ACCESS: raw(*NAMED)}),
        directory(b"d", 0o700, xattrs={b"user.b": b"2", acl.DEFAULT: b""}),
    )
    xattrs = at(root, b"d").xattrs
    assert xattrs is not None
    assert set(xattrs) == {b"user.a", b"user.b", acl.ACCESS}
    assert acl.parse(xattrs[acl.ACCESS])[3] == (16, 0, 0xFFFFFFFF)


_entry = st.tuples(
    st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.integers(0, 8), st.sampled_from([0, 5, 6, 0xFFFFFFFF])
)
_acl = (
    st.lists(_entry, max_size=7).map(lambda entries: raw(*sorted(entries)))
    | st.lists(st.tuples(st.sampled_from([2, 8]), st.integers(0, 7), st.integers(0, 9)), max_size=4).map(
        lambda named: raw(*sorted([(1, 6, 0), (4, 5, 0), (16, 3, 0), (32, 1, 0), *named]))
    )
    | st.binary(max_size=40)
)


@pytest.mark.root
@given(st.booleans(), _acl, _acl, st.integers(0, 0o7777), st.integers(0, 0o777))
@example(True, raw(*NAMED), raw(*NAMED), 0o2770, 0o604)
@example(False, raw(*NAMED), b"", 0o4755, 0o644)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_acls_are_as_the_kernel_keeps_them(
    tmp_path: Path, folder: bool, access: bytes, default: bytes, mode: int, child: int
) -> None:
    """Set on a real inode, then chmod, then make a child: the same attributes, or the same refusal."""
    made = tmp_path / "x"
    made.mkdir() if folder else made.touch()
    node = Node(stat.S_IFDIR if folder else stat.S_IFREG, children={} if folder else None)
    below = made / "f"
    try:
        for key, value in ((acl.ACCESS, access), (acl.DEFAULT, default)):
            try:
                os.setxattr(made, key, value)
                refused = False
            except OSError as error:
                refused = error.errno != errno.ENOTSUP
            if refused:
                with pytest.raises(Corrupt):
                    attributes.set_xattrs(node, b"x", {key: value})
            else:
                attributes.set_xattrs(node, b"x", {key: value})
        made.chmod(mode)
        attributes.chmod(node, mode)
        assert _real(made) == (node.xattrs or {})
        if folder:
            below.touch()
            below.chmod(child)
            file = Node(stat.S_IFREG | child)
            attributes.inherit(file, node)
            assert _real(below) == (file.xattrs or {})
    finally:
        below.unlink() if folder and below.exists() else None
        made.rmdir() if folder else made.unlink()


def _real(path: Path) -> dict[bytes, bytes]:
    return {os.fsencode(key): os.getxattr(path, key) for key in os.listxattr(path)}
