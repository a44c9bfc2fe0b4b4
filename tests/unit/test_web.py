"""web: metrics and health for Prometheus and probes."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from imagecached import web
from imagecached.errors import FailedPrecondition
from imagecached.telemetry import Metrics


async def get(port: int, path: str) -> tuple[int, str, str]:
    """Status, content type and text."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status, response.headers["Content-Type"], await response.text()


async def test_metrics_are_served() -> None:
    """In the text format, by the object given."""
    metrics = Metrics()
    metrics.obtained("mirror", 7)
    async with web.serve(web.application(metrics, lambda: None), "127.0.0.1", 0) as port:
        status, kind, text = await get(port, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    assert 'imagecached_blob_bytes_total{source="mirror"} 7.0' in text


async def test_alive_and_ready_are_two_things() -> None:
    """Not ready says why; alive is whoever answers."""
    reasons: list[str] = ["opening the store"]
    pages = web.application(Metrics(), lambda: reasons[0] if reasons else None)
    async with web.serve(pages, "127.0.0.1", 0) as port:
        assert (await get(port, "/livez"))[0] == 200
        assert (await get(port, "/readyz"))[::2] == (503, "opening the store\n")
        reasons.clear()
        assert (await get(port, "/readyz"))[::2] == (200, "ok\n")
        assert (await get(port, "/"))[0] == 404


async def test_an_address_in_use_is_named() -> None:
    """The message says which."""
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        pages = web.application(Metrics(), lambda: None)
        with pytest.raises(FailedPrecondition, match=rf"cannot listen on 127\.0\.0\.1:{port}: "):
            async with web.serve(pages, "127.0.0.1", port):
                pass
