"""Seams: what a chain needs on top of its layers, prefix by prefix, and what the kernel makes of it."""

from __future__ import annotations

import itertools
import os
import random
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imagecached.errors import Corrupt, OutOfSpace, Unsupported
from imagecached.layers.chain import Found, View
from imagecached.layers.layerfile import read_header
from imagecached.layers.limits import Limits
from imagecached.layers.reader import LayerReader
from imagecached.layers.seam import build_seam
from imagecached.mounts.mounter import Mounter
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from tests.support.layerfiles import layer_file
from tests.support.tars import Entry, directory, file, hardlink, opaque, symlink, whiteout


class Chain:
    """A chain made layer by layer; its seam is built at every prefix."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self.layers: list[Path] = []
        self.seam: Path | None = None

    def add(self, *entries: Entry, limits: Limits | None = None) -> Path | None:
        """Put a layer on top; the new seam, if there is one."""
        path = self._folder / f"{next(self._numbers)}.layer"
        self.layers.append(layer_file(path, *entries))
        return self.sew(limits)

    def sew(self, limits: Limits | None = None) -> Path | None:
        path = self._folder / f"{next(self._numbers)}.seam"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            made = build_seam(self.layers, self.seam, fd, limits or Limits())
            assert made == bool(os.fstat(fd).st_size)
        finally:
            os.close(fd)
        self.seam = path if made else None
        return self.seam

    @property
    def lowers(self) -> list[Path]:
        """What is mounted, uppermost first."""
        return [*([self.seam] if self.seam else []), *reversed(self.layers)]


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def held(seam: Path | None) -> dict[str, tuple[str, int, int]]:
    """Everything in a seam but the root: path → (mode, uid, gid)."""
    assert seam is not None
    with LayerReader(seam) as reader:
        return {
            os.fsdecode(path): (oct(stat.S_IMODE(entry.mode)), entry.uid, entry.gid)
            for path, entry in reader.walk()
            if path
        }


def reasons(seam: Path | None) -> tuple[list[bytes], list[bytes]]:
    assert seam is not None
    with LayerReader(seam) as reader:
        return reader.notes.implicit, reader.notes.whiteouts


BASE = (
    directory("tmp", mode=0o1777),
    directory("home", mode=0o711),
    directory("home/app", mode=0o700, uid=1000, gid=100, xattrs={"user.a": b"1"}, mtime=77),
    directory("plain"),
)


def test_layers_that_say_all_need_no_seam(chain: Chain) -> None:
    """Entries for all parents, or parents that are as they would be made; nothing is written."""
    assert chain.add(*BASE) is None
    assert chain.add(directory("tmp", mode=0o700), file("tmp/x")) is None
    assert chain.add(file("plain/x"), file("new/deep/x")) is None


def test_a_directory_without_entry_keeps_the_lower_attributes(chain: Chain) -> None:
    """Mode, owner, time and attributes; the way to it looks as before."""
    chain.add(*BASE)
    seam = chain.add(file("home/app/.profile"), file("tmp/x/y"))
    assert held(seam) == {
        "home": ("0o711", 0, 0),
        "home/app": ("0o700", 1000, 100),
        "tmp": ("0o1777", 0, 0),
    }
    assert reasons(seam) == ([b"home", b"home/app", b"tmp"], [])
    with LayerReader(chain.lowers[0]) as reader:
        entry = reader.lookup(b"home/app")
        assert entry
        assert (entry.mtime, entry.xattrs) == (77, {b"user.a": b"1"})
        assert not any(found.xattrs.get(b"trusted.overlay.opaque") for _, found in reader.walk())


def test_the_way_to_a_reason_is_as_the_container_sees_it(chain: Chain) -> None:
    """Directories on the way come from the last layer's entry, or from below."""
    chain.add(*BASE)
    seam = chain.add(directory("home", mode=0o750, uid=9), file("home/app/x"))
    assert held(seam) == {"home": ("0o750", 9, 0), "home/app": ("0o700", 1000, 100)}
    assert reasons(seam) == ([b"home/app"], [])
    seam = chain.add(directory("home", mode=0o755))
    assert held(seam) == {"home": ("0o755", 0, 0), "home/app": ("0o700", 1000, 100)}


