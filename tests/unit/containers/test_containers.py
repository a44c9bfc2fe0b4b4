"""Containers: images mounted, run and let go, in the real kernel with the real runtimes."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from imagecached.containers import Bundle, Containers, Run
from imagecached.errors import Corrupt, FailedPrecondition, InvalidInput, NotFound, Unsupported
from imagecached.mounts import Method, Mounter, mountinfo, syscalls
from tests.fakes.prepared import NAME, FakeStore
from tests.support.layerfiles import layer_file
from tests.support.tars import directory, file

pytestmark = pytest.mark.root


UNIFIED = Path("/sys/fs/cgroup/unified")


def run(bundle: Bundle, runtime: str = "runc") -> subprocess.CompletedProcess[str]:
    """Run a bundle to its end, as a client does."""
    program = shutil.which(runtime)
    assert program is not None, f"needs the package {runtime}"
    command = [program, *bundle.argv[1:]]
    if runtime == "crun" and UNIFIED.exists():
        # crun refuses hosts that have both versions of cgroups: it does not get to see the second one.
        command = ["unshare", "--mount", "sh", "-c", f'umount {UNIFIED}; exec "$@"', "sh", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def folders(root: Path) -> list[str]:
    """What is in ``containers/``."""
    return sorted(path.name for path in (root / "containers").iterdir())


def overlays(root: Path) -> list[str]:
    """Our overlays in the kernel's table."""
    return [mount.point for mount in mountinfo.read() if mount.source.startswith("imagecached:")]


async def test_mount_and_umount(containers: Containers, store: FakeStore, root: Path, target: Path) -> None:
    """Read-only: no folder, nothing to clean up; set-uid bits and devices without effect."""
    await containers.mount(NAME, target)
    assert (target / "bin/busybox").is_file()
    mount = mountinfo.topmost(mountinfo.read(), str(target))
    assert mount is not None
    assert {"ro", "nosuid", "nodev"} <= mount.options
    assert folders(root) == []
    assert store.held == []
    assert store.touched == [NAME]
    await containers.umount(target)
    assert list(target.iterdir()) == []


async def test_mount_read_write(containers: Containers, root: Path, target: Path) -> None:
    """Changes are seen, and dropped with the mount."""
    await containers.mount(NAME, target, read_write=True)
    (target / "new").write_bytes(b"new")
    (target / "bin/busybox").unlink()
    assert len(folders(root)) == 1
    await containers.umount(target)
    assert folders(root) == []
    await containers.mount(NAME, target)
    assert (target / "bin/busybox").is_file()
    assert not (target / "new").exists()


async def test_the_seam_is_on_top(
    containers: Containers, store: FakeStore, tmp_path: Path, target: Path
) -> None:
    """It answers for directories that the layers lack."""
    store.seam = layer_file(tmp_path / "seam.erofs", directory("etc", mode=0o700), file("etc/seam"))
    await containers.mount(NAME, target)
    assert stat.S_IMODE((target / "etc").stat().st_mode) == 0o700
    assert (target / "etc/passwd").exists()


async def test_a_target_reached_by_a_link(containers: Containers, tmp_path: Path, target: Path) -> None:
    """The same directory by another name, both ways."""
    link = tmp_path / "link"
    link.symlink_to(target)
    await containers.mount(NAME, link)
    assert (target / "bin").is_dir()
    await containers.umount(link)
    assert overlays(target) == []


@pytest.mark.parametrize("read_write", [False, True])
async def test_targets_that_are_refused(
    containers: Containers, root: Path, tmp_path: Path, target: Path, read_write: bool
) -> None:
    """Relative, missing, a file, not empty, in our own root: refused before anything is mounted."""
    (target / "file").touch()
    (root / "mine").mkdir()
    for wrong in (Path("relative"), tmp_path / "none", target / "file", target, root / "mine", root):
        with pytest.raises(InvalidInput):
            await containers.mount(NAME, wrong, read_write=read_write)
    assert overlays(root) == []
    assert folders(root) == []


async def test_mounting_twice_on_one_target(containers: Containers, target: Path) -> None:
    """It is no longer empty."""
    await containers.mount(NAME, target)
    with pytest.raises(InvalidInput, match="not empty"):
        await containers.mount(NAME, target)


