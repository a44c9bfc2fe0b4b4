"""The whole product as a user meets it: the daemon's process, the client's, a real registry, real mounts,
real containers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tars
from tests.support.daemon import BIN, Daemon, serve_daemon
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.images import ImageFolder
from tests.support.mounts import mounted_below, unmount_below
from tests.support.processes import await_true
from tests.support.registry import Registry, free_port, serve_registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def demo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with both demo images in it."""
    push_demo(registry, tmp_path_factory.mktemp("demo"))
    return registry


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon on an empty root."""
    with serve_daemon(tmp_path / "daemon") as running:
        yield running


def test_from_registry_to_container(demo: Registry, daemon: Daemon) -> None:
    """Pull, look, run, and the second pull fetches nothing."""
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    [first, second] = daemon.ask("pull", shell, hello)["images"]
    assert (first["state"], second["state"]) == ("ready", "ready")
    assert first["bytes_downloaded"] + second["bytes_downloaded"] == sum(
        layer["size_bytes"] for layer in second["layers"]
    )
    assert first["bytes_reused"] + second["bytes_reused"] == first["layers"][0]["size_bytes"]
    table = daemon.ctl("get", "images").stdout.splitlines()
    assert table[0].split()[:2] == ["NAME", "AGE"]
    assert [line.split()[3:5] for line in table[1:]] == [["Ready", "100%"]] * 2
    assert daemon.ctl("run", hello).stdout == "Hello, world!\n"
    assert daemon.ctl("run", shell, "sh", "-c", "exit 7", check=False).returncode == 7
    [again] = daemon.ask("pull", hello)["images"]
    assert (again["bytes_downloaded"], again["bytes_reused"]) == (
        0,
        second["bytes_downloaded"] + second["bytes_reused"],
    )
    described = daemon.ask("describe", hello)
    assert [layer["images"] for layer in described["layers"]] == [2, 1, 1]
    assert daemon.ask("fsck")["faults"] == []


def test_a_mounted_image_is_read_and_written(demo: Registry, daemon: Daemon, tmp_path: Path) -> None:
    """A read-only mount refuses changes; a writable one keeps them to itself until it is unmounted."""
    shell, target = demo.reference(SHELL), tmp_path / "tree"
    target.mkdir()
    daemon.ctl("mount", shell, target)
    assert (target / "bin/busybox").stat().st_size > 100_000
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").write_text("x")
    assert daemon.ctl("rm", shell).returncode == 0
    daemon.ctl("gc")
    assert (target / "bin/busybox").read_bytes()[:4] == b"\x7fELF"
    daemon.ctl("umount", target)
    assert list(target.iterdir()) == []
    daemon.ctl("mount", shell, target, "--read-write")
    (target / "new").write_text("x")
    daemon.ctl("umount", target)
    daemon.ctl("mount", shell, target)
    assert not (target / "new").exists()
    daemon.ctl("umount", target)


def test_what_is_removed_is_freed(demo: Registry, daemon: Daemon) -> None:
    """gc keeps what an image refers to and removes the rest; a dry run says so and does nothing."""
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    daemon.ctl("pull", hello, shell)
    daemon.ctl("rm", hello)
    planned = daemon.ask("gc", "--dry-run")
    assert len(planned["layers"]) == 2
    assert len(daemon.ask("get", "layers")["layers"]) == 3
    done = daemon.ask("gc")
    assert (done["layers"], done["freed_bytes"]) == (planned["layers"], planned["freed_bytes"])
    assert len(daemon.ask("get", "layers")["layers"]) == 1
    assert daemon.ctl("run", shell).stdout == "A shell from a prepared snapshot\n"


def test_the_end_of_the_daemon_is_no_end_of_a_mount(demo: Registry, daemon: Daemon, tmp_path: Path) -> None:
    """Stopped or killed, mounts go on; the next daemon knows them, needs no registry, can unmount them."""
    shell, target = demo.reference(SHELL), tmp_path / "tree"
    target.mkdir()
    daemon.ctl("mount", shell, target)
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert (target / "bin/busybox").read_bytes()[:4] == b"\x7fELF"
    daemon.start()
    assert daemon.stop(signal.SIGTERM) == 0
    assert (target / "bin/busybox").exists()
    daemon.start()
    assert daemon.ctl("run", shell).stdout == "A shell from a prepared snapshot\n"
    daemon.ctl("umount", target)
    assert not (target / "bin").exists()


def test_a_container_outlives_the_daemon(demo: Registry, daemon: Daemon) -> None:
    """SIGKILL in the middle of a container: it reads, writes and executes as if nothing had happened."""
    script = "while read -r word; do echo $word >> /log; ls /bin > /dev/null && cat /log | tail -n 1; done"
    argv: list[str | Path] = [BIN / "imagecachectl", "--socket", daemon.socket, "run", demo.reference(SHELL)]
    argv += ["sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdin
        assert container.stdout
        for round_ in range(4):
            container.stdin.write(f"word{round_}\n")
            container.stdin.flush()
            assert container.stdout.readline() == f"word{round_}\n"
            daemon.stop(signal.SIGKILL)
            daemon.start()
        container.stdin.close()
        assert container.wait(30) == 0
    await_true(
        lambda: not any("containers" in str(point) for point in mounted_below(daemon.root)),
        what="the release", deadline_seconds=10, alive=lambda: True,
    )  # fmt: skip


def test_two_daemons_on_one_root_are_refused(daemon: Daemon, tmp_path: Path) -> None:
    """The second says who has it, and the first goes on."""
    argv: list[str | Path] = [
        BIN / "imagecached",
        "serve",
        "--root",
        daemon.root,
        "--socket",
        tmp_path / "other.sock",
    ]
    second = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1
    assert str(daemon.process and daemon.process.pid) in second.stderr
    assert "Traceback" not in second.stderr
    daemon.ctl("get", "images")


def test_a_live_socket_is_not_stolen(daemon: Daemon, tmp_path: Path) -> None:
    """A second daemon with another root but the same socket is refused."""
    argv: list[str | Path] = [
        BIN / "imagecached",
        "serve",
        "--root",
        tmp_path / "other",
        "--socket",
        daemon.socket,
    ]
    second = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    daemon.ctl("get", "images")


def test_a_root_from_a_newer_version_is_refused(tmp_path: Path) -> None:
    """It is not touched, and the message names both formats."""
    root = tmp_path / "root"
    root.mkdir(mode=0o700)
    (root / "version").write_text('{"format": 99}')
    argv: list[str | Path] = [BIN / "imagecached", "serve", "--root", root, "--socket", tmp_path / "sock"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "99" in done.stderr
    assert "1" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((root / "version").read_text()) == {"format": 99}


def test_exit_codes_say_what_to_do(demo: Registry, daemon: Daemon) -> None:
    """Every class of failure has its documented code and one line that names the image."""
    nobody = f"127.0.0.1:{free_port('127.0.0.1')}/demo/hello:1"
    expected = {
        ("pull", demo.reference("demo/missing:1")): 3,
        ("pull", demo.reference("demo/Hello:1")): 2,
        ("pull", nobody): 7,
        ("describe", "never/pulled:1"): 3,
        ("rm", "never/pulled:1"): 3,
        ("umount", "/nowhere"): 2,
        ("mount", demo.reference(SHELL), daemon.root): 2,
        ("frobnicate",): 2,
    }
    for arguments, code in expected.items():
        done = daemon.ctl(*arguments, check=False)
        assert done.returncode == code, (arguments, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.strip()
    argv: list[str | Path] = [
        BIN / "imagecachectl",
        "--socket",
        daemon.directory / "nobody.sock",
        "get",
        "images",
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) <= 2


def test_a_damaged_blob_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    """Bytes that changed in the registry: exit code 5, nothing published, no partial file."""
    with serve_registry(tmp_path / "registry") as registry:
        folder = ImageFolder(tmp_path / "images")
        layer = folder.layer(tars.tar(tars.file("data", os.urandom(300_000))), "none")
        folder.push(folder.image([layer]), registry.reference("bad:1"))
        blob = registry.stored_blob(layer.blob.digest)
        content = bytearray(blob.read_bytes())
        content[100_000] ^= 1
        blob.write_bytes(content)
        done = daemon.ctl("pull", registry.reference("bad:1"), check=False)
    assert done.returncode == 5, done.stderr
    assert layer.blob.digest in done.stderr
    assert daemon.ask("get", "layers")["layers"] == []
    assert list((daemon.root / "ingest").iterdir()) == []


def test_no_room_is_said_early(demo: Registry, tmp_path: Path) -> None:
    """A quota smaller than the image: exit code 6, and nothing is left of it."""
    with serve_daemon(tmp_path / "daemon", store={"quota_bytes": 200_000}) as daemon:
        done = daemon.ctl("pull", demo.reference(HELLO), check=False)
        assert done.returncode == 6, done.stderr
        assert list((daemon.root / "ingest").iterdir()) == []
        assert daemon.ask("get", "layers")["layers"] == []


def test_a_corrupt_layer_file_is_found_dropped_and_pulled_again(demo: Registry, daemon: Daemon) -> None:
    """fsck names it with exit code 5; repair marks the image; the next pull fetches just that layer."""
    hello = demo.reference(HELLO)
    daemon.ctl("pull", hello)
    victim = daemon.ask("describe", hello)["layers"][1]
    path = next(daemon.root.glob(f"layers/sha256/*/{victim['diff_id'][7:]}.erofs"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    found = daemon.ctl("fsck", check=False)
    assert found.returncode == 5
    assert victim["diff_id"][7:19] in found.stdout
    assert daemon.ctl("fsck", "--repair", check=False).returncode in (0, 5)
    assert daemon.ask("get", "images", hello)["damaged"]
    [again] = daemon.ask("pull", hello)["images"]
    assert again["bytes_downloaded"] == victim["blob_bytes"]
    assert daemon.ctl("run", hello).stdout == "Hello, world!\n"
    assert daemon.ask("fsck")["faults"] == []


def test_ctrl_c_cancels_what_nobody_else_wants(daemon: Daemon) -> None:
    """The client ends with 130, and the daemon gives up a pull from a registry that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        host, port = listener.getsockname()
        argv: list[str | Path] = [
            BIN / "imagecachectl",
            "--socket",
            daemon.socket,
            "pull",
            f"{host}:{port}/demo/silent:1",
        ]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as client:
            with listener.accept()[0]:
                client.send_signal(signal.SIGINT)
                assert client.wait(30) == 130
            assert client.stderr
            assert "Traceback" not in client.stderr.read()
    await_true(
        lambda: "pull_cancelled" in daemon.ctl("events").stdout,
        what="the cancellation", deadline_seconds=20, alive=lambda: True,
    )  # fmt: skip


