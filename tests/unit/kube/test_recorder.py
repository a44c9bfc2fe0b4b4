"""Kubernetes Events: what is written, and how little of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from imagecached.errors import AccessDenied, AlreadyExists
from imagecached.kube.recorder import About, Recorder
from tests.fakes.virtual import run, wall

CACHE = About("eci.alibabacloud.com/v1", "ImageCache", "web", "uid-web")
POD = About("v1", "Pod", "p1", "uid-p1", "shop")


class Events:
    """Keeps what is written; ``refuse`` makes every write fail."""

    def __init__(self) -> None:
        self.created: dict[str, dict[str, Any]] = {}
        self.patched: list[tuple[str, Mapping[str, Any]]] = []
        self.refuse: Exception | None = None

    async def create(self, kind: str, document: Mapping[str, Any], *, namespace: str = "") -> Any:
        assert (kind, document["metadata"]["namespace"]) == ("Event", namespace)
        if self.refuse:
            raise self.refuse
        name = document["metadata"]["name"]
        if name in self.created:
            raise AlreadyExists(name)
        self.created[name] = dict(document)

    async def patch(self, kind: str, name: str, patch: Mapping[str, Any], *, namespace: str = "") -> Any:
        self.patched.append((name, patch))


def scenario(tell: Callable[[Recorder], Any], events: Events | None = None, *, pauses: int = 0) -> Events:
    """Let ``tell`` speak, ``pauses`` times more with an hour between, and wait until all is written."""
    events = events or Events()

    async def whole() -> None:
        recorder = Recorder(events, "imagecached-controller", "one", wall)
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(recorder.run())
            tell(recorder)
            await recorder.told()
            for _ in range(pauses):
                await asyncio.sleep(3600)
                tell(recorder)
                await recorder.told()
            writer.cancel()

    run(whole())
    return events


def test_an_event_says_who_what_and_when() -> None:
    """Events of objects without namespace live in ``default``, as Kubernetes' own do."""
    events = scenario(lambda recorder: recorder.tell(CACHE, "Ready", "all there"))
    (event,) = events.created.values()
    assert event["involvedObject"] == {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "name": "web",
        "uid": "uid-web",
    }
    assert event["metadata"]["namespace"] == "default"
    assert (event["reason"], event["message"], event["type"]) == ("Ready", "all there", "Normal")
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2023-11-14T22:13:20Z"


def test_an_event_about_a_pod_lives_in_the_pod_s_namespace() -> None:
    """``kubectl describe pod`` looks for it there."""
    events = scenario(lambda recorder: recorder.tell(POD, "ImageCacheMissed", "none fits", "Warning"))
    (event,) = events.created.values()
    assert event["metadata"]["namespace"] == event["involvedObject"]["namespace"] == "shop"


def test_the_same_words_again_within_a_while_are_not_written() -> None:
    """A loop that fails every second writes one event."""

    def tell(recorder: Recorder) -> None:
        for _ in range(100):
            recorder.tell(CACHE, "RegistryUnavailable", "no route", "Warning")

    assert len(scenario(tell).created) == 1


def test_the_same_words_much_later_are_counted_on_the_old_event() -> None:
    """Also when another controller wrote it: its name follows from its words."""
    events = scenario(lambda recorder: recorder.tell(CACHE, "Ready", "again"), pauses=2)
    assert len(events.created) == 1
    assert [patch["count"] for _, patch in events.patched] == [2, 3]


def test_one_object_cannot_flood_the_cluster() -> None:
    """A short burst, then one a minute."""

    def tell(recorder: Recorder) -> None:
        for number in range(200):
            recorder.tell(CACHE, "Noise", f"number {number}")
        recorder.tell(POD, "ImageCacheMissed", "none fits", "Warning")

    events = scenario(tell)
    assert len(events.created) == 25 + 1


def test_what_cannot_be_written_is_dropped() -> None:
    """Events are a courtesy: nobody waits for them, and nothing fails."""
    events = Events()
    events.refuse = AccessDenied("events is forbidden")
    scenario(lambda recorder: recorder.tell(CACHE, "Ready", "x"), events)
    assert events.created == {}


def test_long_messages_are_cut() -> None:
    """The API server refuses events that are too long."""
    events = scenario(lambda recorder: recorder.tell(CACHE, "Failed", "x" * 5000, "Warning"))
    (event,) = events.created.values()
    assert len(event["message"]) == 1000
