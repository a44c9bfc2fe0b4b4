"""api: who may connect, and what becomes of a socket that is there already."""

from __future__ import annotations

import grp
import os
import socket
from pathlib import Path

import pytest

from imagecached.api.peers import Gate, Peer, listening
from imagecached.errors import FailedPrecondition

ANY = Gate(uid=1000, gid=50)


@pytest.mark.parametrize(
    ("gate", "peer", "admitted"),
    [
        (ANY, Peer(1, 0, frozenset()), True),
        (ANY, Peer(1, 1000, frozenset()), True),
        (ANY, Peer(1, 7, frozenset({7, 50})), True),
        (ANY, Peer(1, 7, frozenset({7})), False),
        (Gate(uid=0, gid=None), Peer(1, 7, frozenset({7, 50})), False),
    ],
)
def test_root_the_daemon_and_the_group_are_admitted(gate: Gate, peer: Peer, *, admitted: bool) -> None:
    """Nobody else, and without a group nobody by it."""
    assert gate.admits(peer) is admitted


def test_a_group_that_does_not_exist_admits_nobody() -> None:
    """Its name may be in the configuration all the same."""
    assert Gate.of("no-such-group-here").gid is None
    first = grp.getgrall()[0]
    assert Gate.of(first.gr_name).gid == first.gr_gid


@pytest.mark.parametrize(("gid", "mode"), [(None, 0o600), (os.getegid(), 0o660)])
def test_the_file_lets_in_whom_the_gate_admits(tmp_path: Path, gid: int | None, mode: int) -> None:
    """Mode and group of the file, whose folder is made; it is gone afterwards."""
    path = tmp_path / "run" / "api.sock"
    with listening(path, Gate(0, gid)):
        assert path.stat().st_mode & 0o777 == mode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed daemon left is no obstacle."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path, Gate(0, None)):
        assert path.is_socket()


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    """A second daemon is refused and the first one goes on."""
    path = tmp_path / "api.sock"
    gate = Gate(0, None)
    with listening(path, gate):
        with pytest.raises(FailedPrecondition, match="in use by another daemon"), listening(path, gate):
            pass
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file in the way is named, not removed."""
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(FailedPrecondition, match="is no socket"), listening(path, Gate(0, None)):
        pass
    assert path.read_text() == "precious"


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    """Only the file that was made is removed at the end."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as successor:
        with listening(path, Gate(0, None)):
            path.unlink()
            successor.bind(str(path))
        assert path.is_socket()
