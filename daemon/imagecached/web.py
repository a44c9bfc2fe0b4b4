"""``/metrics``, ``/livez`` and ``/readyz`` over TCP, for Prometheus and probes. No authentication, no
secrets, no names.

Alive means that the event loop answers; ready is asked of who knows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

from aiohttp import web

from imagecached.errors import FailedPrecondition

_GRACE_SECONDS: Final = 1.0


class Exposed(Protocol):
    """Metrics, of whatever process."""

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The scrape's body and its content type."""


def application(metrics: Exposed, why_not_ready: Callable[[], str | None]) -> web.Application:
    """The three pages; ``why_not_ready`` returns None when ready."""

    async def scrape(request: web.Request) -> web.Response:
        body, content_type = metrics.exposition(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def livez(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = why_not_ready()
        return web.Response(text="ok\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    pages = web.Application()
    pages.add_routes([web.get("/metrics", scrape), web.get("/livez", livez), web.get("/readyz", readyz)])
    return pages


@asynccontextmanager
async def serve(pages: web.Application, host: str, port: int) -> AsyncIterator[int]:
    """Serve ``pages`` for the length of the body, which gets the port (of use when ``port`` is 0).

    FailedPrecondition: the address cannot be used.
    """
    runner = web.AppRunner(pages, access_log=None, shutdown_timeout=_GRACE_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise FailedPrecondition(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
