"""imagecachectl: what the client makes of a daemon that misbehaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.ctl.client import Daemon, error_of
from imagecached.ctl.program import run
from imagecached.errors import ERROR_CLASSES, ImagecachedError, Unavailable

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@contextmanager
def answering(path: Path, *answer: bytes, endlessly: Iterable[bytes] = ()) -> Iterator[Daemon]:
    """Something that answers one request with ``answer``, piece by piece, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(ConnectionError):
                connection.recv(65536)
                for piece in answer:
                    connection.sendall(piece)
                for piece in endlessly:
                    connection.sendall(piece)

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
        (OK + b"Content-Le", "the daemon ended the connection"),
        (OK + b"\r\n{}", "the daemon ended the connection"),
        (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", "the daemon ended the connection"),
        (
            OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
            "the daemon ended the connection",
        ),
        (OK + b"Content-Length: +2\r\n\r\n{}", "the daemon ended the connection"),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", "the daemon ended the connection"),
        (b"HTTP/1.1 ok\r\nContent-Length: 2\r\n\r\n{}", "the daemon ended the connection"),
        (CHUNKED + b"2\r\n{}", "the daemon ended the connection"),
        (CHUNKED + b"2\r\n{}\r\n", "the daemon ended the connection"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", "the daemon ended the connection"),
        (CHUNKED + b"2\r\n{}xx0\r\n\r\n", "the daemon ended the connection"),
        (CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n", "the daemon ended the connection"),
        (CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n", "the daemon ended the connection"),
        (CHUNKED + b"\r\n{}\r\n0\r\n\r\n", "the daemon ended the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "does not answer like imagecached"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\n<html", "does not answer like imagecached"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}", "the daemon failed without a reason"),
    ],
)
def test_a_strange_answer_is_an_error_of_one_line(tmp_path: Path, answer: bytes, words: str) -> None:
    """Whatever listens there."""
    with answering(tmp_path / "s", answer) as daemon, pytest.raises(ImagecachedError, match=words):
        daemon.get("/v1/version")


def test_an_answer_may_come_in_any_pieces(tmp_path: Path) -> None:
    """Byte by byte, in chunks of chunks, with names in any case."""
    head = b"HTTP/1.1 200 \r\nTRANSFER-ENCODING:Chunked \r\nX: y\r\n\r\n"
    whole = head + b'3\r\n{"a\r\n00A\r\n": [1, 2]}\r\n0\r\n\r\n'
    with answering(tmp_path / "s", *(bytes([byte]) for byte in whole)) as daemon:
        assert daemon.get("/v1/version") == {"a": [1, 2]}


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"", b"x" * 65536),
        (OK, b"X-Much: more\r\n" * 4096),
        (CHUNKED, b"0" * 65536),
        (CHUNKED, b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (OK + b"Content-Length: 999999999999999\r\n\r\n", b"x" * 65536),
    ],
)
def test_an_endless_answer_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes, piece: bytes
) -> None:
    """Neither memory nor patience is endless, for an answer as for the line of a stream."""
    monkeypatch.setattr("imagecached.ctl.connection.ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr("imagecached.ctl.client.ANSWER_BYTES", 1 << 20)
    cut_off = pytest.raises(ImagecachedError, match="the daemon ended the connection")
    with answering(tmp_path / "a", head, endlessly=repeat(piece)) as daemon, cut_off:
        daemon.get("/v1/version")
    with answering(tmp_path / "b", head, endlessly=repeat(piece)) as daemon, cut_off:
        list(daemon.follow("/v1/events"))


@given(
    st.lists(st.sampled_from([OK, CHUNKED, b"2\r\n", b"{}", b"\n", b"\r\n", b"0"]) | st.binary()).map(
        b"".join
    )
)
def test_whatever_comes_is_an_answer_or_an_error_of_ours(answer: bytes) -> None:
    """Any bytes at all, plainly asked for or as a stream."""
    with TemporaryDirectory() as folder:
        with answering(Path(folder, "a"), answer) as daemon, suppress(ImagecachedError):
            assert isinstance(daemon.get("/v1/version"), dict)
        with answering(Path(folder, "b"), answer) as daemon, suppress(ImagecachedError):
            assert all(isinstance(line, dict) for line in daemon.follow("/v1/events"))


def test_one_connection_is_enough_for_a_pull(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked twice: the first answer is the only one."""
    line = b'{"type":"done","images":[]}\n'
    with answering(tmp_path / "s", CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(line), line)):
        assert run(["--socket", str(tmp_path / "s"), "pull", "a"]) == 0
    assert capsys.readouterr().out.startswith("NAME")


def test_what_is_asked_arrives_as_it_was(daemon: Daemon) -> None:
    """Characters that mean something in a query, and others."""
    name = "a b&c=d?%41#é/:+"
    with pytest.raises(ImagecachedError) as caught:
        daemon.get("/v1/images/describe", name=name)
    assert repr(name)[1:-1] in str(caught.value)


def test_a_stream_that_breaks(tmp_path: Path) -> None:
    """The lines that came are told, then the error."""
    with answering(tmp_path / "s", CHUNKED + b'8\r\n{"a":1}\n\r\n') as daemon:
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