def test_the_seam_follows_from_prefix_to_prefix(chain: Chain) -> None:
    """Carried over while visible; an entry, and a layer that makes it anew, replace it."""
    chain.add(*BASE)
    first = held(chain.add(file("home/app/x"), file("tmp/x")))
    assert held(chain.add(file("etc/x"))) == first
    assert held(chain.add(directory("tmp", mode=0o700))) == {
        "home": ("0o711", 0, 0),
        "home/app": ("0o700", 1000, 100),
    }
    assert held(chain.add(file("tmp/again"), file("home/app/y"))) == {
        "home": ("0o711", 0, 0),
        "home/app": ("0o700", 1000, 100),
        "tmp": ("0o700", 0, 0),
    }


@pytest.mark.parametrize(
    "last",
    [
        [directory("home"), whiteout("home/app")],
        [whiteout("home")],
        [directory("home"), file("home/app")],
        [file("home")],
        [symlink("home", "tmp")],
        [directory("home"), opaque("home")],
        [directory("home"), directory("home/app")],
    ],
    ids=["whiteout", "whiteout-above", "file", "file-above", "symlink-above", "opaque-above", "entries"],
)
def test_what_the_last_layer_hides_is_not_carried_over(chain: Chain, last: list[Entry]) -> None:
    """And then there is no seam at all."""
    chain.add(*BASE)
    assert chain.add(file("home/app/x"))
    assert chain.add(*last) is None
    assert chain.add(file("etc/x")) is None


def test_an_inherited_directory_is_inherited_again(chain: Chain) -> None:
    """A layer further up asks the unpacked lower layer, not its file."""
    chain.add(*BASE)
    chain.add(file("home/app/x"))
    chain.add(file("home/app/y"))
    assert held(chain.add(file("home/app/z")))["home/app"] == ("0o700", 1000, 100)


def test_an_entry_behind_its_content_takes_no_attribute_away(chain: Chain) -> None:
    """The directory is made with the lower one's, then the entry sets its own on top."""
    chain.add(directory("d", mode=0o711, uid=3, xattrs={"user.a": b"1", "user.b": b"1"}))
    seam = chain.add(file("d/x"), directory("d", mode=0o700, xattrs={"user.b": b"2"}))
    assert held(seam) == {"d": ("0o700", 0, 0)}
    assert seam is not None
    with LayerReader(seam) as reader:
        entry = reader.lookup(b"d")
        assert entry
        assert entry.xattrs == {b"user.a": b"1", b"user.b": b"2"}
    assert held(chain.add(file("d/y"))) == held(seam)
    assert chain.add(directory("d", mode=0o700), file("d/z")) is None


def test_the_time_is_kept_where_nothing_is_made(chain: Chain) -> None:
    """A directory that is only marked opaque has the lower one's time, any other the moment of unpacking.

    Times of entries are set by path in the end, so an entry may set the time of a directory without one.
    """
    chain.add(directory("d", mtime=77), directory("e", mtime=77), directory("f", mode=0o700, mtime=77))
    seam = chain.add(opaque("d"), file("e/x"), directory("l/f", mtime=99), symlink("l", "."), file("f/x"))
    assert held(seam) == {"d": ("0o755", 0, 0), "f": ("0o700", 0, 0)}
    assert seam is not None
    with LayerReader(seam) as reader:
        assert {path: entry.mtime for path, entry in reader.walk() if path} == {b"d": 77, b"f": 99}


