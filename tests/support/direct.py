"""From the cluster client to the emulated API server without sockets: quick, and fit for virtual time.

    cluster = direct(server)          # an imagecached.kube.client.Cluster

Everything above the wire is the real client, everything behind it the same server that others reach by HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2 as httpx
import msgspec

from imagecached.kube.client import Cluster, Pace
from tests.support.apiserver import ApiServer, Refused
from tests.support.apiserver.faults import label_of
from tests.support.apiserver.requests import Call, verb_of


class Direct(httpx.AsyncBaseTransport):
    """A transport that leads to ``server``; ``cut`` ends every watch and refuses all further requests."""

    def __init__(self, server: ApiServer, user: str = "admin") -> None:
        self._server, self._user = server, user
        self.cut = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request as the server's own door takes it."""
        if self.cut or self._server.faults.partitioned:
            raise httpx.ConnectError("no route to host", request=request)
        try:
            call = self._call(request, await request.aread())
            self._count(call)
            await self._server.faults.meet(call)
            if call.verb == "watch":
                return await self._watch(call)
            code, body = await self._server._carry_out(call)
        except Refused as refused:
            self._server.traffic.refused[refused.code] += 1
            return httpx.Response(
                refused.code, headers=refused.headers, content=msgspec.json.encode(refused.document())
            )
        self._server.traffic.sent[label_of(call)] += len(body)
        return httpx.Response(code, headers={"Content-Type": "application/json"}, content=body)

    def _count(self, call: Call) -> None:
        self._server.traffic.requests[label_of(call)] += 1
        self._server.traffic.received[label_of(call)] += len(call.body)

    def _call(self, request: httpx.Request, body: bytes) -> Call:
        resource, namespace, name, subresource = self._server.paths.parse(request.url.path)
        query = dict(request.url.params)
        return Call(
            verb=verb_of(request.method, name, query),
            resource=resource,
            namespace=namespace,
            name=name,
            subresource=subresource,
            query=query,
            content_type=request.headers.get("Content-Type", "application/json"),
            body=body,
            user=self._user,
            accept=request.headers.get("Accept", ""),
            agent=request.headers.get("User-Agent", ""),
        )

    async def _watch(self, call: Call) -> httpx.Response:
        stop = asyncio.Event()
        lines = self._server.reads.watch(call, stop)
        await anext(lines)
        self._server._stops.add(stop)
        return httpx.Response(200, stream=_Lines(self, call, lines, stop))


@dataclass
class _Lines(httpx.AsyncByteStream):
    """A watch's answer."""

    direct: Direct
    call: Call
    lines: AsyncIterator[bytes]
    stop: asyncio.Event

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent = self.direct._server.traffic.sent
        async for line in self.lines:
            if self.direct.cut or self.direct._server.faults.partitioned:
                raise httpx.ReadError("connection reset by peer")
            sent[label_of(self.call)] += len(line)
            yield line

    async def aclose(self) -> None:
        self.direct._server._stops.discard(self.stop)
        await self.lines.aclose()  # type: ignore[attr-defined]  # it is an async generator


def direct(
    server: ApiServer, *, manager: str = "test", pace: Pace | None = None, transport: Direct | None = None
) -> Cluster:
    """A client of ``server`` in the running loop's time, virtual or not. Needs no closing."""
    http = httpx.AsyncClient(base_url="http://apiserver", transport=transport or Direct(server))
    loop = asyncio.get_running_loop()
    patient = Pace(watch=6 * 3600.0, monotonic=loop.time)  # virtual days must not cost a thousand watches
    return Cluster(http, manager=manager, pace=pace or patient)
