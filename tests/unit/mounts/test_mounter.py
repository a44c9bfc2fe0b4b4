"""Mounter: layer files and overlays in the real kernel."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagecached import mounts
from imagecached.errors import Corrupt, FailedPrecondition, InvalidInput, NotFound
from imagecached.mounts import LADDER, Method, Mounter, mountinfo, syscalls
from imagecached.mounts.overlay import mount_overlay
from imagecached.mounts.points import used
from tests.support.layerfiles import layer_file, loops_below
from tests.support.tars import directory, file, opaque, whiteout

pytestmark = pytest.mark.root

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(mounts.__file__).parents[2])}
BASE = [
    directory("etc"),
    file("etc/hostname", b"base"),
    directory("usr"),
    file("usr/tool", b"#!", mode=0o755),
]


@pytest.fixture(params=LADDER)
def mounter(request: pytest.FixtureRequest, root: Path) -> Mounter:
    """A mounter for every rung of the ladder."""
    return Mounter(root, request.param)


@pytest.fixture
def plain(root: Path) -> Mounter:
    """A mounter where the rung does not matter."""
    return Mounter(root, Method.BUFFERED)


def points(root: Path) -> list[str]:
    """What is mounted below ``m/``."""
    return [mount.point for mount in mountinfo.read() if mount.point.startswith(f"{root}/m/")]


def test_a_layer_is_mounted_once_and_read(mounter: Mounter, root: Path) -> None:
    """The second call gives the same directory and mounts nothing."""
    layer = layer_file(root / "layers/a.erofs", *BASE)
    point = mounter.layer(layer)
    assert (point / "etc/hostname").read_bytes() == b"base"
    assert stat.S_IMODE((point / "usr/tool").stat().st_mode) == 0o755
    assert mounter.layer(layer) == point
    assert points(root) == [str(point)]
    assert mounter.mounted() == {layer}


def test_a_layer_cannot_be_written(mounter: Mounter, root: Path) -> None:
    """Read-only, for root too."""
    point = mounter.layer(layer_file(root / "layers/a.erofs", *BASE))
    with pytest.raises(OSError, match="Read-only"):
        (point / "etc/new").touch()


def test_a_new_daemon_finds_the_old_mounts(mounter: Mounter, root: Path, target: Path) -> None:
    """Only the kernel remembers: another mounter, even one of another method, adopts what is mounted."""
    layers = [layer_file(root / f"layers/{name}.erofs", file(name, b"x")) for name in "ab"]
    mounter.overlay(layers, target, source="imagecached:test")
    before = points(root)
    other = Mounter(root, Method.BUFFERED)
    assert other.mounted() == set(layers)
    assert [str(other.layer(layer)) for layer in layers] == before
    assert points(root) == before
    assert other.sweep() == frozenset()
    assert sorted(path.name for path in target.iterdir()) == ["a", "b"]


def test_a_daemon_that_is_killed_leaves_everything_mounted(root: Path, target: Path) -> None:
    """SIGKILL: the tree is whole, and the next daemon adopts its layers."""
    layers = [layer_file(root / f"layers/{name}.erofs", file(name, name.encode())) for name in "ab"]
    script = (
        "import os, signal, sys; from pathlib import Path; from imagecached.mounts import Mounter\n"
        "root, target, *layers = map(Path, sys.argv[1:])\n"
        "Mounter.probe(root).overlay(layers, target, source='imagecached:killed')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, root, target, *layers], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (target / "b").read_bytes() == b"b"
    mounter = Mounter.probe(root)
    assert mounter.mounted() == set(layers)
    assert mounter.sweep() == frozenset()
    assert [str(mounter.layer(layer)) for layer in layers] == points(root)


def test_a_replaced_layer_is_another_one(mounter: Mounter, root: Path) -> None:
    """The same path with a new inode (a repair, a second pull) must not show the old bytes."""
    layer = layer_file(root / "layers/a.erofs", file("which", b"broken"))
    old = mounter.layer(layer)
    layer.unlink()
    layer_file(layer, file("which", b"repaired"))
    new = mounter.layer(layer)
    assert new != old
    assert (new / "which").read_bytes() == b"repaired"
    assert (old / "which").read_bytes() == b"broken"  # whoever uses it keeps what he had
    assert mounter.sweep() == {layer}
    assert points(root) == []


def test_something_else_at_the_mount_point_is_never_taken_for_the_layer(plain: Mounter, root: Path) -> None:
    """Neither another file system nor another layer."""
    layer, other = (layer_file(root / f"layers/{name}.erofs", file(name)) for name in "ab")
    point = plain.layer(layer)
    plain.sweep()
    point.mkdir()
    syscalls.mount("none", point, "tmpfs")
    with pytest.raises(FailedPrecondition, match="does not show"):
        plain.layer(layer)
    syscalls.umount(point)
    syscalls.mount(str(other), point, "erofs", syscalls.MS_RDONLY)
    with pytest.raises(FailedPrecondition, match="does not show"):
        plain.layer(layer)


def test_a_missing_file(plain: Mounter, root: Path) -> None:
    """NotFound, and no directory for it."""
    with pytest.raises(NotFound):
        plain.layer(root / "layers/none.erofs")
    assert [path.name for path in (root / "m").iterdir()] == ["empty"]


def test_a_broken_file(mounter: Mounter, root: Path) -> None:
    """No superblock: Corrupt, and neither directory nor loop device is left."""
    broken = root / "layers/broken.erofs"
    broken.parent.mkdir()
    broken.write_bytes(bytes(8192))
    with pytest.raises(Corrupt, match=r"broken\.erofs"):
        mounter.layer(broken)
    assert [path.name for path in (root / "m").iterdir()] == ["empty"]
    assert loops_below(root) == []


def test_a_writable_overlay(mounter: Mounter, root: Path, target: Path) -> None:
    """Changes go to the upper directory; whiteouts and opaque directories of a layer hide what is below."""
    low = layer_file(
        root / "layers/low.erofs",
        *BASE,
        directory("var"),
        file("var/a"),
        directory("opt"),
        file("opt/hidden"),
    )
    top = layer_file(
        root / "layers/top.erofs",
        directory("var"),
        whiteout("var/a"),
        file("var/b"),
        directory("opt"),
        opaque("opt"),
    )
    writable = root / "w"
    writable.mkdir()
    mounter.overlay([top, low], target, source="imagecached:test", writable=writable)
    assert [path.name for path in (target / "var").iterdir()] == ["b"]
    assert list((target / "opt").iterdir()) == []
    with (target / "etc/hostname").open("ab") as stream:
        stream.write(b" changed")
    (target / "usr/tool").unlink()
    (target / "new").write_bytes(b"new")
    shutil.rmtree(target / "usr")
    assert (writable / "work/work/incompat/volatile").is_dir(), "nothing of it is worth a sync"
    assert (target / "etc/hostname").read_bytes() == b"base changed"
    assert sorted(path.name for path in (writable / "upper").iterdir()) == ["etc", "new", "usr"]
    assert (mounter.layer(low) / "usr/tool").exists()


def test_the_upper_directory_is_like_containerds(plain: Mounter, root: Path, target: Path) -> None:
    """0755 and root's, whatever the umask."""
    layer = layer_file(root / "layers/a.erofs", file("a"))
    writable = root / "w"
    writable.mkdir()
    before = os.umask(0o077)
    try:
        plain.overlay([layer], target, source="x", writable=writable)
    finally:
        os.umask(before)
    seen = target.stat()
    assert (stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid) == (0o755, 0, 0)