def test_lower_layers_are_asked_one_by_one(chain: Chain) -> None:
    """Marks of layers in between do not count, something else in the place does."""
    chain.add(*BASE)
    chain.add(directory("home", mode=0o711), opaque("home"))
    assert held(chain.add(file("home/app/x")))["home/app"] == ("0o700", 1000, 100)
    chain.add(whiteout("tmp"))
    assert "tmp" not in held(chain.add(file("tmp/x")))
    chain.add(file("home/app"))
    assert set(held(chain.add(file("home/app/x")))) == {"home"}


def test_symbolic_links_are_followed_inside_one_layer(chain: Chain) -> None:
    """A directory above a lower link gets what the link leads to, also where that was inherited."""
    chain.add(
        directory("usr", mode=0o711), directory("usr/bin", mode=0o750, uid=2), symlink("bin", "usr/bin")
    )
    assert held(chain.add(file("bin/tool")))["bin"] == ("0o750", 2, 0)
    chain.add(file("usr/bin/tool"), symlink("sbin", "/usr/bin"))
    assert held(chain.add(file("sbin/x")))["sbin"] == ("0o750", 2, 0)


def test_new_directories_take_the_group_of_a_set_group_id_parent(chain: Chain) -> None:
    """As mkdir(2) does, also when the parent is inherited itself."""
    chain.add(directory("d", mode=0o2775, gid=9))
    assert held(chain.add(file("d/new/deep/x"))) == {
        "d": ("0o2775", 0, 9),
        "d/new": ("0o755", 0, 9),
    }


def test_a_lower_default_acl_is_refused(chain: Chain) -> None:
    """What was made in such a directory would have inherited from it, which a layer file cannot know."""
    acl = b"\x02\0\0\0" + b"".join(tag + b"\0\7\0\xff\xff\xff\xff" for tag in (b"\1", b"\4", b"\x20"))
    chain.add(directory("d", xattrs={"system.posix_acl_default": acl}))
    with pytest.raises(Unsupported, match=r"directory 'd'.*default ACL"):
        chain.add(file("d/x"))


def test_a_layer_in_a_wrong_place_is_refused(chain: Chain, tmp_path: Path) -> None:
    """With the words of its notes; in the other place it is fine."""
    again = [file("x"), whiteout("x")]
    never = [file("d/e/x"), opaque("d")]
    assert chain.add(*again) is not None
    with pytest.raises(Corrupt, match=r"x.*whiteout of what the same layer holds"):
        chain.add(*again, file("other"))
    with pytest.raises(Corrupt, match="opaque above a directory without entry"):
        Chain(tmp_path / "2").add(*never)


def test_whiteouts_of_the_bottom_layer_are_kept_out_of_listings(chain: Chain) -> None:
    """Until a layer above has the directory, which then merges by itself."""
    seam = chain.add(directory("d", mode=0o700), whiteout("d/gone"), whiteout("e/gone"), whiteout("gone"))
    assert held(seam) == {"d": ("0o700", 0, 0), "e": ("0o755", 0, 0)}
    assert reasons(seam) == ([], [b"", b"d", b"e"])
    assert reasons(chain.add(file("f"))) == ([], [b"d", b"e"])
    assert reasons(chain.add(directory("d"))) == ([], [b"e"])
    assert chain.add(whiteout("e")) is None
    assert chain.add(whiteout("f"), directory("new"), whiteout("new/nothing")) is None


# Hard links into lower layers


def content(path: Path | None, name: bytes) -> bytes:
    assert path is not None
    with LayerReader(path) as reader:
        entry = reader.lookup(name)
        assert entry is not None
        return b"".join(reader.read(entry))


