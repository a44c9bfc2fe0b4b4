"""Asks the daemon. Answers are plain dictionaries, errors the classes of ``errors``, found by their kind.

Invariants: every connection is closed when its answer or stream is done with, which is how a pull is
cancelled; a daemon that is not there is told apart from one that fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn

from imagecached.errors import ERROR_CLASSES, AccessDenied, ImagecachedError, Unavailable

if TYPE_CHECKING:
    from imagecached.ctl.connection import HTTPResponse

_OK: Final = 200
_PIECE_BYTES: Final = 1 << 16
_BY_KIND: Final = {error.kind: error for error in ERROR_CLASSES}


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
        return self._lines("GET", _with_query(path, query), None)

    def work(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The lines of a stream that does something; not reading it to its end cancels that."""
        return self._lines("POST", path, body)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        with self._answer(method, path, body) as response:
            return _object(response.read())

    def _lines(self, method: str, path: str, body: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
        with self._answer(method, path, body) as response:
            for line in _split(response):
                document = _object(line)
                if document.get("type") == "error":
                    _fail(document)
                yield document

    @contextmanager
    def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Iterator[HTTPResponse]:
        from imagecached.ctl.connection import HTTPException, UnixConnection

        connection = UnixConnection(self.path)
        try:
            self._connect(connection)
            connection.request(method, path, body=None if body is None else json.dumps(body))
            response = connection.getresponse()
            if response.status != _OK:
                _fail(_object(response.read()))
            yield response
        except (HTTPException, ConnectionError) as error:
            raise ImagecachedError(
                "the daemon ended the connection; see: journalctl -u imagecached"
            ) from error
        finally:
            connection.close()

    def _connect(self, connection: Any) -> None:
        try:
            connection.connect()
        except PermissionError as error:
            raise AccessDenied(
                f"cannot connect to {self.path}: permission denied; be root or join the group imagecached"
            ) from error
        except OSError as error:
            raise NoDaemon(
                f"cannot connect to {self.path}: {error.strerror or error};"
                " start the daemon with: systemctl start imagecached (or: imagecached serve)"
            ) from error


def _split(response: HTTPResponse) -> Iterator[bytes]:
    """The lines of a stream. The response's own line reading takes a broken stream for one that ended."""
    rest = b""
    while piece := response.read1(_PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


def _with_query(path: str, query: Mapping[str, Any]) -> str:
    from urllib.parse import urlencode

    given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
    return f"{path}?{urlencode(given)}" if given else path


def _object(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
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