def test_a_single_layer_read_only(mounter: Mounter, root: Path, target: Path) -> None:
    """One layer makes an overlay as well: its name is in the table, its xattrs are hidden."""
    layer = layer_file(root / "layers/a.erofs", directory("etc"), file("etc/a", b"1"), opaque("etc"))
    mounter.overlay([layer], target, source="imagecached:one")
    assert (target / "etc/a").read_bytes() == b"1"
    assert os.listxattr(target / "etc") == []
    mount = mountinfo.topmost(mountinfo.read(), str(target))
    assert mount is not None
    assert (mount.filesystem, mount.source) == ("overlay", "imagecached:one")
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()


def test_no_layers(plain: Mounter, target: Path) -> None:
    """An image without layers is refused by name, not by the kernel."""
    with pytest.raises(InvalidInput):
        plain.overlay([], target, source="x")


def test_the_same_layer_twice(plain: Mounter, root: Path, target: Path) -> None:
    """Images may hold a layer more than once; it covers all that it has further down."""
    twice, other = (
        layer_file(root / "layers/a.erofs", file("x", b"a")),
        layer_file(root / "layers/b.erofs", file("x")),
    )
    plain.overlay([twice, other, twice], target, source="x")
    assert (target / "x").read_bytes() == b"a"


@pytest.mark.parametrize("count", [2, 100, 128, 300])
def test_many_layers(plain: Mounter, root: Path, target: Path, count: int) -> None:
    """Far more layers than a page of absolute paths can name, writable; each layer is really there."""
    layers = [
        layer_file(root / f"layers/{n}.erofs", file(f"f{n}", b"%d" % n), file("top", b"%d" % n))
        for n in range(count)
    ]
    layers.reverse()
    writable = root / "w"
    writable.mkdir()
    plain.overlay(layers, target, source="imagecached:many", writable=writable)
    assert len(list(target.iterdir())) == count + 1
    assert (target / "top").read_bytes() == b"%d" % (count - 1)
    assert (target / "f0").read_bytes() == b"0"
    (target / "f0").unlink()
    assert plain.sweep() == frozenset(), "an overlay uses them all, by whichever names"
    assert Path.cwd().exists()
    syscalls.umount(target)
    assert len(plain.sweep()) == count


