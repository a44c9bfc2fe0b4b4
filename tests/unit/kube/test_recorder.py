"""Kubernetes Events: what is written, and how little of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imagecached.kube.recorder import About, Recorder
from tests.fakes.virtual import run, wall
from tests.support.apiserver import ApiServer
from tests.support.direct import direct

CACHE = About("eci.alibabacloud.com/v1", "ImageCache", "web", "uid-web")
POD = About("v1", "Pod", "p1", "uid-p1", "shop")


@dataclass
class Outcome:
    """What was written in the end, and how often."""

    events: list[dict[str, Any]]
    traffic: Counter[str]


def scenario(tell: Callable[[Recorder], Any], *, pauses: int = 0, denied: bool = False) -> Outcome:
    """Let ``tell`` speak, ``pauses`` times more with an hour between, and wait until all is written."""

    async def whole() -> Outcome:
        server = ApiServer()
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        if denied:
            server.faults.forbid(times=1000)
        recorder = Recorder(direct(server), "imagecached-controller", "one", wall)
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(recorder.run())
            tell(recorder)
            await recorder.told()
            for _ in range(pauses):
                await asyncio.sleep(3600)
                tell(recorder)
                await recorder.told()
            writer.cancel()
        return Outcome(server.all("events"), server.traffic.requests)

    return run(whole())


def test_an_event_says_who_what_and_when() -> None:
    """Events of objects without namespace live in ``default``, as Kubernetes' own do."""
    found = scenario(lambda recorder: recorder.tell(CACHE, "Ready", "all there"))
    (event,) = found.events
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
    found = scenario(lambda recorder: recorder.tell(POD, "ImageCacheMissed", "none fits", "Warning"))
    (event,) = found.events
    assert event["metadata"]["namespace"] == event["involvedObject"]["namespace"] == "shop"


def test_the_same_words_again_within_a_while_are_not_written() -> None:
    """A loop that fails every second writes one event."""

    def tell(recorder: Recorder) -> None:
        for _ in range(100):
            recorder.tell(CACHE, "RegistryUnavailable", "no route", "Warning")

    assert scenario(tell).traffic == {"create events": 1}


def test_the_same_words_much_later_are_counted_on_the_old_event() -> None:
    """Also when another controller wrote it: its name follows from its words."""
    found = scenario(lambda recorder: recorder.tell(CACHE, "Ready", "again"), pauses=2)
    (event,) = found.events
    assert (event["count"], event["firstTimestamp"]) == (3, "2023-11-14T22:13:20Z")
    assert event["lastTimestamp"] == "2023-11-15T00:13:20Z"


def test_one_object_cannot_flood_the_cluster() -> None:
    """A short burst, then one a minute."""

    def tell(recorder: Recorder) -> None:
        for number in range(200):
            recorder.tell(CACHE, "Noise", f"number {number}")
        recorder.tell(POD, "ImageCacheMissed", "none fits", "Warning")

    found = scenario(tell)
    assert len(found.events) == 25 + 1


def test_what_cannot_be_written_is_dropped() -> None:
    """Events are a courtesy: nobody waits for them, and nothing fails."""
    found = scenario(lambda recorder: recorder.tell(CACHE, "Ready", "x"), denied=True)
    assert found == Outcome([], Counter({"create events": 1}))


def test_long_messages_are_cut() -> None:
    """The API server refuses events that are too long."""
    found = scenario(lambda recorder: recorder.tell(CACHE, "Failed", "x" * 5000, "Warning"))
    (event,) = found.events
    assert len(event["message"]) == 1000
