"""A list kept true: through dropped watches, gone history, outages and refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from imagecached.kube.client import Change, Cluster, Reflector, kinds
from tests.support.apiserver import ApiServer, Refused, calls

_PATIENCE_SECONDS = 45.0


class Seen:
    """A reflector at work and what it told."""

    def __init__(self, cluster: Cluster, **options: Any) -> None:
        self.changes: list[Change] = []
        self.restarts: list[str] = []
        self._news = asyncio.Event()
        self.reflector = Reflector(cluster, kinds.NODES, self._told, on_restart=self._restarted, **options)

    def _told(self, change: Change) -> None:
        self.changes.append(change)
        self._news.set()

    def _restarted(self, reason: str) -> None:
        self.restarts.append(reason)
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for news until ``condition()`` is true."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while not condition():
                await self._news.wait()
                self._news.clear()

    def names(self) -> list[str]:
        """The objects that it knows."""
        return sorted(name for _, name in self.reflector.objects)


@asynccontextmanager
async def _reflecting(cluster: Cluster, **options: Any) -> AsyncIterator[Seen]:
    seen = Seen(cluster, **options)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(seen.reflector.run())
        yield seen
        task.cancel()


def _node(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


async def test_it_knows_what_is_there_and_what_comes(cluster: Cluster, server: ApiServer) -> None:
    """Listed, added, changed, deleted; each told once with before and after."""
    server.put(_node("n1"))
    async with _reflecting(cluster) as seen:
        await seen.reflector.synced.wait()
        assert seen.reflector.problem is None
        server.put(_node("n2"))
        server.put(_node("n1", a="b"))
        server.remove("nodes", "n2")
        await seen.until(lambda: len(seen.changes) == 4)
    told = [(change.key[1], change.old is not None, change.new is not None) for change in seen.changes]
    assert told == [("n1", False, True), ("n2", False, True), ("n1", True, True), ("n2", True, False)]
    assert seen.names() == ["n1"]
    assert seen.reflector.get("n1") is seen.changes[2].new


def _counts(told: list[Any], count: int) -> bool:
    return len(told) == count


async def test_dropped_watches_go_on_where_they_were(cluster: Cluster, server: ApiServer) -> None:
    """A server that restarts costs a watch, no list, and no event."""
    async with _reflecting(cluster) as seen:
        await seen.reflector.synced.wait()
        for rounds in range(1, 4):
            server.put(_node(f"n{rounds}"))
            await seen.until(partial(_counts, seen.changes, rounds))
            server.drop_watches()
            await seen.until(partial(_counts, seen.restarts, rounds))
    assert seen.restarts == ["ended"] * 3
    assert server.traffic.requests["list nodes"] == 1


@pytest.mark.parametrize("in_stream", [False, True])
async def test_gone_history_is_listed_anew(cluster: Cluster, server: ApiServer, in_stream: bool) -> None:
    """410: a new list, and the differences are told as if they had been watched."""
    server.put(_node("stays"))
    server.put(_node("goes"))
    server.reads.gone_in_stream = in_stream
    async with _reflecting(cluster) as seen:
        await seen.until(lambda: len(seen.changes) == 2)
        server.partition()
        await seen.until(lambda: seen.restarts)
        server.remove("nodes", "goes")
        server.put(_node("comes"))
        server.storage.compact()
        server.heal()
        await seen.until(lambda: len(seen.changes) == 4)
    assert "expired" in seen.restarts
    assert [(change.key[1], change.new is None) for change in seen.changes[2:]] == [
        ("goes", True),
        ("comes", False),
    ]


async def test_an_outage_changes_nothing_that_is_known(cluster: Cluster, server: ApiServer) -> None:
    """What was known stays known; the reason is told; afterwards it goes on."""
    server.put(_node("n1"))
    async with _reflecting(cluster) as seen:
        await seen.reflector.synced.wait()
        server.partition()
        await seen.until(lambda: len(seen.restarts) >= 3)
        assert seen.names() == ["n1"]
        assert "WATCH /api/v1/nodes" in str(seen.reflector.problem)
        server.put(_node("n2"))
        server.heal()
        await seen.until(lambda: seen.names() == ["n1", "n2"])
        assert seen.reflector.problem is None


async def test_an_outage_at_the_start(cluster: Cluster, server: ApiServer) -> None:
    """It begins as soon as the server is there."""
    server.partition()
    server.put(_node("n1"))
    async with _reflecting(cluster) as seen:
        await seen.until(lambda: len(seen.restarts) >= 2)
        assert not seen.reflector.synced.is_set()
        server.heal()
        await seen.reflector.synced.wait()
    assert seen.names() == ["n1"]


async def test_throttled_and_broken_servers(cluster: Cluster, server: ApiServer) -> None:
    """429 and 500 at list and watch are waited out, at least as long as the server wishes."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    cluster.pace = replace(cluster.pace, sleep=sleep)
    server.faults.too_many(retry_after=9, matches=calls("list", "nodes"))
    server.faults.break_down(matches=calls("list", "nodes"))
    server.faults.too_many(retry_after=5, matches=calls("watch", "nodes"))
    async with _reflecting(cluster) as seen:
        await seen.until(lambda: len(seen.restarts) == 3)
        server.put(_node("n1"))
        await seen.until(lambda: seen.changes)
    assert seen.restarts == ["error"] * 3
    assert waits[0] == 9
    assert waits[1] < 1
    assert waits[2] == 5