async def test_umount_leaves_alone_what_is_not_ours(containers: Containers, root: Path, target: Path) -> None:
    """A directory, a foreign mount, a layer's mount point, the rootfs of a run."""
    bundle = await containers.bundle(NAME)
    syscalls.mount("none", target, "tmpfs")
    layer = next((root / "m").glob("[!e]*"))
    for wrong in (root, target, layer, bundle.dir / "rootfs", Path("/none/x")):
        with pytest.raises(InvalidInput):
            await containers.umount(wrong)
    syscalls.umount(target)
    await containers.release(bundle.id)


async def test_umount_of_what_is_in_use(containers: Containers, root: Path, target: Path) -> None:
    """Nothing is lost: neither the mount nor what was written."""
    await containers.mount(NAME, target, read_write=True)
    with (target / "new").open("wb") as stream:
        with pytest.raises(FailedPrecondition):
            await containers.umount(target)
        stream.write(b"kept")
    assert (target / "new").read_bytes() == b"kept"
    await containers.umount(target)


async def test_images_that_cannot_be_used(containers: Containers, store: FakeStore, target: Path) -> None:
    """Unknown, and damaged."""
    with pytest.raises(NotFound):
        await containers.mount("example.org/none:latest", target)
    store.images[NAME] = replace(store.images[NAME], damaged=True)
    with pytest.raises(FailedPrecondition, match="pull it again"):
        await containers.bundle(NAME)


async def test_a_failed_mount_leaves_nothing(
    containers: Containers, store: FakeStore, root: Path, tmp_path: Path, target: Path
) -> None:
    """A layer that does not mount: neither folder nor overlay."""
    broken = tmp_path / "broken.erofs"
    broken.write_bytes(bytes(8192))
    store.layers = (broken,)
    with pytest.raises(Corrupt):
        await containers.mount(NAME, target, read_write=True)
    with pytest.raises(Corrupt):
        await containers.bundle(NAME)
    assert folders(root) == []
    assert overlays(root) == []


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_a_container_runs(containers: Containers, root: Path, runtime: str) -> None:
    """Output and exit status come through, and nothing is left after release."""
    bundle = await containers.bundle(NAME, ["sh", "-c", "echo out; echo err >&2; echo written >/new; exit 7"])
    done = run(bundle, runtime)
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert (bundle.dir / "upper/new").read_text() == "written\n"
    await containers.release(bundle.id)
    assert folders(root) == []
    assert overlays(root) == []


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_who_and_where(containers: Containers, store: FakeStore, runtime: str) -> None:
    """User names from the image's files, environment, working directory (made if missing), host name."""
    store.put(Entrypoint=["sh", "-c"], Env=["A=image", "B=image"], User="app", WorkingDir="/work/here")
    script = (
        "id -u; id -g; id -G; pwd; echo $A $B $C; cat /proc/sys/kernel/hostname; echo 2>&- >/new || echo no"
    )
    bundle = await containers.bundle(NAME, [script], settings=Run(environment={"B": "run", "C": "x y"}))
    done = run(bundle, runtime)
    assert done.stderr == ""
    host = os.uname().nodename
    expected = ["1000", "1001", "1001 10 2000", "/work/here", "image run x y", host, "no"]
    assert done.stdout.splitlines() == expected
    await containers.release(bundle.id)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
