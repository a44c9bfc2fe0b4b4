"""What an answer of the API server means: its status and ``Status`` document to our errors.

Messages are one bounded line: method, path, code and the server's words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import httpx2 as httpx
import msgspec
from lightkube.core.exceptions import ConfigError

from imagecached.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    FailedPrecondition,
    ImagecachedError,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from imagecached.kube.client.kinds import Object

MOST_ANSWER_BYTES: Final = 64 << 20
MOST_REFUSAL_BYTES: Final = 64 << 10
_MOST_MESSAGE: Final = 400
_MOST_RETRY_AFTER: Final = 3600.0
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_CODES: Final[Mapping[int, type[ImagecachedError]]] = {
    400: InvalidInput,
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    405: Unsupported,
    406: Unsupported,
    408: Unavailable,
    409: FailedPrecondition,
    413: InvalidInput,
    415: Unsupported,
    422: InvalidInput,
    429: Unavailable,
}


class Gone(Exception):
    """410: a resourceVersion or continue token from before the server's history. Stays in this package."""


class _Details(msgspec.Struct):
    retry_after: float | None = msgspec.field(name="retryAfterSeconds", default=None)


class Status(msgspec.Struct):
    """The part of a ``Status`` that we read."""

    message: str | None = None
    reason: str | None = None
    code: int | None = None
    details: _Details | None = None


def refusal(what: str, code: int, body: bytes, headers: Mapping[str, str]) -> Exception:
    """The error for an answer that is no success; ``what`` is method and path."""
    return refusal_of(what, code, _status(body), headers.get("Retry-After"))


def refusal_of(what: str, code: int, status: Status, retry_after: str | None = None) -> Exception:
    """The same for a ``Status`` that came in a watch."""
    text = f"{what}: {code} {one_line(status.message or '')}".rstrip()
    if code == 410:
        return Gone(text)
    if code == 409 and status.reason == "AlreadyExists":
        return AlreadyExists(text)
    kind = _CODES.get(code) or (Unavailable if code >= 500 else Unsupported)
    if kind is not Unavailable:
        return kind(text)
    wished = _seconds(retry_after)
    if wished is None and status.details is not None:
        wished = status.details.retry_after
    return Unavailable(text, retry_after=None if wished is None else min(wished, _MOST_RETRY_AFTER))


def _status(body: bytes) -> Status:
    try:
        return msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Status(message=body[:_MOST_MESSAGE].decode(errors="replace"))


def _seconds(text: str | None) -> float | None:
    """``Retry-After`` as the API server writes it: a number."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 9 else None


@contextmanager
def network_errors(what: str) -> Iterator[None]:
    """Turns what the HTTP client raises in the block into our errors."""
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Unavailable(f"{what}: timed out") from error
    except ConfigError as error:  # the token file is gone
        raise AccessDenied(f"{what}: {one_line(error)}") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {one_line(error)}") from error


def document(what: str, body: bytes) -> Object:
    """The object in an answer. Corrupt: it is none."""
    decoded = decode(what, body)
    if not isinstance(decoded, dict):
        raise Corrupt(f"{what}: the answer is no object")
    return decoded


def decode(what: str, body: bytes) -> Any:
    """JSON, or Corrupt."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{what}: the answer is not JSON: {error}") from error


def one_line(text: object) -> str:
    """Foreign text for a message."""
    return _CONTROL.sub(" ", str(text)).strip()[:_MOST_MESSAGE]
