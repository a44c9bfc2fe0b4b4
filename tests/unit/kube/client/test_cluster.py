"""The verbs of the client, and what each refusal of the server becomes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from imagecached.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    FailedPrecondition,
    ImagecachedError,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from imagecached.kube.client import Cluster, Expired, Kind, Object, kinds
from tests.support.apiserver import ApiServer, Refused


def _config(name: str, **data: str) -> Object:
    return {**kinds.CONFIG_MAPS.named(name, "default"), "data": data}


async def test_every_verb(cluster: Cluster) -> None:
    """Create, get, replace, patch, apply, list and delete on documents."""
    made = await cluster.create(kinds.CONFIG_MAPS, _config("one", a="1"), namespace="default")
    assert await cluster.get(kinds.CONFIG_MAPS, "one", namespace="default") == made
    replaced = await cluster.replace(kinds.CONFIG_MAPS, {**made, "data": {"a": "2"}}, namespace="default")
    assert replaced["data"] == {"a": "2"}
    patched = await cluster.patch(kinds.CONFIG_MAPS, "one", {"data": {"b": "3"}}, namespace="default")
    assert patched["data"] == {"a": "2", "b": "3"}
    applied = await cluster.apply(kinds.CONFIG_MAPS, _config("one", a="4"), namespace="default")
    assert applied["data"] == {"a": "4", "b": "3"}
    listed = await cluster.list(kinds.CONFIG_MAPS, namespace="default")
    assert [item["metadata"]["name"] for item in listed.items] == ["one"]
    assert int(listed.version) >= int(applied["metadata"]["resourceVersion"])
    await cluster.delete(kinds.CONFIG_MAPS, "one", namespace="default", uid=made["metadata"]["uid"])
    with pytest.raises(NotFound, match='configmaps "one" not found'):
        await cluster.get(kinds.CONFIG_MAPS, "one", namespace="default")


async def test_our_name_is_on_what_we_write(cluster: Cluster) -> None:
    """The manager is the owner of the fields."""
    made = await cluster.create(kinds.CONFIG_MAPS, _config("one", a="1"), namespace="default")
    assert [entry["manager"] for entry in made["metadata"]["managedFields"]] == ["tester"]


async def test_conflicts(cluster: Cluster) -> None:
    """Taken names are AlreadyExists; stale versions, other uids and fields of others FailedPrecondition."""
    made = await cluster.create(kinds.CONFIG_MAPS, _config("one", a="1"), namespace="default")
    with pytest.raises(AlreadyExists):
        await cluster.create(kinds.CONFIG_MAPS, _config("one"), namespace="default")
    await cluster.patch(kinds.CONFIG_MAPS, "one", {"data": {"a": "2"}}, namespace="default")
    with pytest.raises(FailedPrecondition, match="modified"):
        await cluster.replace(kinds.CONFIG_MAPS, made, namespace="default")
    with pytest.raises(FailedPrecondition):
        await cluster.delete(kinds.CONFIG_MAPS, "one", namespace="default", uid="another")
    stale = made["metadata"]["resourceVersion"]
    with pytest.raises(FailedPrecondition):
        await cluster.delete(kinds.CONFIG_MAPS, "one", namespace="default", version=stale)
    with pytest.raises(FailedPrecondition, match="conflict"):
        await cluster.apply(kinds.CONFIG_MAPS, _config("one", a="9"), namespace="default", force=False)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, InvalidInput),
        (401, AccessDenied),
        (403, AccessDenied),
        (405, Unsupported),
        (413, InvalidInput),
        (415, Unsupported),
        (418, Unsupported),
        (422, InvalidInput),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_refusals(
    cluster: Cluster, server: ApiServer, code: int, expected: type[ImagecachedError]
) -> None:
    """Each code leads to the reaction that fits, and the message says where and why."""
    server.faults.refuse(Refused(code, "Scripted", "scripted words"))
    with pytest.raises(ImagecachedError, match=f"GET /api/v1/nodes/n1: {code} scripted words") as raised:
        await cluster.get(kinds.NODES, "n1")
    assert type(raised.value) is expected


async def test_the_servers_wish_is_kept(cluster: Cluster, server: ApiServer) -> None:
    """Retry-After of a 429, and retryAfterSeconds of a Status."""
    server.faults.too_many(retry_after=7)
    with pytest.raises(Unavailable) as raised:
        await cluster.get(kinds.NODES, "n1")
    assert raised.value.retry_after == 7
    server.faults.refuse(Refused(504, "Timeout", "later", details={"retryAfterSeconds": 3}))
    with pytest.raises(Unavailable) as raised:
        await cluster.get(kinds.NODES, "n1")
    assert raised.value.retry_after == 3


async def test_lists_turn_pages(cluster: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every object once; ``keep`` cuts each of them."""
    monkeypatch.setattr("imagecached.kube.client.cluster._PAGE", 3)
    for number in range(8):
        server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{number}"}, "spec": {"x": 1}})
    listed = await cluster.list(
        kinds.NODES, keep=lambda node: {"metadata": {"name": node["metadata"]["name"]}}
    )
    assert listed.items == [{"metadata": {"name": f"n{number}"}} for number in range(8)]
    assert server.traffic.requests["list nodes"] == 3