def test_a_link_into_a_lower_layer_is_one_inode_with_its_target(chain: Chain) -> None:
    """Content copied, attributes as the link says, on top of the target's."""
    chain.add(directory("bin", mode=0o711), file("bin/tool", b"tool" * 999, xattrs={"user.a": b"1"}, uid=4))
    seam = chain.add(hardlink("sbin/tool", "bin/tool", uid=5, gid=6, xattrs={"user.b": b"2"}, mtime=7))
    assert held(seam) == {
        "bin": ("0o711", 0, 0),
        "bin/tool": ("0o644", 5, 6),
        "sbin": ("0o755", 0, 0),
        "sbin/tool": ("0o644", 5, 6),
    }
    assert content(seam, b"sbin/tool") == b"tool" * 999
    assert seam is not None
    with LayerReader(seam) as reader:
        one, other = reader.lookup(b"bin/tool"), reader.lookup(b"sbin/tool")
        assert one
        assert one == other
        assert one.nlink == 2
        assert one.mtime == 7
        assert one.xattrs == {b"user.a": b"1", b"user.b": b"2"}
        assert all(offset % 512 == 0 for _, _, offset in reader.extents(one))


def test_every_kind_but_a_directory_can_be_linked(chain: Chain) -> None:
    """Symbolic links themselves, empty files; directories on the way are followed through lower links."""
    chain.add(directory("d"), file("d/empty"), symlink("d/s", "empty"), symlink("way", "d"))
    seam = chain.add(hardlink("e", "way/empty"), hardlink("s", "d/s"))
    assert set(held(seam)) == {"d", "d/empty", "d/s", "e", "s"}
    assert content(seam, b"e") == b""
    with LayerReader(chain.lowers[0]) as reader:
        link = reader.lookup(b"s")
        assert link
        assert link.target == b"empty"
    with pytest.raises(Corrupt, match="hard link 'x': to a directory, 'd'"):
        chain.add(hardlink("x", "d"))


def test_a_link_to_nothing_names_both_paths(chain: Chain) -> None:
    """Absent, hidden by a whiteout, hidden by an opaque directory, or in a bottom layer."""
    with pytest.raises(Corrupt, match="hard link 'x': to what no layer below has, 'd/f'"):
        chain.add(hardlink("x", "d/f"))
    chain.layers.clear()
    chain.add(directory("d"), file("d/f"))
    for hidden in ([whiteout("d/f")], [whiteout("d")], [directory("d"), opaque("d")], [file("d")]):
        chain.add(*hidden)
        with pytest.raises(Corrupt, match="hard link 'x': to what no layer below has, 'd/f'"):
            chain.add(hardlink("x", "d/f"))
        del chain.layers[1:]


def test_links_are_carried_over_name_by_name(chain: Chain) -> None:
    """A later layer takes one name away and the other keeps the content; the last name ends the seam."""
    chain.add(file("f", b"content"))
    chain.add(hardlink("g", "f"), hardlink("h", "f"))
    assert set(held(chain.add(file("other")))) == {"f", "g", "h"}
    assert set(held(chain.add(file("f", b"new")))) == {"g", "h"}
    seam = chain.add(hardlink("i", "g"))
    assert set(held(seam)) == {"g", "h", "i"}
    assert content(seam, b"i") == b"content"
    assert chain.add(whiteout("g"), whiteout("h"), file("i")) is None


def test_a_link_replaces_what_was_there(chain: Chain) -> None:
    """Its name hides a lower directory, and a later directory without entry there starts anew."""
    chain.add(directory("d", mode=0o700), file("d/x"), file("f", b"content"))
    assert content(chain.add(hardlink("d", "f")), b"d") == b"content"
    assert set(held(chain.add(file("d/y")))) == {"f"}


def test_sparse_files_stay_sparse(tmp_path: Path, chain: Chain) -> None:
    """Only the pieces are copied, to aligned places."""
    hole = 1 << 26
    sparse = file("GNUSparseFile.0/f", f"1\n{hole}\n1000\n".encode().ljust(512, b"\0") + b"z" * 1000)
    sparse.header.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "f",
        "GNU.sparse.realsize": str(hole + 1000),
    }
    chain.add(sparse)
    seam = chain.add(hardlink("g", "f"))
    assert seam is not None
    assert seam.stat().st_size < 1 << 20
    with LayerReader(seam) as reader:
        entry = reader.lookup(b"g")
        assert entry is not None
        assert entry.size == hole + 1000
        assert sum(length for _, length, _ in reader.extents(entry)) <= 2048
        assert b"".join(reader.read(entry)).strip(b"\0") == b"z" * 1000