@pytest.mark.parametrize("code", [403, 404])
async def test_what_is_refused_or_not_served_is_asked_for_slowly(
    cluster: Cluster, server: ApiServer, code: int
) -> None:
    """No access, or no such definition yet: the long wait, then it is there."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    cluster.pace = replace(cluster.pace, sleep=sleep, denied=60.0)
    server.faults.refuse(Refused(code, "Scripted", "no"), times=2, matches=calls("list"))
    async with _reflecting(cluster) as seen:
        await seen.reflector.synced.wait()
    assert len(waits) == 2
    assert all(30 <= wait <= 60 for wait in waits)


async def test_a_resync_lists_anew(cluster: Cluster, server: ApiServer) -> None:
    """After its time the list is made anew although the watch was well, and tells no change."""
    server.put(_node("n1"))
    cluster.pace = replace(cluster.pace, resync=0.0)
    async with _reflecting(cluster) as seen:
        await seen.until(lambda: seen.restarts.count("resync") >= 2)
    assert len(seen.changes) == 1
    assert server.traffic.requests["list nodes"] >= 2


async def test_a_server_that_ends_every_watch_at_once_is_not_hammered(
    cluster: Cluster, server: ApiServer
) -> None:
    """A watch that ends with nothing told is waited after like an error."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    cluster.pace = replace(cluster.pace, sleep=sleep, watch=1.0)
    server.reads.bookmark_seconds = 3600.0
    async with _reflecting(cluster) as seen:
        await seen.until(lambda: waits)
    assert seen.restarts == ["ended", "error"]


async def test_a_server_without_history_is_not_hammered(cluster: Cluster, server: ApiServer) -> None:
    """410 after each list: the lists come further and further apart."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    cluster.pace = replace(cluster.pace, sleep=sleep)
    server.faults.refuse(Refused(410, "Expired", "too old"), times=4, matches=calls("watch"))
    async with _reflecting(cluster) as seen:
        await seen.until(lambda: len(seen.restarts) == 4)
        server.put(_node("n1"))
        await seen.until(lambda: seen.changes)
    assert seen.restarts == ["expired"] * 4
    assert len(waits) == 3


async def test_keep_decides_what_stays_in_memory(cluster: Cluster, server: ApiServer) -> None:
    """Listed and watched objects are cut alike."""

    def bare(node: dict[str, Any]) -> dict[str, Any]:
        meta = node["metadata"]
        return {"metadata": {key: meta[key] for key in ("name", "uid", "resourceVersion")}}

    server.put({**_node("n1"), "status": {"big": "x" * 1000}})
    async with _reflecting(cluster, keep=bare) as seen:
        await seen.reflector.synced.wait()
        server.put({**_node("n2"), "status": {"big": "x" * 1000}})
        await seen.until(lambda: len(seen.changes) == 2)
    assert all(node.keys() == {"metadata"} for node in seen.reflector.objects.values())


async def test_a_selection_sees_objects_leave(cluster: Cluster, server: ApiServer) -> None:
    """An object that ceases to match is gone for this reflector."""
    server.put(_node("n1", tier="x"))
    async with _reflecting(cluster, labels="tier=x") as seen:
        await seen.reflector.synced.wait()
        server.put(_node("n1", tier="y"))
        await seen.until(lambda: len(seen.changes) == 2)
    assert seen.names() == []
    assert seen.changes[1].new is None
