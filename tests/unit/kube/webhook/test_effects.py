"""What follows an admission: once, bounded, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from imagecached.errors import AlreadyExists, ImagecachedError, Unavailable
from imagecached.imagecache import Creation, ImageCache
from imagecached.kube.client import Kind
from imagecached.kube.recorder import About
from imagecached.kube.webhook.decide import Admitted, Told
from imagecached.kube.webhook.effects import Effects
from imagecached.kube.webhook.review import Answer
from tests.unit.imagecache.building import NOW, cache

CREATION = Creation("auto-create-for-x", ("docker.io/library/a:1",), 30, ("default:s",), "default/p")


class Written:
    """A writer that remembers, and fails as told."""

    def __init__(self, failure: ImagecachedError | None = None) -> None:
        self.failure = failure
        self.documents: list[tuple[str, Any]] = []

    async def create(self, kind: Kind, document: dict[str, Any], *, namespace: str = "") -> dict[str, Any]:
        self.documents.append((kind.kind, document))
        if self.failure:
            raise self.failure
        return document

    async def patch_status(
        self, kind: Kind, name: str, status: dict[str, Any], *, namespace: str = ""
    ) -> dict[str, Any]:
        self.documents.append((name, status))
        return status


@asynccontextmanager
async def running(writer: Written) -> AsyncIterator[Effects]:
    effects = Effects(writer, lambda *told: writer.documents.append(("told", told)), wall=lambda: NOW)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(effects.run())
        yield effects
        task.cancel()


def admitted(create: Creation | None = None, matched: ImageCache | None = None) -> Admitted:
    return Admitted(Answer(), "none", matched, create)


async def test_an_automatic_cache_is_asked_for_once() -> None:
    """Many pods of one image set at once are one request; those after it find the cache there."""
    writer = Written()
    async with running(writer) as effects:
        for _ in range(5):
            effects.take(admitted(CREATION))
        await effects.done()
    assert writer.documents == [("ImageCache", CREATION.document())]


async def test_a_cache_that_exists_is_what_was_wanted() -> None:
    """Another replica may be faster; other failures are logged, and none ends the service."""
    for failure in (AlreadyExists("there"), Unavailable("429")):
        writer = Written(failure)
        async with running(writer) as effects:
            effects.take(admitted(CREATION))
            effects.take(admitted(matched=cache()))
            await effects.done()
        assert len(writer.documents) == 2


async def test_the_last_match_is_written_seldom() -> None:
    """Once an hour a cache: every write of a status goes to every node."""
    writer = Written()
    async with running(writer) as effects:
        for _ in range(3):
            effects.take(admitted(matched=cache("a")))
            effects.take(admitted(matched=cache("b")))
        await effects.done()
    assert writer.documents == [
        ("a", {"lastMatchedTime": "2026-09-21T14:13:20Z"}),
        ("b", {"lastMatchedTime": "2026-09-21T14:13:20Z"}),
    ]


async def test_events_are_passed_on() -> None:
    """Refusals are told at once."""
    writer = Written()
    about = About("v1", "Pod", "p", "", "default")
    effects = Effects(writer, lambda *told: writer.documents.append(("told", told)))
    effects.take(Admitted(Answer(allowed=False), "not-found", tell=(Told(about, "R", "m", "Warning"),)))
    assert writer.documents == [("told", (about, "R", "m", "Warning"))]


async def test_the_queue_is_bounded() -> None:
    """When nothing can be written, what is new is dropped and counted; admission goes on."""
    effects = Effects(Written(), lambda *_: None)
    for number in range(1100):
        effects.take(admitted(matched=cache(f"c{number}")))
    assert effects.dropped == 100