@pytest.mark.parametrize(("count", "digits"), [(501, 4), (400, 12)])
def test_more_layers_than_the_kernel_takes(tmp_path: Path, count: int, digits: int) -> None:
    """Too many, or too many bytes even of relative paths: refused, not cut somewhere."""
    lowers = [tmp_path / f"{n:0{digits}}" for n in range(count)]
    with pytest.raises(FailedPrecondition, match="at most 500"):
        mount_overlay(lowers, tmp_path, source="x", writable=None, flags=0, base=tmp_path)


def test_a_long_overlay_leaves_the_working_directory_alone(plain: Mounter, root: Path, target: Path) -> None:
    """Relative paths need another working directory; no other thread may ever see it."""
    layers = [layer_file(root / f"layers/{n}.erofs", file(f"f{n}")) for n in range(150)]
    here, seen, stop = Path.cwd(), set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(Path.cwd())

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        plain.overlay(layers, target, source="x")
        stop.set()
        watching.result()
    assert seen == {here}


def test_sweep_takes_what_is_idle_only(mounter: Mounter, root: Path, target: Path) -> None:
    """Not what an overlay uses, not what was asked to be kept; directories without mount go too."""
    used_layer, idle, kept = (
        layer_file(root / f"layers/{name}.erofs", file(name)) for name in ("u", "i", "k")
    )
    mounter.overlay([used_layer], target, source="x")
    mounter.layer(idle)
    mounter.layer(kept)
    (root / "m/leftover").mkdir()
    assert mounter.sweep(keep={kept}) == {idle}
    assert mounter.mounted() == {used_layer, kept}
    assert not (root / "m/leftover").exists()
    mounter.umount(target)
    assert mounter.sweep() == {used_layer, kept}
    assert [path.name for path in (root / "m").iterdir()] == ["empty"]
    assert loops_below(root) == []


