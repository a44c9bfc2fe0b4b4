"""What follows an admission: from the pod that is stored, once, bounded, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from imagecached.errors import AlreadyExists, ImagecachedError, NotFound, Unavailable
from imagecached.kube.client import Kind
from imagecached.kube.recorder import About
from imagecached.kube.webhook.decide import Rules, Seen, Told
from imagecached.kube.webhook.effects import Effects
from tests.unit.imagecache.building import NOW, cache, candidate
from tests.unit.kube.webhook.reviewing import Document, after, asking, decided, known

CACHE = cache("c", "nginx:1")
HIT = Seen("default", "hit", "uid-hit", chosen=CACHE.id)
MISS = Seen("default", "miss", "uid-miss", created="auto-create-for-x")


def stored(name: str, *images: str) -> Document:
    """The pod as the API server has it after its admission."""
    asked = asking(*images)
    pod = after(asked, decided(asked))
    pod["metadata"] |= {"name": name, "uid": f"uid-{name}"}
    return pod


class Server:
    """Pods that are there, and what is written; fails as told."""

    def __init__(self, **failures: ImagecachedError) -> None:
        self.failures = failures
        self.pods = {"hit": stored("hit", "nginx:1"), "miss": stored("miss", "other:1")}
        self.gets: list[str] = []
        self.written: list[tuple[str, Any]] = []

    async def get(self, kind: Kind, name: str, *, namespace: str = "") -> Document:
        self.gets.append(name)
        if name not in self.pods:
            raise NotFound(name)
        return self.pods[name]

    async def create(self, kind: Kind, document: Document, *, namespace: str = "") -> Document:
        self.written.append((kind.kind, document))
        if "create" in self.failures:
            raise self.failures["create"]
        return document

    async def patch_status(self, kind: Kind, name: str, status: Document, *, namespace: str = "") -> Document:
        self.written.append((name, status))
        return status


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Effects]:
    there = known(candidate(CACHE))
    effects = Effects(server, lambda *_: None, lambda: there, Rules(), wall=lambda: NOW, settle=0.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(effects.run())
        yield effects
        task.cancel()


async def test_a_cache_for_the_next_pod() -> None:
    """Made of what the stored pod says; many pods of one image set are one request."""
    server = Server()
    async with running(server) as effects:
        for _ in range(5):
            effects.look_at(MISS)
        await effects.done()
    ((kind, document),) = server.written
    assert (kind, document["spec"]["images"]) == ("ImageCache", ["docker.io/library/other:1"])


@pytest.mark.parametrize("failure", [AlreadyExists("there"), Unavailable("429")])
async def test_a_failure_is_nobodys_problem(failure: ImagecachedError) -> None:
    """Another replica may be faster; other failures are logged. Neither ends the service."""
    server = Server(create=failure)
    async with running(server) as effects:
        effects.look_at(MISS)
        effects.look_at(HIT)
        await effects.done()
    assert [what for what, _ in server.written] == ["ImageCache", "c"]


async def test_the_last_match_is_written_seldom() -> None:
    """Once an hour a cache, and nobody is asked about pods in between."""
    server = Server()
    async with running(server) as effects:
        effects.look_at(HIT)
        await effects.done()
        for _ in range(3):
            effects.look_at(HIT)
        await effects.done()
    assert server.written == [("c", {"lastMatchedTime": "2026-09-21T14:13:20Z"})]
    assert server.gets == ["hit"]


@pytest.mark.parametrize(
    "forged",
    [
        Seen("default", "nobody", "uid", chosen=CACHE.id, created="auto-create-for-x"),
        Seen("default", "miss", "another-uid", created="auto-create-for-x"),
        Seen("default", "miss", "uid-miss", chosen=CACHE.id),
    ],
)
async def test_a_question_proves_nothing(forged: Seen) -> None:
    """Of a pod that is not there, is another, or got something else, only what is true of it follows."""
    server = Server()
    async with running(server) as effects:
        effects.look_at(forged)
        await effects.done()
    assert [what for what, _ in server.written if what == "c"] == []
    if forged.uid != "uid-miss":
        assert server.written == []


async def test_a_pod_that_takes_longer() -> None:
    """It is looked for a few times, and not for ever."""
    server = Server()
    pod = server.pods.pop("hit")

    class Slow(Server):
        async def get(self, kind: Kind, name: str, *, namespace: str = "") -> Document:
            self.gets.append(name)
            if len(self.gets) < 3:
                raise NotFound(name)
            return pod

    slow = Slow()
    async with running(slow) as effects:
        effects.look_at(HIT)
        await effects.done()
    assert len(slow.written) == 1
    async with running(server) as effects:
        effects.look_at(HIT)
        await effects.done()
    assert server.gets == ["hit"] * 3


async def test_events_are_passed_on() -> None:
    """At once, as they are."""
    told: list[Any] = []
    about = About("v1", "Pod", "p", "", "default")
    effects = Effects(Server(), lambda *one: told.append(one), known, Rules())
    effects.tell(Told(about, "R", "m", "Warning"))
    assert told == [(about, "R", "m", "Warning")]


async def test_the_queue_is_bounded() -> None:
    """When nothing can be looked at, what is new is dropped and counted; admission goes on."""
    effects = Effects(Server(), lambda *_: None, known, Rules())
    for _ in range(1100):
        effects.look_at(MISS)
    assert effects.dropped == 100