async def test_a_list_overtaken_by_history_begins_again(
    cluster: Cluster, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """410 between pages is no error, unless it happens each time."""
    monkeypatch.setattr("imagecached.kube.client.cluster._PAGE", 1)
    for name in ("n1", "n2"):
        server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    second = lambda call: call.verb == "list" and "continue" in call.query  # noqa: E731  one line
    server.faults.refuse(Refused(410, "Expired", "too old"), matches=second)
    assert len((await cluster.list(kinds.NODES)).items) == 2
    server.faults.refuse(Refused(410, "Expired", "too old"), times=3, matches=second)
    with pytest.raises(Unavailable, match="faster than it can be listed"):
        await cluster.list(kinds.NODES)


async def test_a_server_that_does_not_answer(cluster: Cluster, server: ApiServer) -> None:
    """Every request ends within its deadline."""
    never = asyncio.Event()
    server.faults.before = lambda _call: never.wait()
    cluster.pace = replace(cluster.pace, request=0.05)
    with pytest.raises(Unavailable, match="timed out"):
        await cluster.get(kinds.NODES, "n1")


async def test_nobody_there(cluster: Cluster, server: ApiServer, requests: list[tuple[str, str]]) -> None:
    """A partition is Unavailable, counted as a request without an answer."""
    server.partition()
    with pytest.raises(Unavailable, match="GET /api/v1/nodes/n1"):
        await cluster.get(kinds.NODES, "n1")
    assert requests == [("get", "none")]


async def test_requests_are_told(cluster: Cluster, requests: list[tuple[str, str]]) -> None:
    """Verb and code of each request, for the metrics."""
    with pytest.raises(NotFound):
        await cluster.get(kinds.NODES, "n1")
    await cluster.list(kinds.NODES)
    assert requests == [("get", "404"), ("list", "200")]


async def test_a_watch_is_a_stream_of_events(cluster: Cluster, server: ApiServer) -> None:
    """What happened after a version, bookmarks among it; a server that goes away is Unavailable."""
    version = (await cluster.list(kinds.NODES)).version
    server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    events = cluster.watch(kinds.NODES, version)
    first = await anext(events)
    assert (first.kind, first.object["metadata"]["name"]) == ("ADDED", "n1")
    assert (await anext(events)).kind == "BOOKMARK"
    server.partition()
    with pytest.raises(Unavailable):
        [event async for event in events]


@pytest.mark.parametrize("in_stream", [False, True])
async def test_history_that_is_gone(cluster: Cluster, server: ApiServer, in_stream: bool) -> None:
    """410 comes as a status or as an event; both say: list again."""
    version = (await cluster.list(kinds.NODES)).version
    server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    server.storage.compact()
    server.reads.gone_in_stream = in_stream
    with pytest.raises(Expired):
        await anext(cluster.watch(kinds.NODES, version))


async def test_a_dead_watch_is_noticed(cluster: Cluster, server: ApiServer) -> None:
    """Silence, not even a bookmark, ends it."""
    server.reads.bookmark_seconds = 3600
    cluster.pace = replace(cluster.pace, silence=0.05)
    with pytest.raises(Unavailable, match="timed out"):
        await anext(cluster.watch(kinds.NODES, (await cluster.list(kinds.NODES)).version))


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"{}", b'{"items": 1, "metadata": {}}', b"[" * 100_000],
    ids=lambda body: body[:5],
)
async def test_answers_of_something_else(body: bytes) -> None:
    """What is no list is Corrupt, whatever it is."""
    async with _answering(body) as cluster:
        with pytest.raises(Corrupt):
            await cluster.list(kinds.NODES)