def test_sweep_spares_a_bind_mount_elsewhere(plain: Mounter, root: Path, target: Path) -> None:
    """containerd binds a single layer: the same file system at a second place."""
    layer = layer_file(root / "layers/a.erofs", file("a"))
    syscalls.mount(str(plain.layer(layer)), target, "", 4096)  # MS_BIND
    assert plain.sweep() == frozenset()
    syscalls.umount(target)
    assert plain.sweep() == {layer}


def test_sweep_spares_an_open_file(mounter: Mounter, root: Path) -> None:
    """A layer that somebody reads right now stays, and is taken the next time."""
    layer = layer_file(root / "layers/a.erofs", file("a", b"x"))
    with (mounter.layer(layer) / "a").open("rb"):
        assert mounter.sweep() == frozenset()
    assert mounter.sweep() == {layer}


def test_sweep_spares_what_is_asked_for_meanwhile(
    plain: Mounter, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks first and unmounts one by one: a layer handed out in between is no longer idle."""
    layers = [layer_file(root / f"layers/{name}.erofs", file(name)) for name in "ab"]
    for layer in layers:
        plain.layer(layer)
    look = plain._idle
    monkeypatch.setattr(plain, "_idle", lambda keep: (look(keep), plain.layer(layers[0]))[0])
    assert plain.sweep() == {layers[1]}
    monkeypatch.undo()
    assert plain.sweep() == {layers[0]}


def test_a_swept_layer_is_mounted_again(mounter: Mounter, root: Path) -> None:
    """What was remembered of the old mount does not mislead."""
    layer = layer_file(root / "layers/a.erofs", file("a", b"x"))
    mounter.layer(layer)
    mounter.sweep()
    assert (mounter.layer(layer) / "a").read_bytes() == b"x"


def test_a_running_container_outlives_everything(mounter: Mounter, root: Path, target: Path) -> None:
    """Layer files deleted, their mounts taken away by hand: the overlay above still reads."""
    layers = [layer_file(root / f"layers/{name}.erofs", file(name, name.encode())) for name in "ab"]
    mounter.overlay(layers, target, source="x")
    shutil.rmtree(root / "layers")
    for point in points(root):
        syscalls.umount(point)
    assert (target / "a").read_bytes() == b"a"


def test_unmounting_what_is_busy_or_not_there(plain: Mounter, root: Path, target: Path) -> None:
    """Two different answers for two different reactions."""
    with pytest.raises(InvalidInput):
        plain.umount(target)
    plain.overlay([layer_file(root / "layers/a.erofs", file("a", b"x"))], target, source="x")
    with (target / "a").open("rb"), pytest.raises(FailedPrecondition, match="busy"):
        plain.umount(target)
    plain.umount(target)


def test_many_threads_mount_the_same_layers(mounter: Mounter, root: Path, tmp_path: Path) -> None:
    """Every layer is mounted exactly once, and sweeps in between take nothing from under an overlay."""
    layers = [layer_file(root / f"layers/{n}.erofs", file(f"f{n}", b"x")) for n in range(6)]
    targets = [tmp_path / f"t{n}" for n in range(12)]

    def mount(place: Path) -> int:
        place.mkdir()
        mounter.overlay(layers, place, source="x")
        mounter.sweep()
        return len(list(place.iterdir()))

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(mount, targets)) == {6}
    assert len(points(root)) == 6


def test_relative_lower_directories_count_as_use() -> None:
    """containerd shortens paths too: a relative name that could be ours is taken for ours."""
    table = mountinfo.parse(
        b"1 0 0:5 / /r/m/1a ro - erofs /r/layers/x ro\n"
        b"2 0 0:6 / /r/m/2b ro - erofs /r/layers/y ro\n"
        b"3 0 0:7 / /t rw - overlay overlay rw,lowerdir=1a:../x/9\n"
    )
    assert used(table, table[:2]) == {"/r/m/1a"}