async def test_the_world_of_a_container(containers: Containers, runtime: str) -> None:
    """The usual mounts are there, the host's resolv.conf and hosts too and read-only, its processes not."""
    script = (
        "cat /proc/mounts; echo --; cat /etc/hosts >/dev/null && echo hosts;"
        " echo x 2>/dev/null >>/etc/hosts || echo read-only;"
        " echo $$; busybox ls /dev/null /dev/pts/ptmx; busybox wc -c </proc/keys"
    )
    bundle = await containers.bundle(NAME, ["sh", "-c", script])
    done = run(bundle, runtime)
    mounts, _, rest = done.stdout.partition("--\n")
    places = {line.split()[1] for line in mounts.splitlines()}
    assert {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/etc/hosts"} <= places
    assert rest.splitlines() == ["hosts", "read-only", "1", "/dev/null", "/dev/pts/ptmx", "0"]
    await containers.release(bundle.id)


async def test_a_container_on_a_terminal(containers: Containers) -> None:
    """With a terminal of the client's, the container has one too."""
    bundle = await containers.bundle(NAME, ["sh", "-c", "tty; echo $TERM"], terminal=True)
    program = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    done = subprocess.run(
        [sys.executable, "-c", program, *bundle.argv], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split() == ["/dev/pts/0", "xterm"]
    assert done.returncode == 0
    await containers.release(bundle.id)


async def test_containers_do_not_see_each_other(containers: Containers) -> None:
    """Two runs of one image, each with changes of its own."""
    first = await containers.bundle(NAME, ["sh", "-c", "echo 1 >/mine; busybox ls /"])
    second = await containers.bundle(NAME, ["sh", "-c", "busybox ls /"])
    assert "mine" in run(first).stdout
    assert "mine" not in run(second).stdout
    for bundle in (first, second):
        await containers.release(bundle.id)


async def test_a_running_container_is_not_released(containers: Containers, root: Path) -> None:
    """Its root stays whole whoever asks: release refuses, reap passes it over."""
    bundle = await containers.bundle(NAME, ["sh", "-c", "echo ready; read line; cat /etc/passwd"])
    child = subprocess.Popen(bundle.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdin is not None
    assert child.stdout.readline() == "ready\n"
    with pytest.raises(FailedPrecondition, match="still runs"):
        await containers.release(bundle.id)
    assert await containers.reap() == []
    assert folders(root) == [bundle.id]
    output, _ = child.communicate("\n", timeout=30)
    assert output.startswith("root:x:0:0")
    await containers.release(bundle.id)


async def test_release_of_the_unknown(containers: Containers) -> None:
    """Never made, or made by nobody: told apart from a wrong id."""
    with pytest.raises(NotFound):
        await containers.release("0123456789ab")
    for wrong in ("", "../x", "0123456789AB", "0123456789abc"):
        with pytest.raises(InvalidInput):
            await containers.release(wrong)


async def test_bundles_that_cannot_be_made(
    containers: Containers, store: FakeStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown user, no command, no runtime: nothing is left of the attempt."""
    store.put(Cmd=["sh"], User="nobody")
    with pytest.raises(InvalidInput, match="nobody"):
        await containers.bundle(NAME)
    store.put()
    with pytest.raises(InvalidInput, match="no command"):
        await containers.bundle(NAME)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(Unsupported, match="runc"):
        await containers.bundle(NAME, ["sh"])
    assert folders(root) == []
    assert overlays(root) == []


async def test_the_configuration_is_plain_json(containers: Containers) -> None:
    """Read by others than us; only root may look."""
    bundle = await containers.bundle(NAME)
    spec = json.loads((bundle.dir / "config.json").read_bytes())
    assert spec["process"]["args"] == ["sh"]
    assert stat.S_IMODE(bundle.dir.stat().st_mode) == 0o700
    assert bundle.argv[1:] == ("run", "--bundle", str(bundle.dir), bundle.id)
    await containers.release(bundle.id)


async def test_reap_after_a_client_died(containers: Containers, root: Path) -> None:
    """The bundle of a dead client goes; those of a living one and of an unknown one stay."""
    with subprocess.Popen(["true"]) as dead:
        gone = await containers.bundle(NAME, client=dead.pid)
    alive = await containers.bundle(NAME, client=os.getpid())
    unknown = await containers.bundle(NAME)
    assert await containers.reap() == [gone.id]
    assert folders(root) == sorted([alive.id, unknown.id])
    for bundle in (alive, unknown):
        await containers.release(bundle.id)


async def test_reap_after_a_crash(containers: Containers, store: FakeStore, root: Path, target: Path) -> None:
    """A folder without its overlay is garbage, trash is emptied; mounts in use stay, for a new daemon too."""
    await containers.mount(NAME, target, read_write=True)
    (kept,) = folders(root)
    for name in ("0123456789ab", "ba9876543210.trash"):
        (root / "containers" / name / "upper/deep").mkdir(parents=True)
    (root / "containers/somebody's").mkdir()
    restarted = Containers(store, Mounter(root, Method.BUFFERED))
    assert await restarted.reap() == []
    assert folders(root) == sorted([kept, "somebody's"])
    await restarted.umount(target)


async def test_reap_after_a_reboot(containers: Containers, root: Path, target: Path) -> None:
    """Mounts are gone, folders are left: all of them go."""
    await containers.mount(NAME, target, read_write=True)
    bundle = await containers.bundle(NAME, client=os.getpid())
    for point in (target, bundle.dir / "rootfs"):
        syscalls.umount(point)
    await containers.reap()
    assert folders(root) == []


async def test_a_bundle_whose_mount_is_gone_can_be_released(containers: Containers, root: Path) -> None:
    """release ends in the state it promises."""
    bundle = await containers.bundle(NAME)
    syscalls.umount(bundle.dir / "rootfs")
    await containers.release(bundle.id)
    assert folders(root) == []
