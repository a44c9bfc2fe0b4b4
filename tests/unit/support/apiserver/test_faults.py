"""What tests do to the emulated server, so that they can trust it: faults, switches and counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest

from tests.support.apiserver import ApiServer, Refused, calls

_NODES = "/api/v1/nodes"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """An empty cluster."""
    async with ApiServer() as serving:
        yield serving


@pytest.fixture
async def http(server: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    """Talks to it."""
    async with httpx.AsyncClient(base_url=server.url, timeout=10) as client:
        yield client


def _node(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}


async def test_refusals_are_used_up(server: ApiServer, http: httpx.AsyncClient) -> None:
    """Each call that matches meets one; the others none."""
    server.faults.too_many(retry_after=3, matches=calls("list", "nodes"))
    server.faults.break_down(times=2, matches=calls("create"))
    first = await http.get(_NODES)
    assert (first.status_code, first.headers["Retry-After"]) == (429, "3")
    assert first.json()["details"] == {"retryAfterSeconds": 3}
    assert (await http.get(_NODES)).status_code == 200
    codes = [(await http.post(_NODES, json=_node("n"))).status_code for _ in range(3)]
    assert codes == [500, 500, 201]


async def test_the_world_may_change_before_a_call(server: ApiServer, http: httpx.AsyncClient) -> None:
    """As another writer does, between a read and a write."""
    made = (await http.post(_NODES, json=_node("n"))).json()

    def meddle(_call: Any) -> None:
        server.put({**_node("n"), "spec": {"unschedulable": True}})

    server.faults.before = meddle
    assert (await http.put(f"{_NODES}/n", json=made)).status_code == 409


async def test_a_partition_cuts_what_is_under_way(server: ApiServer, http: httpx.AsyncClient) -> None:
    """Watches break, new connections too; afterwards all is as before."""
    async with http.stream("GET", _NODES, params={"watch": "true"}) as response:
        lines = response.aiter_lines()
        server.partition()
        with pytest.raises(httpx.TransportError):
            await anext(lines)
    with pytest.raises(httpx.TransportError):
        await http.get(_NODES)
    server.heal()
    assert (await http.get(_NODES)).status_code == 200


async def test_dropped_watches_end_whole(server: ApiServer, http: httpx.AsyncClient) -> None:
    """The answer ends, as when a server shuts down in order."""
    async with http.stream("GET", _NODES, params={"watch": "true"}) as response:
        server.put(_node("n"))
        server.drop_watches()
        lines = [json.loads(line) async for line in response.aiter_lines()]
    assert [line["type"] for line in lines] in ([], ["ADDED"])


async def test_compaction_makes_old_versions_unusable(server: ApiServer, http: httpx.AsyncClient) -> None:
    """For watches, for pages, and for lists of the past; a watch that is current goes on."""
    for name in ("a", "b", "c"):
        server.put(_node(name))
    page = (await http.get(_NODES, params={"limit": "1"})).json()["metadata"]
    old = page["resourceVersion"]
    async with http.stream("GET", _NODES, params={"watch": "true", "resourceVersion": old}) as response:
        lines = response.aiter_lines()
        server.put(_node("d"))
        assert json.loads(await anext(lines))["object"]["metadata"]["name"] == "d"
        server.storage.compact()
        server.put(_node("e"))
        assert json.loads(await anext(lines))["object"]["metadata"]["name"] == "e"
    gone = [
        {"limit": "1", "continue": page["continue"]},
        {"resourceVersion": old, "resourceVersionMatch": "Exact"},
        {"watch": "true", "resourceVersion": old},
    ]
    assert [(await http.get(_NODES, params=query)).status_code for query in gone] == [410] * 3


async def test_requests_and_bytes_are_counted(server: ApiServer, http: httpx.AsyncClient) -> None:
    """By verb and resource, in both directions; watches as their lines go out."""
    async with http.stream("GET", _NODES, params={"watch": "true"}) as response:
        made = await http.post(_NODES, json=_node("n"))
        await anext(response.aiter_lines())
    await http.get(f"{_NODES}/none")
    assert server.traffic.requests == {"watch nodes": 1, "create nodes": 1, "get nodes": 1}
    assert server.traffic.sent["create nodes"] == len(made.content)
    assert server.traffic.sent["watch nodes"] > len(made.content)
    assert server.traffic.received["create nodes"] == len(json.dumps(_node("n"), separators=(",", ":")))
    assert server.traffic.refused == {404: 1}
    assert server.traffic.writes() == 1


async def test_a_server_that_is_not_ready(server: ApiServer, http: httpx.AsyncClient) -> None:
    """/readyz says so."""
    server.ready = False
    assert (await http.get("/readyz")).status_code == 500


async def test_objects_put_by_tests_pass_every_check(server: ApiServer, http: httpx.AsyncClient) -> None:
    """As objects that were stored before a schema was made stricter."""
    server.put({**_node("n"), "status": "nonsense"})
    assert (await http.get(f"{_NODES}/n")).json()["status"] == "nonsense"


async def test_many_watchers_see_every_change(server: ApiServer) -> None:
    """In order, each of them; a line is made once for all."""
    count = 50
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=20) as http:

        async def watch() -> list[str]:
            async with http.stream("GET", _NODES, params={"watch": "true"}) as response:
                lines = response.aiter_lines()
                return [json.loads(await anext(lines))["object"]["metadata"]["name"] for _ in range(20)]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(watch()) for _ in range(count)]
            while server.watches() < count:
                await asyncio.sleep(0)
            for number in range(20):
                server.put(_node(f"n{number}"))
    names = [f"n{number}" for number in range(20)]
    assert all(task.result() == names for task in tasks)


async def test_a_refusal_of_any_kind(server: ApiServer, http: httpx.AsyncClient) -> None:
    """The Status that the test wants."""
    server.faults.refuse(Refused(418, "Teapot", "short and stout"))
    answer = await http.get(_NODES)
    assert (answer.status_code, answer.json()["reason"]) == (418, "Teapot")
