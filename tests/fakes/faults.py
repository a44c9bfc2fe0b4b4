"""Ways in which a server goes wrong, one request each; see :meth:`tests.fakes.registry.FakeRegistry.script`.

A fault is given the request and the answer that the server would have sent, and answers in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from aiohttp import web


@dataclass(frozen=True)
class Answer:
    """A whole HTTP answer; ``whole`` is the blob that a 206 is a part of."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bytes | None = None


Fault = Callable[[web.Request, Answer], Awaitable[web.StreamResponse]]


async def plainly(request: web.Request, answer: Answer) -> web.StreamResponse:
    """No fault at all: a place in a script where the server works."""
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """Another status; ``Retry_After="3"`` becomes the header ``Retry-After``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return _instead(lambda answer: Answer(code, named, body))


def html(code: int = 200) -> Fault:
    """The login page of some other server."""
    return _instead(
        lambda answer: Answer(code, {"Content-Type": "text/html"}, b"<!DOCTYPE html><p>Hello</p>")
    )


def redirect(location: str, code: int = 307) -> Fault:
    """Somewhere else."""
    return status(code, Location=location)


def corrupt() -> Fault:
    """The right size and the wrong bytes."""
    return _instead(lambda answer: replace(answer, body=bytes([answer.body[0] ^ 1]) + answer.body[1:]))


def resized(by: int) -> Fault:
    """More bytes (or fewer) than there should be, with a Content-Length that agrees."""
    return _instead(
        lambda answer: replace(answer, body=(answer.body + b"+" * max(0, by))[: len(answer.body) + by])
    )


def range_ignored() -> Fault:
    """200 and the whole blob, as servers do that do not know Range."""
    return _instead(lambda answer: replace(answer, status=200, headers={}, body=answer.whole or answer.body))


def other_range(content_range: str) -> Fault:
    """206, but for another range than the one asked for."""
    return _instead(lambda answer: replace(answer, status=206, headers={"Content-Range": content_range}))


def unsized(surplus: bytes = b"", cut: int = 0) -> Fault:
    """Chunked encoding, so that only the bytes themselves tell the size."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_without_length(answer))
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) - cut] + surplus)
        await response.write_eof()
        return response

    return send


def broken(after: int, *, reset: bool = False) -> Fault:
    """The connection ends in the middle of the body: closed, or reset."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        response = await _begin(request, answer, after)
        assert request.transport is not None
        if reset:
            request.transport.abort()
        else:
            request.transport.close()
        return response

    return send


def stalled(after: int) -> Fault:
    """Nothing more comes, and the connection stays open until the client closes it."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        response = await _begin(request, answer, after)
        await asyncio.Event().wait()  # cancelled when the client or the server goes away
        return response

    return send


def silent() -> Fault:
    """Not even a status line."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    return send


def gated(gate: asyncio.Event, after: int = 0) -> Fault:
    """The body goes on when the test opens the gate."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        response = await _begin(request, answer, after)
        await gate.wait()
        await response.write(answer.body[after:])
        await response.write_eof()
        return response

    return send


def endless(beginning: bytes = b'{"schemaVersion": 2, "junk": "', filler: bytes = b"x" * 65536) -> Fault:
    """A document that never ends."""

    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_without_length(answer))
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(beginning)
        while True:  # ends with ConnectionResetError when the client has had enough
            await response.write(filler)

    return send


def _instead(change: Callable[[Answer], Answer]) -> Fault:
    async def send(request: web.Request, answer: Answer) -> web.StreamResponse:
        return await plainly(request, change(answer))

    return send


async def _begin(request: web.Request, answer: Answer, after: int) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    await response.write(answer.body[:after])
    return response


def _without_length(answer: Answer) -> Mapping[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "Content-Length"}
