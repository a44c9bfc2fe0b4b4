"""sockets: who may reach a socket made here, and what becomes of one that is there already."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from imagecached.errors import FailedPrecondition
from imagecached.sockets import listening


@pytest.mark.parametrize(("gid", "mode"), [(None, 0o600), (os.getegid(), 0o660)])
def test_the_file_lets_in_the_group(tmp_path: Path, gid: int | None, mode: int) -> None:
    """Mode and group of the file, whose folder is made; it is gone afterwards."""
    path = tmp_path / "run" / "api.sock"
    with listening(path, gid):
        assert path.stat().st_mode & 0o777 == mode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """What a killed daemon left is no obstacle."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path):
        assert path.is_socket()


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    """A second daemon is refused and the first one goes on."""
    path = tmp_path / "api.sock"
    with listening(path):
        with pytest.raises(FailedPrecondition, match="in use by another daemon"), listening(path):
            pass
        assert path.is_socket()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file in the way is named, not removed."""
    path = tmp_path / "api.sock"
    path.write_text("precious")
    with pytest.raises(FailedPrecondition, match="is no socket"), listening(path):
        pass
    assert path.read_text() == "precious"


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    """Only the file that was made is removed at the end."""
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as successor:
        with listening(path):
            path.unlink()
            successor.bind(str(path))
        assert path.is_socket()
