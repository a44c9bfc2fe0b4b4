"""Requests of the cluster's session go out through aiohttp, as all of this program's do.

Why not httpx's own transport: it knows no networks in ``NO_PROXY`` (``10.0.0.0/8``), so that a node behind a
proxy would look for its API server there; and it would cost every node's memory a second HTTP stack.
Knows nothing of Kubernetes.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

import aiohttp
import httpx2 as httpx
from yarl import URL

from imagecached import aio
from imagecached.registry.proxies import Proxies

_OURS: Final = frozenset({"host", "connection", "content-length", "transfer-encoding"})
_MOST_HEADER_BYTES: Final = 64 << 10
_RENEW_SECONDS: Final = 60.0


class Transport(httpx.AsyncBaseTransport):
    """One aiohttp session; it is opened with the httpx client that it is given to.

    ``renew`` reads certificates again; it is called in a thread when there is no connection to be had, as
    that may be why, and not more than once a minute.
    """

    def __init__(
        self, verify: ssl.SSLContext, proxies: Proxies, renew: Callable[[], None] = lambda: None
    ) -> None:
        self._verify, self._proxies, self._renew = verify, proxies, renew
        self._renew_at = 0.0
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._verify)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_field_size=_MOST_HEADER_BYTES,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the body of its answer is read by who reads the response."""
        assert self._session is not None, "the client is used outside of its block"
        url = URL(str(request.url), encoded=True)
        proxy = self._proxies.of(url)
        content = await request.aread()
        try:
            response = await self._send(request, url, proxy, content)
        except (httpx.ConnectError, httpx.ReadError):
            await self._renewed()
            raise
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_Body(request, response), request=request
        )

    async def _renewed(self) -> None:
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew_at = now + _RENEW_SECONDS
            await aio.finish(self._renew)

    async def _send(
        self, request: httpx.Request, url: URL, proxy: URL | None, content: bytes
    ) -> aiohttp.ClientResponse:
        assert self._session is not None
        with _as_httpx(request):
            return await self._session.request(
                request.method,
                url,
                headers=[(name, value) for name, value in request.headers.multi_items() if name not in _OURS],
                data=content or None,
                allow_redirects=False,
                timeout=_timeout(request.extensions.get("timeout", {})),
                proxy=None if proxy is None else proxy.origin(),
                proxy_auth=_proxy_auth(proxy),
            )


class _Body(httpx.AsyncByteStream):
    def __init__(self, request: httpx.Request, response: aiohttp.ClientResponse) -> None:
        self._request, self._response = request, response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for piece in self._response.content.iter_any():
                yield piece

    async def aclose(self) -> None:
        """Give the connection back; one with something left to read is closed."""
        self._response.release()


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error), request=request) from error
    except TimeoutError as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error) or type(error).__name__, request=request) from error


def _timeout(wanted: Mapping[str, Any]) -> aiohttp.ClientTimeout:
    connect = wanted.get("connect")
    return aiohttp.ClientTimeout(
        total=None, connect=connect, sock_connect=connect, sock_read=wanted.get("read")
    )


def _proxy_auth(proxy: URL | None) -> aiohttp.BasicAuth | None:
    if proxy is None or proxy.user is None:
        return None
    return aiohttp.BasicAuth(proxy.user, proxy.password or "")