def test_copied_data_is_bounded_and_asks_for_space(chain: Chain) -> None:
    """By the limits, and by whoever watches the disk."""
    chain.add(file("f", bytes(10_000)))
    with pytest.raises(Corrupt, match="more than 9999 bytes"):
        chain.add(hardlink("g", "f"), limits=Limits(tar_bytes=9999))
    told: list[int] = []

    def check_space(total: int) -> None:
        told.append(total)
        raise OutOfSpace("full")

    fd = os.open(chain.layers[0].parent / "seam", os.O_RDWR | os.O_CREAT)
    with pytest.raises(OutOfSpace):
        build_seam(chain.layers, None, fd, Limits(), check_space)
    os.close(fd)
    assert told == [10_000]


def test_a_seam_names_its_chain(chain: Chain) -> None:
    """By the ChainID, in its header."""
    chain.add(*BASE)
    seam = chain.add(file("tmp/x"))
    diff_ids = []
    for path in chain.layers:
        with LayerReader(path) as reader:
            diff_ids.append(Digest.parse(reader.header.diff_id or ""))
    assert seam is not None
    fd = os.open(seam, os.O_RDONLY)
    assert read_header(fd).chain_id == chain_ids(diff_ids)[-1]
    os.close(fd)
    chain.layers[0] = seam
    chain.seam = None
    with pytest.raises(Corrupt, match="in the place of a layer file"):
        chain.sew()


def test_deep_paths_and_long_chains_are_no_recursion(tmp_path: Path) -> None:
    """A thousand directories without entry, and a hundred layers that inherit from one another."""
    deep = Chain(tmp_path / "deep")
    paths = ["/".join("d" * depth) for depth in range(1, 1001)]
    deep.add(*(directory(path, mode=0o711) for path in paths))
    assert len(held(deep.add(file(f"{paths[-1]}/x")))) == 1000
    long = Chain(tmp_path / "long")
    long.add(directory("d", mode=0o711))
    for number in range(100):
        long.add(file(f"d/{number}"))
    assert held(long.seam) == {"d": ("0o711", 0, 0)}


NOBODY = b"\xff\xff\xff\xff"


@pytest.mark.parametrize("seed", range(100))
def test_damaged_layers_give_corrupt_and_nothing_else(chain: Chain, seed: int) -> None:
    """Bytes changed in metadata or notes of any layer or of the parent's seam: a seam, or a refusal."""
    source = random.Random(seed)
    acl = b"\x02\0\0\0" + b"".join(
        tag + b"\0\7\0" + who
        for tag, who in (
            (b"\1", NOBODY),
            (b"\2", bytes(4)),
            (b"\4", NOBODY),
            (b"\x10", NOBODY),
            (b"\x20", NOBODY),
        )
    )
    chain.add(
        *BASE,
        file("f", b"f" * 600),
        symlink("l", "home"),
        directory("a", xattrs={"system.posix_acl_access": acl}),
    )
    chain.add(file("home/app/x"), hardlink("g", "f"), file("a/x"), directory("a"))
    third = layer_file(
        chain.layers[0].parent / "third",
        file("home/y"),
        hardlink("tmp/h", "g"),
        file("a/y"),
        directory("a"),
        file("l/x"),
    )
    chain.layers.append(third)
    victim = source.choice(chain.lowers)
    with LayerReader(victim) as reader:
        area = source.choice([reader.header.image, reader.header.notes])
    raw = bytearray(victim.read_bytes())
    for _ in range(source.choice((1, 2, 8))):
        at = source.randrange(area.offset, area.end)
        raw[at] = source.choice((0, 0xFF, raw[at] ^ 1 << source.randrange(8), source.randrange(256)))
    victim.write_bytes(raw)
    with suppress(Corrupt, Unsupported):
        chain.sew()


