"""One exchange of HTTP/1.1 with the daemon over its unix socket: the part of HTTP that the two speak.

A connection carries one request. The answer's body has a Content-Length or comes in chunks, so one that
was cut off is never taken for a whole one. Whatever comes that is not such an answer is Broken: nothing
is guessed. Head, chunk sizes and answers are bounded; how long the daemon may take is not.

Not ``http.client``: its parser of mail headers takes 26 ms of CPU to import. Not ``socket`` but what is
below it: ``enum`` and ``selectors`` would be another 6 ms.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_STREAM, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_PIECE_BYTES: Final = 1 << 16
_HEAD_BYTES: Final = 1 << 16
_SIZE_DIGITS: Final = 16
ANSWER_BYTES: Final = 1 << 26
"""The longest answer, and the longest line of a stream."""


class Broken(Exception):
    """What came is not a whole answer."""


class UnixConnection:
    """A connection to the socket at ``path``. Each method is called once, in the order they stand here."""

    __slots__ = ("_buffer", "_path", "_size", "_socket")

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket(AF_UNIX, SOCK_STREAM)
        self._buffer = bytearray()
        self._size: int | None = None

    def connect(self) -> None:
        """OSError: nobody listens, or not to us."""
        self._socket.connect(self._path)

    def request(self, method: str, target: str, body: bytes | None) -> int:
        """Ask; the status of the answer. Broken, OSError."""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        self._socket.sendall(f"{head}\r\n".encode("ascii") + (body or b""))
        return self._read_head()

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Broken, OSError."""
        if self._size is not None:
            yield from self._take(self._size)
            return
        while size := self._chunk_size():
            yield from self._take(size)
            self._expect_line_end()
        self._expect_line_end()

    def read(self) -> bytes:
        """The whole body. Broken, OSError."""
        parts, size = [], 0
        for piece in self.pieces():
            parts.append(piece)
            size += len(piece)
            if size > ANSWER_BYTES:
                raise Broken("an endless answer")
        return b"".join(parts)

    def close(self) -> None:
        """The daemon gives up what nobody waits for any more."""
        self._socket.close()

    def _read_head(self) -> int:
        status_line, *lines = self._until(b"\r\n\r\n", _HEAD_BYTES).split(b"\r\n")
        version, _, status = status_line[:12].partition(b" ")
        if version != b"HTTP/1.1" or not status.isdigit():
            raise Broken("no HTTP")
        self._size = _body_size(lines)
        return int(status)

    def _chunk_size(self) -> int:
        digits = self._until(b"\r\n", _SIZE_DIGITS)
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            raise Broken("no chunk")
        return int(digits, 16)

    def _expect_line_end(self) -> None:
        self._until(b"\r\n", 0)

    def _until(self, mark: bytes, limit: int) -> bytes:
        """What comes before ``mark``, at most ``limit`` bytes."""
        while (end := self._buffer.find(mark, 0, limit + len(mark))) < 0:
            if len(self._buffer) >= limit + len(mark):
                raise Broken("an endless line")
            self._fill()
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    def _take(self, size: int) -> Iterator[bytes]:
        while size:
            if not self._buffer:
                self._fill()
            piece = bytes(self._buffer[:size])
            del self._buffer[:size]
            size -= len(piece)
            yield piece

    def _fill(self) -> None:
        received = self._socket.recv(_PIECE_BYTES)
        if not received:
            raise Broken("the connection ended")
        self._buffer += received


def _body_size(lines: list[bytes]) -> int | None:
    """What the head's ``lines`` say of the body; None: it comes in chunks."""
    fields = [line.lower().partition(b":") for line in lines]
    framing = [
        (name, value.strip())
        for name, _, value in fields
        if name in (b"content-length", b"transfer-encoding")
    ]
    match framing:
        case [(b"content-length", length)] if length.isdigit() and len(length) <= _SIZE_DIGITS:
            return int(length)
        case [(b"transfer-encoding", b"chunked")]:
            return None
    raise Broken("an answer without a clear end")
