"""One HTTP session; redirects, proxies and addresses under our own rules.

Invariants: what is private to a server (Authorization, configured headers) goes to the origin it was meant
for and to no other; a redirect never leaves TLS; nobody leads us to a link-local or metadata address. Knows
nothing of registries but :class:`Endpoint`; does not retry.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from imagecached.errors import AccessDenied, Corrupt, Unavailable
from imagecached.registry.addresses import GuardedResolver, Place, is_loopback, refusal
from imagecached.registry.answers import network_errors, redacted
from imagecached.registry.config import RegistryConfig
from imagecached.registry.credentials import basic_auth
from imagecached.registry.endpoints import Endpoint, authority, named_in, origin, same_origin
from imagecached.registry.proxies import Proxies
from imagecached.registry.tls import TlsContexts

READ_BUFFER: Final = 1 << 20
MAX_HEADER_BYTES: Final = 64 << 10  # presigned URLs in a Location can be long
_MOST_REDIRECTS: Final = 10
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SENDABLE: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Request:
    """``private`` headers are for the origin of ``url`` alone; a ``form`` is posted."""

    url: URL
    endpoint: Endpoint
    headers: Mapping[str, str] = field(default_factory=dict)
    private: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    method: str = "GET"


class Transport:
    """Sends requests; an async context manager that owns the session."""

    def __init__(
        self, config: RegistryConfig, proxies: Proxies, resolver: AbstractResolver | None = None
    ) -> None:
        self._config = config
        self._proxies = proxies
        self._inner = resolver
        self._tls = TlsContexts()
        self._gates: dict[tuple[str, str, int], asyncio.Semaphore] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._resolver = GuardedResolver(self._inner or aiohttp.ThreadedResolver())
        self._stack.push_async_callback(self._resolver.close)
        for proxy in (self._proxies.http, self._proxies.https):
            if proxy is not None:
                self._resolver.configured.add(_place(proxy))
        # No limits here: waiting for a free connection must not count as waiting for the server; see _gate.
        connector = aiohttp.TCPConnector(limit=0, resolver=self._resolver)
        self._session = await self._stack.enter_async_context(
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=READ_BUFFER,
                max_field_size=MAX_HEADER_BYTES,
                headers={"User-Agent": self._config.user_agent, "Accept-Encoding": "identity"},
            )
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @asynccontextmanager
    async def send(self, request: Request) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of any status, after redirects. What breaks while the block reads is our error as well.

        AccessDenied: redirect refused. Unavailable: network. Corrupt: redirects without end.
        """
        self._allow(request.endpoint)
        async with self._gate(request.url):
            response = await self._follow(request)
            try:
                with network_errors(request.method, response.url):
                    yield response
            finally:
                response.release()

    def _allow(self, endpoint: Endpoint) -> None:
        trusted = self._resolver.configured if endpoint.configured else self._resolver.asked
        trusted.add(_place(endpoint.base))

    def _gate(self, url: URL) -> asyncio.Semaphore:
        """Bounds the requests under way to one origin, whatever it redirects to."""
        return self._gates.setdefault(origin(url), asyncio.Semaphore(self._config.connections_per_host))

    async def _follow(self, request: Request) -> aiohttp.ClientResponse:
        url = request.url
        for _ in range(_MOST_REDIRECTS):
            self._check(url, request)
            response = await self._once(url, request)
            if response.status not in _REDIRECTS:
                return response
            try:
                url = _location(response, url)
            finally:
                response.release()
            if request.form is not None and not same_origin(url, request.url):
                raise AccessDenied(f"POST {redacted(request.url)}: redirected to {redacted(url)}, refused")
        raise Corrupt(f"GET {redacted(request.url)}: more than {_MOST_REDIRECTS} redirects")

    async def _once(self, url: URL, request: Request) -> aiohttp.ClientResponse:
        headers = CIMultiDict(request.headers)
        if same_origin(url, request.url):
            headers.extend(request.private)
        proxy = self._proxies.of(url)
        if url.scheme == "http":  # without a tunnel the proxy reads the request's own headers
            headers.extend(_proxy_headers(proxy))
        tls = await self._tls.of(request.endpoint)
        with network_errors(request.method, url):
            return await self._session.request(
                request.method,
                url,
                headers=headers,
                data=request.form,
                allow_redirects=False,
                ssl=tls,
                timeout=self._timeout(request.endpoint),
                proxy=None if proxy is None else proxy.origin(),
                proxy_headers=None if proxy is None else _proxy_headers(proxy),
            )

    def _timeout(self, endpoint: Endpoint) -> aiohttp.ClientTimeout:
        patience = self._config.patience
        connect = endpoint.dial_seconds or patience.connect_seconds
        return aiohttp.ClientTimeout(
            total=None,
            connect=2 * connect + patience.read_seconds,  # names, connection and a proxy's CONNECT together
            sock_connect=connect,
            sock_read=patience.read_seconds,
        )

    def _check(self, url: URL, request: Request) -> None:
        """May we go to ``url`` for this request? Names are judged later, when they are resolved."""
        start, host = request.endpoint.base, url.host or ""
        if url.scheme not in ("http", "https") or not host:
            raise AccessDenied(f"led to {redacted(url)}, which is not HTTP: refused")
        if start.scheme == "https" and url.scheme == "http" and not self._plain(url):
            raise AccessDenied(f"led from {redacted(start)} to {redacted(url)}, away from TLS: refused")
        if _place(url) in self._resolver.configured:
            return
        at_home = is_loopback(start.host or "")
        reason = refusal(host, loopback=at_home)
        if reason is None and is_loopback(host) and not at_home:
            reason = "a loopback address"
        if reason is not None:
            raise AccessDenied(f"led to {redacted(url)}, {reason}: refused")

    def _plain(self, url: URL) -> bool:
        return named_in(self._config.plain_http, authority(url))


def _place(url: URL) -> Place:
    return (url.host or "").lower(), url.port or 0


def _location(response: aiohttp.ClientResponse, url: URL) -> URL:
    """Where a redirect leads; its text is kept as it is, since presigned URLs are signed as written."""
    location = response.headers.get("Location", "")
    try:
        target = url.join(URL(location, encoded=_SENDABLE.fullmatch(location) is not None))
        port = target.port
    except ValueError as error:
        raise Unavailable(f"{redacted(url)} redirects to something that is no URL") from error
    if not location or not port:
        raise Unavailable(f"{redacted(url)} redirects to nowhere")
    return target.with_fragment(None)


def _proxy_headers(proxy: URL | None) -> Mapping[str, str]:
    if proxy is None or proxy.user is None:
        return {}
    return {"Proxy-Authorization": basic_auth(proxy.user, proxy.password or "")}