# A model of unpacking: every layer into a directory of its own, parents made as containerd makes them


@dataclass
class Inode:
    kind: str
    facts: tuple[int, int] = (0o755, 0)
    opaque: bool = False
    below: dict[str, Inode] = field(default_factory=dict)


Steps = list[tuple[str, str, tuple[int, int]]]


def unpack(steps: Steps, lower: list[Inode]) -> Inode:
    """The upper directory of one layer; ``lower`` uppermost first."""
    root = Inode("dir")
    for kind, path, facts in steps:
        *parents, name = path.split("/")
        node = root
        for depth, part in enumerate(parents):
            if part not in node.below:
                made = node.below[part] = Inode("dir")
                made.facts = inherited(parents[: depth + 1], lower) or made.facts
            node = node.below[part]
        if kind == "opaque":
            if name not in node.below:
                node.below[name] = Inode("dir", inherited([*parents, name], lower) or (0o755, 0))
            node.below[name].opaque = True
        elif kind == "dir" and name in node.below:
            node.below[name].facts = facts
        else:
            node.below[name] = Inode(kind, facts)
    return root


def inherited(parts: list[str], lower: list[Inode]) -> tuple[int, int] | None:
    for root in lower:
        node: Inode | None = root
        for part in parts:
            node = node.below.get(part) if node else None
            if node and node.kind != "dir":
                return None
        if node:
            return node.facts
    return None


def merged(stack: list[Inode], path: str = "") -> Iterator[tuple[str, str, tuple[int, int]]]:
    for name in sorted({name for node in stack for name in node.below}):
        found: list[Inode] = []
        for node in stack:
            below = node.below.get(name)
            if below and (below.kind != "dir" and found):
                break
            if below:
                found.append(below)
            if (below and below.kind != "dir") or node.opaque:
                break
        if found and found[0].kind != "whiteout":
            here = f"{path}/{name}" if path else name
            yield here, found[0].kind, found[0].facts
            yield from merged([node for node in found if node.kind == "dir"], here)


def random_steps(source: random.Random) -> Steps:
    """Members that unpacking accepts: no file where the layer has a directory and the other way round."""
    taken: dict[str, str] = {}
    steps: Steps = []
    for _ in range(source.randint(1, 6)):
        path = "/".join(source.choices("abc", k=source.randint(1, 3)))
        kind = source.choice(["file", "file", "dir", "dir", "whiteout", "opaque"])
        is_dir = kind in ("dir", "opaque")
        parents = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 1)]
        if any(taken.get(parent, "dir") != "dir" for parent in parents):
            continue
        if path in taken and not (is_dir and taken[path] == "dir"):
            continue
        taken |= dict.fromkeys(parents, "dir")
        taken[path] = "dir" if is_dir else kind
        steps.append((kind, path, (source.choice((0o700, 0o755, 0o1777)), source.choice((0, 5)))))
    return steps


def member(kind: str, path: str, facts: tuple[int, int]) -> Entry:
    mode, uid = facts
    if kind == "whiteout":
        return whiteout(path)
    if kind == "opaque":
        return opaque(path)
    return (file if kind == "file" else directory)(path, mode=mode, uid=uid)


def shown(lowers: list[Path]) -> list[tuple[str, str, tuple[int, int]]]:
    """What overlayfs shows of these files, worked out from their readers."""
    with ExitStack() as stack:
        readers = [stack.enter_context(LayerReader(path)) for path in lowers]
        view = View(readers)
        names = {os.fsdecode(path) for reader in readers for path, _ in reader.walk() if path}
        found = [(name, view.lookup(os.fsencode(name))) for name in sorted(names, key=lambda n: n.split("/"))]
        return [(name, *facts_of(one)) for name, one in found if one]


def facts_of(found: Found) -> tuple[str, tuple[int, int]]:
    entry = found.entry
    return "dir" if entry.is_dir else "file", (stat.S_IMODE(entry.mode), entry.uid)


