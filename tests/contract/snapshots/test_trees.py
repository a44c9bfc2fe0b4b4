"""What a mounted snapshot shows: changes of upper layers over lower ones, with real mounts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.snapshots import Snapshots, mounted, names, run_in

pytestmark = pytest.mark.root


async def layer(snapshots: Snapshots, target: Path, name: str, parent: str, command: str) -> str:
    """Commit a layer made by a shell command."""
    with mounted(await snapshots.prepare(f"{name}-key", parent), target):
        run_in(target, command)
    await snapshots.commit(name, f"{name}-key")
    return name


async def stack(snapshots: Snapshots, target: Path, *commands: str) -> str:
    """Layers one above the other; the name of the top one."""
    top = ""
    for number, command in enumerate(commands):
        top = await layer(snapshots, target, f"layer-{number}", top, command)
    return top


async def test_content_and_mode_changed_within_the_same_second(snapshots: Snapshots, target: Path) -> None:
    """Same size, same second: the newest counts, five times over."""
    top = await stack(snapshots, target, "echo 0 >f; touch -d @1700000000 f; chmod 600 f")
    for turn in range(1, 6):
        command = f"echo {turn} >f; chmod 64{turn} f; touch -d @1700000000 f"
        top = await layer(snapshots, target, f"turn-{turn}", top, command)
        with mounted(await snapshots.view(f"view-{turn}", top), target):
            assert (target / "f").read_text() == f"{turn}\n"
            assert (target / "f").stat().st_mode & 0o777 == int(f"64{turn}", 8)


async def test_a_directory_made_anew_hides_the_old_one(snapshots: Snapshots, target: Path) -> None:
    """Opaque, in the layer itself and in one above it."""
    top = await stack(
        snapshots, target, "mkdir -p d/old; touch d/old/f", "rm -r d; mkdir d; touch d/new", "touch d/third"
    )
    with mounted(await snapshots.view("view", top), target):
        assert names(target / "d") == ["new", "third"]


async def test_owners_changed_above_stay(snapshots: Snapshots, target: Path) -> None:
    """Of directories and of files."""
    top = await stack(
        snapshots, target, "mkdir -p d/e; touch d/e/f", "chown 1:2 d/e; chown 3:4 d/e/f; chown 5:6 ."
    )
    with mounted(await snapshots.prepare("active", top), target):
        owners = [(path.stat().st_uid, path.stat().st_gid) for path in (target / "d/e", target / "d/e/f")]
        assert owners == [(1, 2), (3, 4)]
        assert (target.stat().st_uid, target.stat().st_gid) == (5, 6)


async def test_owners_are_those_of_the_last_change(snapshots: Snapshots, target: Path) -> None:
    """Deleted, made again and given away over three layers."""
    top = await stack(
        snapshots,
        target,
        "mkdir a b c; chown 1:1 a b c",
        "rmdir a; mkdir a; chown 2:2 b",
        "rmdir c; mkdir c; chown 3:3 a",
    )
    with mounted(await snapshots.view("view", top), target):
        assert [(target / name).stat().st_uid for name in "abc"] == [3, 2, 0]


async def test_a_deleted_file_stays_deleted(snapshots: Snapshots, target: Path) -> None:
    """Two layers above as well."""
    top = await stack(snapshots, target, "touch a b", "rm a", "touch c")
    with mounted(await snapshots.view("view", top), target):
        assert names(target) == ["b", "c"]


async def test_files_moved_and_linked_out_of_lower_directories(snapshots: Snapshots, target: Path) -> None:
    """The move takes, the link leaves."""
    top = await stack(snapshots, target, "mkdir d; echo 1 >d/a; echo 2 >d/b", "mv d/a a; ln d/b b")
    with mounted(await snapshots.view("view", top), target):
        assert (target / "a").read_text() == "1\n"
        assert (target / "b").read_text() == (target / "d/b").read_text() == "2\n"
        assert names(target / "d") == ["b"]


@pytest.mark.parametrize("layers", [0, 1, 2])
async def test_a_view_cannot_be_written(snapshots: Snapshots, target: Path, layers: int) -> None:
    """Of nothing, of one layer, of two."""
    top = await stack(snapshots, target, *["touch f"] * layers)
    with mounted(await snapshots.view("view", top), target):
        with pytest.raises(OSError, match="Read-only file system"):
            (target / "new").touch()
        assert names(target) == ["f"][:layers]


async def test_the_root_of_an_empty_snapshot_is_open_to_all(snapshots: Snapshots, target: Path) -> None:
    """0755, whatever the umask."""
    before = os.umask(0o077)
    try:
        mounts = await snapshots.prepare("one")
    finally:
        os.umask(before)
    with mounted(mounts, target):
        assert target.stat().st_mode & 0o7777 == 0o755


async def test_renames_over_lower_files(snapshots: Snapshots, target: Path) -> None:
    """Files can be renamed over files, upper directories over nothing; a lower directory refuses (EXDEV), as
    with containerd's own overlayfs: tools that compare layers do not understand redirections.
    """
    top = await stack(snapshots, target, "echo 1 >a; echo 2 >b; mkdir d; touch d/f")
    with mounted(await snapshots.prepare("active", top), target):
        run_in(target, "mv a b; mkdir new; mv new newer")
        with pytest.raises(OSError) as caught:
            (target / "d").rename(target / "e")
        assert caught.value.errno == errno.EXDEV
    await snapshots.commit("renamed", "active")
    with mounted(await snapshots.view("view", "renamed"), target):
        assert (target / "b").read_text() == "1\n"
        assert names(target) == ["b", "d", "newer"]


async def test_128_layers(snapshots: Snapshots, target: Path) -> None:
    """Each sees all below it, and all of them fit into one mount."""
    top = ""
    for number in range(128):
        with mounted(await snapshots.prepare(f"key-{number}", top), target):
            assert len(names(target)) == number
            (target / str(number)).touch()
        top = f"layer-{number}"
        await snapshots.commit(top, f"key-{number}")
    mounts = await snapshots.view("view", top)
    assert len(mounts) == 1
    with mounted(mounts, target):
        assert sorted(map(int, names(target))) == list(range(128))


async def test_mounts_are_told_again(snapshots: Snapshots, target: Path) -> None:
    """The same as when the snapshot was made, for every kind that has any."""
    top = await stack(snapshots, target, "touch a", "touch b")
    for key, made in (
        ("active", await snapshots.prepare("active", top)),
        ("view", await snapshots.view("view", top)),
        ("empty", await snapshots.prepare("empty")),
        ("nothing", await snapshots.view("nothing")),
        ("one", await snapshots.view("one", "layer-0")),
    ):
        assert await snapshots.mounts(key) == made
