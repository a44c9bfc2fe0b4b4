"""The way of a request through aiohttp: proxies, compressed answers, connections."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2 as httpx
import pytest
from aiohttp import web
from yarl import URL

from imagecached.errors import Unavailable
from imagecached.kube.client import Cluster, kinds
from imagecached.kube.client.transport import Transport
from imagecached.registry.proxies import Proxies
from tests.support.apiserver import ApiServer


@asynccontextmanager
async def _session(url: str, proxies: Proxies | None = None) -> AsyncIterator[Cluster]:
    transport = Transport(ssl.create_default_context(), proxies or Proxies())
    async with httpx.AsyncClient(base_url=url, transport=transport, timeout=None, trust_env=False) as http:
        yield Cluster(http, manager="tester")


async def test_one_connection_serves_many_requests() -> None:
    """An answer that was read gives its connection back."""
    async with ApiServer() as server, _session(server.url) as cluster:
        for _ in range(5):
            await cluster.list(kinds.NODES)
        assert len(server._transports) == 1


async def test_a_watch_that_is_left_closes_its_connection() -> None:
    """The server sees it end."""
    async with ApiServer(bookmark_seconds=0.01) as server, _session(server.url) as cluster:
        events = cluster.watch(kinds.NODES, (await cluster.list(kinds.NODES)).version)
        await anext(events)
        assert server.watches() == 1
        await events.aclose()
        while server.watches():
            await cluster.list(kinds.NODES)


async def test_a_proxy_is_used_where_the_environment_says_so() -> None:
    """But not for what NO_PROXY excludes, networks included: there nobody answers here."""
    async with ApiServer() as proxy:
        environment = {"HTTP_PROXY": proxy.url, "NO_PROXY": "192.0.2.0/24,.inside"}
        proxies = Proxies.from_environment(environment)
        async with _session("http://cluster.example", proxies) as cluster:
            await cluster.list(kinds.NODES)
        assert proxy.traffic.requests["list nodes"] == 1
        assert proxies.of(URL("http://192.0.2.7")) is None
        async with _session("http://cluster.inside", proxies) as cluster:
            with pytest.raises(Unavailable):
                await cluster.list(kinds.NODES)
        assert proxy.traffic.requests["list nodes"] == 1


async def test_compressed_answers() -> None:
    """Large answers of the API server come gzipped."""

    async def serve(_request: web.BaseRequest) -> web.StreamResponse:
        body = gzip.compress(b'{"items": [], "metadata": {"resourceVersion": "7"}}')
        return web.Response(body=body, headers={"Content-Encoding": "gzip"})

    runner = web.ServerRunner(web.Server(serve, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with _session(f"http://127.0.0.1:{runner.addresses[0][1]}") as cluster:
            assert (await cluster.list(kinds.NODES)).version == "7"
    finally:
        await runner.cleanup()
