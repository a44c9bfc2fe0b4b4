"""imagecachectl: mount, umount, run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imagecached.containers import Run
from imagecached.errors import FailedPrecondition, NotFound
from tests.fakes.ports import FakePorts, Served, image
from tests.unit.ctl.conftest import Ctl
from tests.unit.ctl.test_program import ENVIRONMENT, PROGRAM

A = "docker.io/library/a:latest"


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as the client can see."""
    monkeypatch.setattr("os.geteuid", lambda: 0)


@pytest.fixture
def prepared(fakes: FakePorts) -> None:
    fakes.store.records = {A: image(A)}


def runtime(fakes: FakePorts, body: str) -> None:
    """Make ``body``, in Python, the container runtime."""
    program = fakes.folder / "runtime"
    program.write_text(f"#!{sys.executable} -S\nimport os, signal, sys\n{body}\n")
    program.chmod(0o755)


@pytest.mark.usefixtures("prepared")
def test_mount_and_umount(
    ctl: Ctl, fakes: FakePorts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative directory is the client's."""
    monkeypatch.chdir(tmp_path)
    assert ctl("mount", "a", "tree", "--read-write").code == 0
    assert fakes.containers.mounts == {tmp_path / "tree": (A, True)}
    assert ctl("umount", "tree").code == 0
    assert ctl("umount", "tree").code == 3


def test_mount_pulls_what_is_not_here(ctl: Ctl, fakes: FakePorts, tmp_path: Path) -> None:
    """Progress goes to standard error."""
    ended = ctl("mount", "a", str(tmp_path / "tree"))
    assert (ended.code, ended.out) == (0, "")
    assert f"{A}: ready" in ended.err
    assert fakes.containers.mounts == {tmp_path / "tree": (A, False)}


def test_mount_of_what_cannot_be_pulled(ctl: Ctl, fakes: FakePorts, tmp_path: Path) -> None:
    """The pull's error counts."""
    fakes.images.outcomes[A] = NotFound("no such tag")
    ended = ctl("mount", "a", str(tmp_path))
    assert (ended.code, ended.err.splitlines()[-1]) == (3, "imagecachectl: no such tag")


@pytest.mark.usefixtures("prepared")
def test_run_returns_the_containers_exit_code(ctl: Ctl, fakes: FakePorts) -> None:
    """The runtime gets what the user wants; afterwards the bundle is released."""
    runtime(fakes, "print(sys.argv[1:]); sys.exit(17)")
    ended = ctl("run", "-e", "X=1=2", "-w", "/tmp", "-u", "7", "a", "sh", "-c", "exit 17")
    assert ended.code == 17
    [(name, command, terminal, client, settings)] = fakes.containers.runs
    assert (name, command, terminal) == (A, ("sh", "-c", "exit 17"), False)
    assert settings == Run(environment={"X": "1=2"}, working_dir="/tmp", user="7")
    assert client > 1
    assert fakes.containers.released == ["0123456789ab"]


@pytest.mark.usefixtures("prepared")
def test_the_runtime_gets_our_streams(served: Served, fakes: FakePorts) -> None:
    """What the container writes is what we write."""
    runtime(fakes, "print(sys.argv[1:], sys.stdin.read())")
    command = [*PROGRAM, "--socket", str(served.socket), "run", "a"]
    ended = subprocess.run(
        command, input="hello", capture_output=True, text=True, env=ENVIRONMENT, timeout=20, check=True
    )
    assert ended.stdout == "['run', '--bundle', '/bundle', '0123456789ab'] hello\n"


def test_run_pulls_what_is_not_here(ctl: Ctl, fakes: FakePorts) -> None:
    """Then it runs."""
    runtime(fakes, "")
    assert ctl("run", "a").code == 0
    assert set(fakes.images.pulls) == {A}


@pytest.mark.usefixtures("prepared")
def test_signals_are_for_the_container(served: Served, fakes: FakePorts) -> None:
    """SIGTERM is passed on, and what the container makes of it is our exit code."""
    runtime(
        fakes,
        "signal.signal(15, lambda *_: os._exit(42)); print('up', flush=True)\nwhile True: signal.pause()",
    )
    command = [*PROGRAM, "--socket", str(served.socket), "run", "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as client:
        assert client.stdout
        assert client.stdout.readline() == b"up\n"
        client.send_signal(signal.SIGINT)  # a terminal would have sent it to the runtime as well
        client.send_signal(signal.SIGTERM)
        assert client.wait(20) == 42
    assert fakes.containers.released == ["0123456789ab"]


@pytest.mark.usefixtures("prepared")
def test_a_killed_runtime(ctl: Ctl, fakes: FakePorts) -> None:
    """As a shell would say it; the container is deleted by force and the bundle released."""
    log = fakes.folder / "calls"
    body = (
        f"open({str(log)!r}, 'a').write(sys.argv[1] + ' ')\nif sys.argv[1] == 'run': os.kill(os.getpid(), 9)"
    )
    runtime(fakes, body)
    assert ctl("run", "a").code == 137
    assert log.read_text() == "run delete "
    assert fakes.containers.released == ["0123456789ab"]


@pytest.mark.usefixtures("prepared")
def test_a_release_that_fails_is_said(ctl: Ctl, fakes: FakePorts) -> None:
    """The container's exit code is worth more."""
    runtime(fakes, "sys.exit(3)")
    fakes.containers.release_error = FailedPrecondition("still running")
    ended = ctl("run", "a")
    assert (ended.code, "was not cleaned up: still running" in ended.err) == (3, True)


@pytest.mark.usefixtures("prepared")
def test_run_needs_root(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is made."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    ended = ctl("run", "a")
    assert (ended.code, ended.err) == (4, "imagecachectl: running a container needs root\n")


def test_a_variable_needs_a_name(ctl: Ctl) -> None:
    """Wrong usage."""
    assert ctl("run", "-e", "=1", "a").code == 2
    assert json.dumps(ctl("run", "-e", "X", "a").err).count("expected NAME=VALUE") == 1
