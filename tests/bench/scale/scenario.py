"""One size of cluster: all caches declared at once, until each is Ready; then an hour of nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2 as httpx
import msgspec

from imagecached.imagecache import Status, parse_status, timestamp
from imagecached.kube.controller import Election, Leader, Settings
from imagecached.kube.recorder import Recorder
from tests.bench.scale import meter
from tests.bench.scale.rest import CRDS, declared
from tests.fakes.registries import Registries
from tests.fakes.virtual import wall
from tests.support.apiserver import ApiServer, storage
from tests.support.direct import Direct, direct
from tests.support.fleet import Fleet

log = logging.getLogger(__name__)

_IMC = "imagecaches.eci.alibabacloud.com"
_NIC = "nodeimagecaches.imagecached.dev"
_HISTORY = 2000  # changes the emulated server remembers: each of a large cluster is tens of KB
_QUIET_SECONDS = 3600.0
_SETTLE_SECONDS = 900.0
_MOST_SECONDS = 6 * 3600.0
_FETCH_SECONDS = 20.0


@dataclass(frozen=True)
class Size:
    """How large."""

    nodes: int
    caches: int


class Accounted(Direct):
    """The wire to the API server, whose work is not the client's."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await meter.on_account_of("server", super().handle_async_request(request))
        if isinstance(response.stream, httpx.AsyncByteStream) and "watch" in request.url.params:
            response.stream = _Served(response.stream)
        return response


@dataclass
class _Served(httpx.AsyncByteStream):
    """A watch whose lines the server makes on its own account."""

    inner: Any

    async def __aiter__(self) -> AsyncIterator[bytes]:
        lines = aiter(self.inner)
        while True:
            try:
                yield await meter.on_account_of("server", anext(lines))
            except* StopAsyncIteration:
                ended = True
            else:
                ended = False
            if ended:
                return

    async def aclose(self) -> None:
        await self.inner.aclose()


async def simulate(size: Size) -> dict[str, Any]:
    """The figures of one size."""
    storage._HISTORY = _HISTORY  # the emulation's bound, not a behaviour
    began = time.monotonic()
    server = ApiServer(tracks_fields=False, bookmark_seconds=60.0)
    server.collector.collect = _nothing  # type: ignore[method-assign]  # looks at every object at every write
    server.install(CRDS)
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "imagecached-system"}})
    draw = random.Random(size.nodes * 1000 + size.caches)
    fleet = Fleet(
        server,
        (f"node-{number:05}" for number in range(size.nodes)),
        seconds=lambda _node, _cache: draw.uniform(0.5, 1.5) * _FETCH_SECONDS,
        thorough=False,
    )
    gc.freeze()  # a million objects of the emulation, which the controller would not have
    row: dict[str, Any] = {"nodes": size.nodes, "caches": size.caches}
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(fleet.run(), context=meter.owned("nodes")),
            group.create_task(_controller(server), context=meter.owned("controller")),
        ]
        await asyncio.sleep(30)
        row |= await _rollout(server, size)
        await asyncio.sleep(_SETTLE_SECONDS)
        row |= await _silence(server)
        row |= _objects(server)
        for task in tasks:
            task.cancel()
    row["bench_wall_seconds"] = round(time.monotonic() - began, 1)
    return row


async def _controller(server: ApiServer) -> None:
    """The real one: leader election, leader, events."""
    settings = Settings()
    cluster = direct(server, manager="imagecached-controller", transport=Accounted(server))
    recorder = Recorder(cluster, "imagecached-controller", "bench", wall)
    election = Election(
        cluster,
        "bench",
        name=settings.lease,
        namespace=settings.namespace,
        terms=settings.terms,
        wall=wall,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(recorder.run())
        await election.run(lambda: Leader(cluster, Registries(), recorder, settings, wall=wall).run())


async def _rollout(server: ApiServer, size: Size) -> dict[str, Any]:
    """From the moment at which all caches are declared to the last Ready."""
    clock = asyncio.get_running_loop().time
    server.traffic.reset()
    cpu, start = meter.spent(), clock()
    for number in range(size.caches):
        server.put(declared(f"cache-{number:03}", timestamp(wall())))
    ids, ready = 0.0, list[float]()
    done: set[str] = set()
    while len(done) < size.caches and clock() - start < _MOST_SECONDS:
        await asyncio.sleep(1.0)
        statuses = _statuses(server)
        if not ids and all(status.image_cache_id for status in statuses.values()):
            ids = clock() - start
        if (clock() - start) % 60 == 0:
            log.info("rollout", extra={"seconds": clock() - start, "ready": len(done)})
        for name, status in statuses.items():
            if status.phase == "Ready" and name not in done:
                done.add(name)
                ready.append(clock() - start)
    seconds = clock() - start
    spent = {name: round(each - cpu[name], 1) for name, each in meter.spent().items()}
    return {
        "ready": len(done),
        "id_seconds": ids,
        "ready_seconds": {"first": ready[0], "median": sorted(ready)[len(ready) // 2], "last": ready[-1]},
        "rollout_seconds": seconds,
        "cpu_seconds": spent,
        **_traffic(server, size, seconds),
    }


def _traffic(server: ApiServer, size: Size, seconds: float) -> dict[str, Any]:
    """Per second of the rollout. Each node has a watch of ImageCaches of its own; the emulated ones share
    one.
    """
    traffic = server.traffic
    per_watch = traffic.sent["watch imagecaches"] / 2  # one of them is the controller's
    writes = Counter[str]()
    for label, count in traffic.requests.items():
        if not label.startswith(("watch", "list")):
            writes[label] += count
    return {
        "requests": dict(writes),
        "requests_per_second": round(sum(writes.values()) / seconds, 2),
        "received_kb_per_second": round(sum(traffic.received.values()) / seconds / 1e3, 1),
        "to_controller_kb_per_second": round(
            (per_watch + traffic.sent["watch nodeimagecaches"] + traffic.sent["watch nodes"]) / seconds / 1e3,
            1,
        ),
        "to_nodes_kb_per_second": round(per_watch * size.nodes / seconds / 1e3, 1),
        "to_each_node_bytes": round(per_watch),
        "status_writes_per_cache": round(traffic.requests["patch imagecaches/status"] / size.caches, 1),
        "label_patches_per_node": round(traffic.requests["patch nodes"] / size.nodes, 1),
        "status_writes_per_node": round(traffic.requests["patch nodeimagecaches/status"] / size.nodes, 1),
    }


async def _silence(server: ApiServer) -> dict[str, Any]:
    """An hour in which nothing happens."""
    server.traffic.reset()
    cpu = meter.spent()
    await asyncio.sleep(_QUIET_SECONDS)
    asked = {name: count for name, count in server.traffic.requests.items() if not name.startswith("watch")}
    spent = meter.spent()["controller"] - cpu["controller"]
    return {"quiet_hour_requests": asked, "quiet_hour_cpu_seconds": round(spent, 2)}


def _objects(server: ApiServer) -> dict[str, Any]:
    """The largest object of each kind, in bytes of JSON."""
    sizes = {
        kind: max(len(msgspec.json.encode(each)) for each in server.all(kind))
        for kind in (_IMC, _NIC, "nodes")
    }
    return {"largest_bytes": sizes}


def _statuses(server: ApiServer) -> dict[str, Status]:
    return {each["metadata"]["name"]: parse_status(each.get("status")) for each in server.all(_IMC)}


def _nothing() -> None:
    """No garbage is collected: nothing is deleted here."""
