"""imagecachectl: what the client makes of a daemon that misbehaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagecached.ctl.client import Daemon, error_of
from imagecached.errors import ERROR_CLASSES, ImagecachedError, Unavailable


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[Daemon]:
    """Something that answers every request with ``answer`` and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Daemon(str(path))
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the daemon ended the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "the daemon ended the connection"),
        (b"SSH-2.0-OpenSSH\r\n", "the daemon ended the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "does not answer like imagecached"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n<html", "does not answer like imagecached"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}", "the daemon failed without a reason"),
    ],
)
def test_a_strange_answer_is_an_error_of_one_line(tmp_path: Path, answer: bytes, words: str) -> None:
    """Whatever listens there."""
    with answering(tmp_path / "s", answer) as daemon, pytest.raises(ImagecachedError, match=words):
        daemon.get("/v1/version")


def test_a_stream_that_breaks(tmp_path: Path) -> None:
    """The lines that came are told, then the error."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with answering(tmp_path / "s", head + b'8\r\n{"a":1}\n\r\n') as daemon:
        lines = daemon.follow("/v1/events")
        assert next(lines) == {"a": 1}
        with pytest.raises(ImagecachedError, match="the daemon ended the connection"):
            next(lines)


@pytest.mark.parametrize("error", ERROR_CLASSES)
def test_errors_come_back_as_what_they_were(error: type[ImagecachedError]) -> None:
    """Class and message survive the way."""
    found = error_of({"kind": error.kind, "message": "m"})
    assert (type(found), str(found)) == (error, "m")


def test_details_of_errors() -> None:
    """The wish to wait survives; a kind from a newer daemon is a plain failure."""
    busy = error_of({"kind": "unavailable", "message": "m", "retry_after_seconds": 3})
    assert isinstance(busy, Unavailable)
    assert busy.retry_after == 3
    assert type(error_of({"kind": "cursed", "message": "m"})) is ImagecachedError