def test_killed_in_the_middle_of_a_pull(demo: Registry, tmp_path: Path) -> None:
    """SIGKILL at many moments of a pull: the next start is clean, and the pull succeeds."""
    daemon = Daemon(tmp_path / "daemon")
    images = [demo.reference(HELLO), demo.reference(SHELL)]
    for moment in range(6):
        daemon.start()
        with subprocess.Popen(
            [BIN / "imagecachectl", "--socket", daemon.socket, "pull", *images],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as client:  # fmt: skip
            _await_files(daemon, moment, client)
            daemon.stop(signal.SIGKILL)
            client.wait(30)
    daemon.start()
    try:
        assert list((daemon.root / "ingest").glob("*.erofs")) == []
        daemon.ctl("pull", *images)
        assert daemon.ask("fsck")["faults"] == []
        assert daemon.ctl("run", images[0]).stdout == "Hello, world!\n"
    finally:
        daemon.stop()
        unmount_below(tmp_path)


def _await_files(daemon: Daemon, count: int, client: subprocess.Popen[bytes]) -> None:
    """Until ``count`` files have appeared below the root, which tells how far a pull is, or it has ended."""
    folders = [daemon.root / name for name in ("ingest", "layers", "seams")]
    await_true(
        lambda: (
            client.poll() is not None
            or sum(1 for folder in folders for _ in folder.rglob("*.erofs")) >= count
        ),
        what="the pull",
        deadline_seconds=30,
        alive=lambda: True,
    )
