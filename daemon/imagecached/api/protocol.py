"""HTTP: requests decoded, answers and errors encoded, streams written. No other part of the API speaks it.

Every answer is JSON, errors included; a stream is one JSON object per line (NDJSON), and its last line
may be an error. Bodies are bounded, unknown fields refused. What a handler raises never reaches the
client as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from imagecached.api.documents import ErrorAnswer, ErrorDetail
from imagecached.api.failures import detail_of, status_of
from imagecached.api.operation import Call, Lines, Operation
from imagecached.api.peers import Gate, peer_of
from imagecached.api.ports import Ports
from imagecached.api.requests import Request
from imagecached.api.routes import OPERATIONS
from imagecached.errors import AccessDenied, InvalidInput, NotFound, Unavailable

_BODY_BYTES: Final = 1 << 20
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class Protocol:
    """Answers HTTP requests for ``ports``; ``group`` owns the tasks that they need."""

    def __init__(self, ports: Ports, gate: Gate, group: asyncio.TaskGroup) -> None:
        self._ports = ports
        self._gate = gate
        self._group = group
        self._streams: set[asyncio.Timeout] = set()
        self.application = web.Application(client_max_size=_BODY_BYTES, middlewares=[self._guard])
        for operation in OPERATIONS:
            self.application.router.add_route(operation.method, operation.path, self._handler(operation))
        self.application.on_shutdown.append(self._end_streams)

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Admit the peer, and turn whatever goes wrong into an answer."""
        try:
            peer = peer_of(request.transport)
            if not self._gate.admits(peer):
                raise AccessDenied(f"user {peer.uid} may not use this socket: be root or in its group")
            return await handler(request)
        except web.HTTPException as error:
            return _refusal(request, error)
        except Exception as error:  # noqa: BLE001  the client gets one calm line, the log the rest
            return _failure(status_of(error), detail_of(error))

    def _handler(self, operation: Operation) -> _Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            asked = await _decode(operation, request)
            call = Call(self._ports, asked, peer_of(request.transport).pid, self._group)
            answered = await operation.handler(call)
            if isinstance(answered, msgspec.Struct):
                return web.Response(body=_encode(answered), content_type="application/json")
            return await self._stream(request, answered)

        return answer

    async def _stream(self, request: web.Request, lines: Lines) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        async with aclosing(lines):
            await response.prepare(request)
            with suppress(_ClientGone):  # nobody is left to tell
                error = await self._tell(response, lines)
                if error is not None:
                    await _write(response, ErrorAnswer(error=detail_of(error)))
        return response

    async def _tell(self, response: web.StreamResponse, lines: Lines) -> Exception | None:
        """Write all lines; the error that ended them early, if one did."""
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._streams.add(scope)
                async for line in lines:
                    await _write(response, line)
        except _ClientGone:
            raise
        except Exception as error:  # noqa: BLE001  told to the client as the last line
            return Unavailable("the daemon is stopping") if scope.expired() else error
        finally:
            self._streams.discard(scope)
        return None

    async def _end_streams(self, _: web.Application) -> None:
        """At shutdown: a follower would keep the daemon from stopping."""
        for scope in self._streams:
            scope.reschedule(asyncio.get_running_loop().time())


async def _decode(operation: Operation, request: web.Request) -> Request:
    try:
        if operation.method == "POST":
            return msgspec.json.decode(await request.read() or b"{}", type=operation.request)
        given: dict[str, Any] = {**request.query, **request.match_info}
        return msgspec.convert(given, operation.request, strict=False)
    except ValueError as error:  # malformed or not what the type says
        raise InvalidInput(f"{operation.method} {operation.path}: {error}") from None


def _refusal(request: web.Request, error: web.HTTPException) -> web.Response:
    """What the router or the body's bound refused, in the form of every other error."""
    kind = NotFound if error.status == HTTPStatus.NOT_FOUND else InvalidInput
    return _failure(error.status, detail_of(kind(f"{request.method} {request.path}: {error.reason}")))


def _failure(status: int, detail: ErrorDetail) -> web.Response:
    response = web.Response(
        status=status, body=_encode(ErrorAnswer(error=detail)), content_type="application/json"
    )
    if detail.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(0, round(detail.retry_after_seconds)))
    return response


class _ClientGone(Exception):
    """The connection ended before the stream did."""


async def _write(response: web.StreamResponse, document: msgspec.Struct) -> None:
    try:
        await response.write(_encode(document) + b"\n")
    except ConnectionError as error:
        raise _ClientGone from error