async def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than any answer has are not read."""
    monkeypatch.setattr("imagecached.kube.client.answers.MOST_ANSWER_BYTES", 100)
    async with _answering(b" " * 101) as cluster:
        with pytest.raises(Unavailable, match="longer than 100 bytes"):
            await cluster.get(kinds.NODES, "n1")


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": {"metadata": {}}}',
        b'{"type": "STRANGE", "object": {"metadata": {"resourceVersion": "1"}}}',
        b'{"type": "ADDED", "object": []}',
    ],
)
async def test_lines_that_are_no_events(line: bytes) -> None:
    """Corrupt, so that the list is made anew."""
    async with _answering(line + b"\n") as cluster:
        with pytest.raises(Corrupt):
            await anext(cluster.watch(kinds.NODES, "1"))


async def test_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is bounded."""
    monkeypatch.setattr("imagecached.kube.client.watching.MOST_LINE_BYTES", 100)
    async with _answering(b"x" * 101) as cluster:
        with pytest.raises(Corrupt, match="longer than 100 bytes"):
            await anext(cluster.watch(kinds.NODES, "1"))


async def test_half_a_line_at_the_end_is_no_event() -> None:
    """A connection cut in the middle of a line gives what was whole."""
    whole = b'{"type": "ADDED", "object": {"metadata": {"name": "a", "resourceVersion": "5"}}}\n'
    async with _answering(whole + whole[:30]) as cluster:
        assert [event.version async for event in cluster.watch(kinds.NODES, "1")] == ["5"]


@pytest.mark.parametrize("status", [b"null", b"{}", b'{"code": 500, "message": "boom"}', b'{"code": "x"}'])
async def test_error_events(status: bytes) -> None:
    """An ERROR event is an error of ours, however little it says."""
    async with _answering(b'{"type": "ERROR", "object": %s}\n' % status) as cluster:
        with pytest.raises(Unavailable):
            await anext(cluster.watch(kinds.NODES, "1"))


def test_paths() -> None:
    """Core and named groups, with and without a namespace; names cannot leave their place."""
    assert kinds.NODES.path("n1") == "/api/v1/nodes/n1"
    assert kinds.PODS.path() == "/api/v1/pods"
    assert kinds.PODS.path("p", namespace="ns", subresource="status") == "/api/v1/namespaces/ns/pods/p/status"
    assert kinds.LEASES.path(namespace="ns") == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
    assert kinds.SECRETS.path("../x", namespace="a/b") == "/api/v1/namespaces/a%2Fb/secrets/..%2Fx"
    assert Kind("", "v1", "things", "Thing").named("a") == {
        "apiVersion": "v1", "kind": "Thing", "metadata": {"name": "a"},
    }  # fmt: skip


def _answering(body: bytes) -> Any:
    """A client of a server that gives this one answer."""
    import httpx2 as httpx

    return _Open(
        httpx.AsyncClient(
            base_url="http://x", transport=httpx.MockTransport(lambda _: httpx.Response(200, content=body))
        )
    )


class _Open:
    def __init__(self, http: Any) -> None:
        self._http = http

    async def __aenter__(self) -> Cluster:
        return Cluster(self._http, manager="tester")

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
