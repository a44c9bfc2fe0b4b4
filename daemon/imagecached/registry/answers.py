"""What an answer means: status and error document (OCI distribution-spec § Error Codes) to our errors.

Messages name method, host and path, and hold no secret: queries and user names are cut from URLs, and
whatever a server says is one short line without the credentials it was sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from imagecached.errors import (
    AccessDenied,
    ImagecachedError,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from imagecached.registry.addresses import ForbiddenAddress
from imagecached.registry.clock import Clock

MAX_ERROR_BYTES: Final = 16 << 10
_MAX_MESSAGE: Final = 240
_SUCCESS: Final = frozenset({200, 206})
_STATUS: Final[dict[int, type[ImagecachedError]]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: NotFound,
    407: AccessDenied,
    408: Unavailable,
    410: NotFound,
    425: Unavailable,
    429: Unavailable,
    451: AccessDenied,
}
_CODES: Final[dict[str, type[ImagecachedError]]] = {
    "BLOB_UNKNOWN": NotFound,
    "DENIED": AccessDenied,
    "DIGEST_INVALID": InvalidInput,
    "MANIFEST_UNKNOWN": NotFound,
    "NAME_INVALID": InvalidInput,
    "NAME_UNKNOWN": NotFound,
    "TAG_INVALID": InvalidInput,
    "TOOMANYREQUESTS": Unavailable,
    "UNAUTHORIZED": AccessDenied,
}
_QUERY: Final = re.compile(r"\?\S*")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class _Error(msgspec.Struct):
    code: str | None = None
    message: str | None = None


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


def redacted(url: URL) -> str:
    """``url`` without user, password, query and fragment: presigned URLs carry their secret in the query."""
    return f"{url.scheme}://{url.host_port_subcomponent or ''}{url.raw_path}"[:300]


async def refuse(
    response: aiohttp.ClientResponse, clock: Clock, secret: str = "", *, stored: bool = False
) -> None:
    """Raise what an answer that is no success means. ``secret`` was sent and must not come back in a message.

    ``stored``: the answer is not the registry's but of the storage it led us to. There a refusal means that
    the address has expired, and the body is not shown: it could be any service that a registry points at.
    """
    if response.status in _SUCCESS:
        return
    code, message = ("", "from where it redirects to") if stored else await _explanation(response)
    kind = _kind(response.status, code, stored=stored)
    if secret:
        message = message.replace(secret, "…")
    text = f"{response.method} {redacted(response.url)}: {response.status} {message}".rstrip()
    if kind is Unavailable:
        raise Unavailable(text, retry_after=clock.retry_after(response.headers.get("Retry-After")))
    raise kind(text)


@contextmanager
def network_errors(method: str, url: URL) -> Iterator[None]:
    """Turns what aiohttp raises in the block into our errors."""
    what = f"{method} {redacted(url)}"
    try:
        yield
    except aiohttp.ClientConnectorDNSError as error:
        if isinstance(error.os_error, ForbiddenAddress):
            raise AccessDenied(f"{what}: {error.os_error}") from error
        raise Unavailable(f"{what}: no such host: {one_line(error.os_error)}") from error
    except aiohttp.ClientConnectorCertificateError as error:
        raise Unavailable(f"{what}: certificate refused: {one_line(error.certificate_error)}") from error
    except aiohttp.ClientConnectorError as error:
        raise Unavailable(f"{what}: cannot connect: {one_line(error.os_error)}") from error
    except TimeoutError as error:
        raise Unavailable(f"{what}: timed out: {one_line(error)}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{what}: {type(error).__name__}: {one_line(error)}") from error


def one_line(text: object) -> str:
    """Foreign text for a message: one line, bounded, without queries of URLs."""
    return _QUERY.sub("?…", _CONTROL.sub(" ", str(text))).strip()[:_MAX_MESSAGE]


def _kind(status: int, code: str, *, stored: bool) -> type[ImagecachedError]:
    if stored and status in (400, 401, 403):
        return Unavailable
    if status in _STATUS:
        return _STATUS[status]
    if status >= 500:
        return Unavailable
    return _CODES.get(code, Unsupported)


async def _explanation(response: aiohttp.ClientResponse) -> tuple[str, str]:
    """The first error's code, and a line to show; reads a bounded part of the body."""
    try:
        body = await _beginning(response)
    except (aiohttp.ClientError, OSError):
        return "", ""
    if body.lstrip()[:1] == b"<":
        return "", "(an HTML page)"
    try:
        errors = msgspec.json.decode(body, type=_Errors).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", one_line(body[:_MAX_MESSAGE].decode(errors="replace"))
    first = errors[0] if errors else _Error()
    return (first.code or "").upper(), one_line(": ".join(filter(None, (first.code, first.message))))


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    while len(body) < MAX_ERROR_BYTES and (data := await response.content.readany()):
        body += data
    return body[:MAX_ERROR_BYTES]