@pytest.mark.parametrize("seed", range(60))
def test_every_prefix_shows_what_unpacking_makes(tmp_path: Path, seed: int) -> None:
    """Random layers without most of their parents, compared with a model of unpacking."""
    source = random.Random(seed)
    chain = Chain(tmp_path)
    uppers: list[Inode] = []
    for number in range(source.randint(2, 4)):
        steps = [step for step in random_steps(source) if number or step[0] in ("file", "dir")]
        uppers.insert(0, unpack(steps, uppers))
        chain.add(*(member(*step) for step in steps))
        assert shown(chain.lowers) == list(merged(uppers)), steps


# In the kernel


@pytest.fixture
def mounter(tmp_path: Path) -> Iterator[Mounter]:
    found = Mounter.probe(tmp_path / "root")
    yield found
    found.sweep()


@contextmanager
def mounted(mounter: Mounter, lowers: list[Path]) -> Iterator[Path]:
    target = mounter.root / "target"
    target.mkdir(exist_ok=True)
    mounter.overlay(lowers, target, source="test", writable=None)
    try:
        yield target
    finally:
        mounter.umount(target)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.root
def test_the_kernel_shows_the_seam_on_every_prefix(mounter: Mounter, chain: Chain) -> None:
    """Attributes through the mount; what was hidden stays hidden."""
    chain.add(*BASE)
    chain.add(file("home/app/x", b"x"), file("tmp/x"))
    chain.add(file("home/app/y"), whiteout("home/app/x"))
    with mounted(mounter, chain.lowers) as root:
        found = (root / "home/app").stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o700, 1000, 100)
        assert os.getxattr(root / "home/app", "user.a") == b"1"
        assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
        assert names(root / "home/app") == ["y"]
        assert names(root) == ["home", "plain", "tmp"]
    chain.add(whiteout("home"))
    with mounted(mounter, chain.lowers) as root:
        assert names(root) == ["plain", "tmp"]
    chain.add(file("home/z"))
    with mounted(mounter, chain.lowers) as root:
        assert stat.S_IMODE((root / "home").stat().st_mode) == 0o755
        assert names(root / "home") == ["z"]


@pytest.mark.root
def test_the_kernel_shows_links_as_one_inode(mounter: Mounter, chain: Chain) -> None:
    """Both names, the data, and other files of the directory beside them."""
    chain.add(directory("bin", mode=0o711), file("bin/tool", b"tool" * 5000), file("bin/other", b"o"))
    chain.add(hardlink("sbin/tool", "bin/tool", uid=5), file("sbin/beside", b"b"))
    with mounted(mounter, chain.lowers) as root:
        one, other = (root / "bin/tool").stat(), (root / "sbin/tool").stat()
        assert (one.st_ino, one.st_nlink, one.st_uid) == (other.st_ino, 2, 5)
        assert (root / "sbin/tool").read_bytes() == (root / "bin/tool").read_bytes() == b"tool" * 5000
        assert names(root / "bin") == ["other", "tool"]
        assert names(root / "sbin") == ["beside", "tool"]
        assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o711


@pytest.mark.root
def test_the_kernel_shows_no_ghosts_of_a_bottom_layer(mounter: Mounter, chain: Chain) -> None:
    """Neither in its directories nor in the root; an opaque mark at the bottom hides nothing."""
    bottom = (
        directory("d"),
        opaque("d"),
        file("d/x"),
        whiteout("d/gone"),
        whiteout("e/gone"),
        whiteout("gone"),
    )
    for above in ([], [file("f")], [directory("d", mode=0o700)]):
        chain.layers.clear()
        chain.seam = None
        chain.add(*bottom)
        if above:
            chain.add(*above)
        with mounted(mounter, chain.lowers) as root:
            assert [name for name in names(root) if name != "f"] == ["d", "e"]
            assert names(root / "d") == ["x"]
            assert names(root / "e") == []
            assert b"trusted.overlay.opaque" not in map(os.fsencode, os.listxattr(root / "d"))
