"""The HTTPS server that API servers ask: ``/mutate``, ``/observe``, and ``/healthz``, ``/readyz`` for probes.

Bounded: the size of a review, the time it may take to arrive, the connections' idleness. What is no review is
400 with one line that says why.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from imagecached.errors import FailedPrecondition, InvalidInput
from imagecached.kube.webhook.admission import Admission
from imagecached.kube.webhook.review import MAX_BYTES, Answer, Request, answer_document, parse_review

log = logging.getLogger(__name__)

_BODY_SECONDS: Final = 5.0
_GRACE_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 120.0
_JSON: Final = "application/json"

Handler = Callable[[web.Request], Awaitable[web.Response]]


def application(admission: Admission, why_not_ready: Callable[[], str | None]) -> web.Application:
    """The four pages; ``why_not_ready`` returns None when ready."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        reason = why_not_ready()
        return web.Response(text="ok\n") if reason is None else web.Response(status=503, text=f"{reason}\n")

    pages = web.Application(client_max_size=MAX_BYTES)
    pages.add_routes(
        [
            web.post("/mutate", _reviewing(admission.mutate)),
            web.post("/observe", _reviewing(admission.observe)),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
        ]
    )
    return pages


@asynccontextmanager
async def serve(pages: web.Application, host: str, port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve ``pages`` for the length of the body, which gets the port (of use when ``port`` is 0).

    At the end requests that are being answered are waited for. FailedPrecondition: the address cannot be
    used.
    """
    runner = web.AppRunner(
        pages, access_log=None, shutdown_timeout=_GRACE_SECONDS, keepalive_timeout=_IDLE_SECONDS
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=context).start()
        except OSError as error:
            raise FailedPrecondition(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _reviewing(answer: Callable[[Request], Answer]) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        if request.content_type != _JSON:
            return _wrong(415, f"must be {_JSON}")
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await request.read()
            review = parse_review(body)
        except web.HTTPRequestEntityTooLarge:
            return _wrong(413, f"larger than {MAX_BYTES} bytes")
        except TimeoutError:
            return _wrong(408, f"the review did not arrive within {_BODY_SECONDS:g} seconds")
        except InvalidInput as error:
            log.warning("no review", extra={"peer": request.remote, "error": str(error)})
            return _wrong(400, str(error))
        return web.Response(body=answer_document(review.uid, answer(review)), content_type=_JSON)

    return handle


def _wrong(status: int, message: str) -> web.Response:
    return web.Response(status=status, text=f"{message}\n")
