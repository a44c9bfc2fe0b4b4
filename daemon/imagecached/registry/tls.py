"""TLS settings per endpoint: the system's authorities, the endpoint's own, its client certificates."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from imagecached.aio import finish
from imagecached.errors import InvalidInput
from imagecached.registry.endpoints import Endpoint

_Key = tuple[object, ...]


class TlsContexts:
    """Contexts by what they were made of; a certificate file that changed makes a new one."""

    def __init__(self) -> None:
        self._contexts: dict[str, tuple[_Key, ssl.SSLContext]] = {}

    async def of(self, endpoint: Endpoint) -> ssl.SSLContext | bool:
        """What aiohttp wants as ``ssl``; True is the system's defaults. InvalidInput for an unusable file."""
        if not (endpoint.ca or endpoint.client):
            return not endpoint.skip_verify
        key = await finish(_key, endpoint)
        known = self._contexts.get(endpoint.host)
        if known is not None and known[0] == key:
            return known[1]
        context = await finish(_context, endpoint)
        self._contexts[endpoint.host] = (key, context)
        return context


def _files(endpoint: Endpoint) -> list[Path]:
    return [*endpoint.ca, *(file for pair in endpoint.client for file in pair if file is not None)]


def _key(endpoint: Endpoint) -> _Key:
    """Paths with their modification times; rotated certificates are noticed without a restart."""
    try:
        times = tuple(file.stat().st_mtime_ns for file in _files(endpoint))
    except OSError as error:
        raise InvalidInput(f"certificate of {endpoint.host}: {error}") from error
    return (endpoint.ca, endpoint.client, endpoint.skip_verify, times)


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if endpoint.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for file in endpoint.ca:
        with _usable(file):
            context.load_verify_locations(cafile=file)
    for certificate, key in endpoint.client:
        with _usable(certificate):
            context.load_cert_chain(certificate, key, password=_no_password)
    return context


@contextmanager
def _usable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidInput(f"certificate {file}: {error}") from error


def _no_password() -> str:
    """An encrypted key must fail instead of asking a terminal for its password."""
    raise ValueError("the key is encrypted")
