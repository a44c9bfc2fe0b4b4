"""imagecachectl: options, exit codes, what is said when something fails, and what a start costs."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imagecached.ctl.program import run
from imagecached.errors import ERROR_CLASSES, ImagecachedError
from imagecached.exits import EXIT_CODES
from tests.fakes.ports import FakePorts, Served
from tests.unit.ctl.conftest import Ctl

A = "docker.io/library/a:latest"
PROGRAM = [sys.executable, "-c", "import sys; from imagecached.ctl import main; sys.exit(main())"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "daemon")}


@pytest.mark.parametrize("error", ERROR_CLASSES)
def test_the_exit_code_tells_the_kind(
    ctl: Ctl, fakes: FakePorts, monkeypatch: pytest.MonkeyPatch, error: type[ImagecachedError]
) -> None:
    """Of a refused request as of a failed pull; one line on standard error says what happened."""

    def refuse() -> None:
        raise error("what and where")

    monkeypatch.setattr(fakes.store, "layers", refuse)
    fakes.images.outcomes[A] = error("no luck")
    refused, failed = ctl("get", "layers"), ctl("pull", "-q", "a")
    assert (refused.code, refused.err) == (EXIT_CODES[error.kind], "imagecachectl: what and where\n")
    assert (failed.code, failed.err) == (EXIT_CODES[error.kind], f"imagecachectl: {A}: no luck\n")


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["pull"], ["get", "nodes"], ["-o", "xml", "version"], ["events", "--since", "x"], []],
)
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and how it is meant, on standard error."""
    assert run(arguments) == 2
    printed = capsys.readouterr()
    said, usage = printed.err.splitlines()
    assert said.startswith("imagecachectl: ")
    assert usage.startswith("Usage: imagecachectl ")
    assert not printed.out


def test_arguments_that_are_no_text(alone: Ctl) -> None:
    """Nothing of ours has such a name, and the API could not be told."""
    assert alone("pull", "a\udcff").code == 2


def test_help_needs_no_daemon(alone: Ctl) -> None:
    """Every command has a line."""
    ended = alone("--help")
    assert ended.code == 0
    commands = (
        "apply blobs containerd-config delete describe doctor events fsck gc get match mount pull rm run"
        " umount version"
    ).split()
    lines = ended.out.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == commands
    assert all(len(line.split()) > 3 for line in lines)
    assert max(map(len, ended.out.splitlines())) <= 100


def test_no_daemon_is_said_in_one_line(alone: Ctl) -> None:
    """With the way to start it."""
    ended = alone("get", "images")
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert "cannot connect to" in line
    assert "systemctl start imagecached" in line


def test_a_stale_socket_is_no_daemon(alone: Ctl, tmp_path: Path) -> None:
    """What a killed daemon left does not confuse."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "api.sock"))
    ended = alone("get", "images")
    assert (ended.code, "Connection refused" in ended.err) == (1, True)


def test_who_may_not_connect_is_told_what_to_do(alone: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Denied by the socket's mode."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("imagecached.ctl.connection.UnixConnection.connect", refuse)
    ended = alone("get", "images")
    assert (ended.code, "join the group imagecached" in ended.err) == (4, True)


@pytest.mark.parametrize("arguments", [["-o", "json", "get", "images"], ["get", "images", "-o", "json"]])
def test_the_form_may_be_named_anywhere(ctl: Ctl, arguments: list[str]) -> None:
    """Before the command and behind it."""
    assert json.loads(ctl(*arguments).out) == {"images": []}


def test_the_form_behind_the_command_wins(ctl: Ctl) -> None:
    """The last word counts."""
    assert ctl("-o", "json", "get", "images", "-o", "yaml").out == "---\nimages: []\n"


def test_the_socket_may_come_from_the_environment(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same variable that configures the daemon."""
    monkeypatch.setenv("IMAGECACHED_DAEMON__SOCKET", str(served.socket))
    assert run(["get", "images"]) == 0
    assert capsys.readouterr().out.startswith("NAME")


def test_ctrl_c_leaves_the_pull(served: Served, fakes: FakePorts) -> None:
    """Exit code 130, one calm line, and the daemon knows that nobody waits any more."""
    fakes.images.held.add(A)
    command = [*PROGRAM, "--socket", str(served.socket), "pull", "a"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as client:
        assert client.stderr
        assert client.stderr.readline() == f"{A}: resolving\n".encode()
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=20)
    assert (client.returncode, out, err) == (130, b"", b"\nimagecachectl: interrupted\n")
    assert fakes.images.somebody_left.wait(10)


@pytest.mark.parametrize("arguments", [["get", "images"], ["--help"]])
def test_a_reader_that_has_seen_enough(served: Served, arguments: list[str]) -> None:
    """`imagecachectl … | head -0` ends without a traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [*PROGRAM, "--socket", str(served.socket), *arguments]
    ended = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=20, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_a_full_disk_below_our_output(served: Served) -> None:
    """Is said, not buried."""
    command = [*PROGRAM, "--socket", str(served.socket), "get", "images"]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=20, check=False
        )
    assert (ended.returncode, ended.stderr) == (1, b"imagecachectl: [Errno 28] No space left on device\n")


def test_no_standard_output_at_all(served: Served) -> None:
    """What is wanted of us may be the exit code alone."""
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "--socket", str(served.socket), "get", "images"]
    ended = subprocess.run(command, stderr=subprocess.PIPE, env=ENVIRONMENT, timeout=20, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_terminal_gets_bars(served: Served) -> None:
    """Drawn on standard error; the table goes to standard output."""
    master, slave = pty.openpty()
    command = [*PROGRAM, "--socket", str(served.socket), "pull", "a"]
    environment = {**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "120"}
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=slave, env=environment, timeout=20, check=False
    )
    drawn = os.read(master, 100_000).decode()
    os.close(slave)
    os.close(master)
    assert ended.returncode == 0
    assert ended.stdout.startswith(b"NAME")
    assert A in drawn
    assert "100%" in drawn
    assert "\x1b[" in drawn


@pytest.mark.parametrize(
    "arguments",
    [["pull", "a"], ["pull", "-q", "a"], ["get", "images"], ["get", "layers"], ["rm", "x"], ["version"]],
)
def test_a_start_imports_no_more_than_it_needs(served: Served, arguments: list[str]) -> None:
    """People and benchmarks wait for every start: even of the standard library little is cheap."""
    forbidden = (
        "aiohttp argparse asyncio click collections contextlib dataclasses email enum http json msgspec"
        " prometheus_client re rich socket subprocess typing urllib yaml"
    )
    code = (
        "import sys; from imagecached.ctl.program import run; run(sys.argv[2:]);"
        "print(sorted(set(sys.argv[1].split()) & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, forbidden, "--socket", str(served.socket), *arguments]
    ended = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=20, check=True)
    assert ended.stderr.decode().splitlines()[-1] == "[]"
