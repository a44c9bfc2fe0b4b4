"""Asks the daemon. Answers are plain dictionaries, errors the classes of ``errors``, found by their kind.

Invariants: every connection is closed when its answer or stream is done with, which is how a pull is
cancelled; a daemon that is not there is told apart from one that fails.
"""

from __future__ import annotations

from imagecached.ctl import wire
from imagecached.ctl.connection import ANSWER_BYTES, Broken, UnixConnection
from imagecached.errors import ERROR_CLASSES, AccessDenied, ImagecachedError, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import Any, Final, NoReturn

_OK: Final = 200
_BY_KIND: Final = {error.kind: error for error in ERROR_CLASSES}
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:@")


class NoDaemon(ImagecachedError):
    """Nobody listens on the socket."""


class Daemon:
    """The daemon behind the unix socket at ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """The answer to a GET."""
        return self._ask("GET", _with_query(path, query))

    def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a POST."""
        return self._ask("POST", path, body)

    def delete(self, path: str, **query: Any) -> dict[str, Any]:
        """The answer to a DELETE."""
        return self._ask("DELETE", _with_query(path, query))

    def follow(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The lines of a stream."""
        return self._lines("GET", _with_query(path, query))

    def work(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The lines of a stream that does something; not reading it to its end cancels that."""
        return self._lines("POST", path, body)

    def _ask(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with _Exchange(self.path) as connection:
            status = connection.request(method, target, _encoded(body))
            answer = _object(connection.read())
        if status != _OK:
            _fail(answer)
        return answer

    def _lines(
        self, method: str, target: str, body: Mapping[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        with _Exchange(self.path) as connection:
            if connection.request(method, target, _encoded(body)) != _OK:
                _fail(_object(connection.read()))
            for line in _split(connection):
                document = _object(line)
                if document.get("type") == "error":
                    _fail(document)
                yield document


class _Exchange:
    """A connection for the length of the body, and what its failures mean."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection = UnixConnection(path)

    def __enter__(self) -> UnixConnection:
        try:
            self._connection.connect()
        except PermissionError as error:
            self._connection.close()
            raise AccessDenied(
                f"cannot connect to {self._path}: permission denied; be root or join the group imagecached"
            ) from error
        except OSError as error:
            self._connection.close()
            raise NoDaemon(
                f"cannot connect to {self._path}: {error.strerror or error};"
                " start the daemon with: systemctl start imagecached (or: imagecached serve)"
            ) from error
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        if isinstance(error, Broken | OSError):
            raise ImagecachedError(
                "the daemon ended the connection; see: journalctl -u imagecached"
            ) from error


def _split(connection: UnixConnection) -> Iterator[bytes]:
    """The lines of a stream."""
    parts: list[bytes] = []
    for piece in connection.pieces():
        *ends, rest = piece.split(b"\n")
        for end in ends:
            yield b"".join([*parts, end])
            parts.clear()
        if rest:
            parts.append(rest)
        if sum(map(len, parts)) > ANSWER_BYTES:
            raise Broken("an endless line")
    if parts:
        raise Broken("a line without an end")


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    given = "&".join(f"{name}={_quoted(value)}" for name, value in query.items())
    return f"{path}?{given}" if given else path


def _quoted(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode())


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else wire.encode(body).encode()


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = wire.decode(data)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ImagecachedError("what listens on the socket does not answer like imagecached")
    return document


def _fail(document: Mapping[str, Any]) -> NoReturn:
    raise error_of(document.get("error", {}))


def error_of(detail: Mapping[str, Any]) -> ImagecachedError:
    """The error that the daemon told of."""
    kind = _BY_KIND.get(detail.get("kind", ""), ImagecachedError)
    message = str(detail.get("message", "the daemon failed without a reason"))
    if issubclass(kind, Unavailable):
        return kind(message, retry_after=detail.get("retry_after_seconds"))
    return kind(message)
