"""The phase machine: every act in every phase, and any sequence of acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from imagecached.errors import FailedPrecondition
from imagecached.imagecache import (
    MAX_EVENTS,
    PHASES,
    ImageCache,
    Phase,
    Status,
    parse_object,
    parse_status,
    status_document,
)
from imagecached.imagecache import phases as machine
from imagecached.imagecache.status import Bytes
from tests.unit.imagecache.building import NOW, built, cache, edited, manifest, status

CACHE = cache("c", "nginx:1", "busybox")
ACTS: dict[machine.Act, Callable[[ImageCache, Status], Status]] = {
    "begin": lambda declared, now: machine.begin(declared, now, NOW + 60),
    "resolve": lambda declared, now: machine.resolve(declared, now, built(declared), NOW + 60),
    "advance": lambda declared, now: machine.advance(declared, now, NOW + 60, moved=Bytes(100, 50, 20, 30)),
    "finish": lambda declared, now: machine.finish(declared, now, NOW + 60),
    "fail": lambda declared, now: machine.fail(declared, now, NOW + 60, reason="Unavailable", message="m"),
    "refuse": lambda _, now: machine.refuse(now, NOW + 60, cache_id=CACHE.id, message="spec.images: no"),
}
ALLOWED: dict[tuple[machine.Act, Phase], Phase] = {
    ("begin", "Pending"): "Pending",
    ("begin", "Creating"): "Pending",
    ("begin", "Failed"): "Pending",
    ("begin", "Ready"): "Updating",
    ("begin", "Updating"): "Updating",
    ("begin", "UpdateFailed"): "Updating",
    ("resolve", "Pending"): "Creating",
    ("resolve", "Updating"): "Updating",
    ("advance", "Creating"): "Creating",
    ("advance", "Updating"): "Updating",
    ("finish", "Creating"): "Ready",
    ("finish", "Updating"): "Ready",
    ("fail", "Pending"): "Failed",
    ("fail", "Creating"): "Failed",
    ("fail", "Updating"): "UpdateFailed",
    ("refuse", "Pending"): "Failed",
    ("refuse", "Creating"): "Failed",
    ("refuse", "Failed"): "Failed",
    ("refuse", "Ready"): "UpdateFailed",
    ("refuse", "Updating"): "UpdateFailed",
    ("refuse", "UpdateFailed"): "UpdateFailed",
}


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("act", ACTS)
def test_every_act_in_every_phase(act: machine.Act, phase: Phase) -> None:
    """What the table allows happens; every other act is refused by name and changes nothing."""
    before = status(CACHE, phase)
    after = ALLOWED.get((act, phase))
    if after is None:
        with pytest.raises(FailedPrecondition, match=f"cannot {act} a cache that is {phase}, only "):
            ACTS[act](CACHE, before)
    else:
        assert ACTS[act](CACHE, before).phase == after


def test_the_way_to_ready() -> None:
    """Declared, resolved, built: what each step shows."""
    pending = machine.begin(CACHE, Status(), NOW)
    assert (pending.phase, pending.progress, pending.generation) == ("Pending", "0%", 1)
    assert (pending.image_cache_id, pending.start_time) == (CACHE.id, NOW)
    assert [image.image for image in pending.images] == ["nginx:1", "busybox"]
    creating = machine.resolve(CACHE, pending, built(CACHE), NOW + 1)
    half = machine.advance(CACHE, creating, NOW + 2, moved=Bytes(200, 101, 100, 1))
    assert (half.phase, half.progress, half.usable) == ("Creating", "50%", False)
    ready = machine.finish(CACHE, half, NOW + 3)
    assert (ready.phase, ready.progress, ready.usable) == ("Ready", "100%", True)
    assert (ready.serving, ready.serving_generation) == (built(CACHE), 1)
    assert ready.last_updated_time == NOW + 3
    assert [event.name for event in ready.events] == ["Declared", "Resolved", "Ready"]


@pytest.mark.parametrize("phase", ["Updating", "UpdateFailed"])
def test_the_old_generation_serves_on(phase: Phase) -> None:
    """While another generation is built, and after that failed, pods get the one that was built before."""
    now = status(CACHE, phase)
    assert (now.generation, now.serving_generation, now.usable) == (2, 1, True)
    assert now.serving == built(CACHE)
    ready = now.condition("Ready")
    current = now.condition("Current")
    assert ready is not None
    assert current is not None
    assert (ready.status, current.status) == ("True", "False")


def test_an_update_replaces_what_serves() -> None:
    """The new images serve from the moment their build is done, under the same id and start time."""
    newer = edited(replace(CACHE, images=("nginx:2",)))
    updating = machine.begin(newer, status(CACHE, "Ready"), NOW + 1)
    resolved = machine.resolve(newer, updating, built(newer), NOW + 2)
    ready = machine.finish(newer, resolved, NOW + 3)
    assert [image.image for image in ready.serving] == ["nginx:2"]
    assert (ready.generation, ready.serving_generation) == (2, 2)
    assert (ready.image_cache_id, ready.start_time) == (CACHE.id, NOW)


def test_what_is_ignored_is_told() -> None:
    """Fields and annotations without effect are events of the build, so that they show in a cluster too."""
    document = manifest(
        metadata={**manifest()["metadata"], "annotations": {"k8s.aliyun.com/vswitch-ids": "v"}},
        spec={"images": ["nginx:1"], "imageCachSize": 30},
    )
    pending = machine.begin(parse_object(document), Status(), NOW)
    assert [(event.name, event.type, event.message) for event in pending.events] == [
        ("Ignored", "Warning", "spec.imageCachSize is no field of an ImageCache; it is ignored"),
        (
            "Ignored",
            "Warning",
            "metadata.annotations[k8s.aliyun.com/vswitch-ids] has no effect on ordinary nodes",
        ),
        ("Declared", "Normal", "1 image, at most 20 GiB"),
    ]


@pytest.mark.parametrize(
    ("phase", "name", "message"),
    [
        ("Ready", "Updating", "building generation 2; the old one serves on"),
        ("Updating", "Updating", "building generation 3; the old one serves on"),
        ("Creating", "Restarted", "building generation 2 instead"),
        ("Failed", "Restarted", "building generation 2 instead"),
    ],
)
def test_a_new_build_is_told(phase: str, name: str, message: str) -> None:
    """Whether the old images serve meanwhile is what people want to know."""
    newest = machine.begin(edited(CACHE), status(CACHE, phase), NOW).events[-1]
    assert (newest.name, newest.message) == (name, message)


def test_what_holds_a_build_up_is_told_once() -> None:
    """A new reason is an event; the same one with other words, or none any more, is not."""
    now, told = status(CACHE, "Creating"), []
    for reason, message in [
        ("", ""),
        ("Unavailable", "503"),
        ("Unavailable", "502"),
        ("", ""),
        ("NoNodes", "none"),
    ]:
        now = machine.advance(CACHE, now, NOW, moved=Bytes(), reason=reason, message=message)
        told.append((now.message, [event.name for event in now.events[2:]]))
    assert told == [
        ("", []),
        ("503", ["Unavailable"]),
        ("502", ["Unavailable"]),
        ("", ["Unavailable"]),
        ("none", ["Unavailable", "NoNodes"]),
    ]


def test_progress() -> None:
    """It never goes back, never says 100 before the build is done, and is 0 while nothing is known."""
    now = status(CACHE, "Creating")
    shown = []
    for done, total in [(0, 0), (50, 100), (60, 1000), (100, 100), (1, 0)]:
        now = machine.advance(CACHE, now, NOW, moved=Bytes(total, done))
        shown.append(now.progress)
    assert shown == ["0%", "50%", "50%", "99%", "99%"]


def test_needs_build() -> None:
    """A cache is built when it is new, its images change or a refresh is asked for; not otherwise."""
    ready = status(CACHE, "Ready")
    assert machine.needs_build(CACHE, Status())
    assert not machine.needs_build(CACHE, ready)
    assert not machine.needs_build(replace(CACHE, retention_days=3, size_gib=40, generation=9), ready)
    assert machine.needs_build(replace(CACHE, images=("nginx:2",)), ready)
    assert machine.needs_build(edited(CACHE), ready)


def test_edits_without_a_build() -> None:
    """A new retention and the object's generation show at once, and nothing else does."""
    ready = status(CACHE, "Ready")
    assert machine.looked_at(CACHE, ready, NOW + 5) is ready
    seen = machine.looked_at(replace(CACHE, retention_days=2, generation=7), ready, NOW + 5)
    assert (seen.expire_date_time, seen.observed_generation) == (NOW + 2 * 86_400, 7)
    assert (seen.phase, seen.last_updated_time) == ("Ready", NOW + 5)


def test_a_condition_moves_only_with_its_status() -> None:
    """lastTransitionTime says since when, not when it was last looked at."""
    creating = status(CACHE, "Creating", NOW)
    slow = machine.advance(CACHE, creating, NOW + 50, moved=Bytes(10, 1), reason="Unavailable", message="503")
    building = slow.condition("Building")
    assert building is not None
    assert (building.reason, building.message, building.last_transition_time) == ("Unavailable", "503", NOW)
    ready = machine.finish(CACHE, slow, NOW + 99)
    assert [(one.type, one.status, one.last_transition_time) for one in ready.conditions] == [
        ("Ready", "True", NOW + 99),
        ("Building", "False", NOW + 99),
        ("Current", "True", NOW + 99),
    ]


def test_nothing_new_is_the_same_object() -> None:
    """Who writes statuses can tell from identity that there is nothing to write."""
    creating = machine.advance(CACHE, status(CACHE, "Creating"), NOW, moved=Bytes(10, 1, 0, 1))
    assert machine.advance(CACHE, creating, NOW + 9, moved=Bytes(10, 1, 0, 1)) is creating
    assert machine.nodes(CACHE, creating, NOW + 9, ready=0, total=0) is creating
    assert machine.drifted(CACHE, creating, (), NOW + 9) is creating


def test_events_are_bounded_and_counted() -> None:
    """The newest fifty; the same again is counted and becomes the newest."""
    now = status(CACHE, "Pending")
    for number in range(60):
        now = machine.event(now, NOW + number, "Retry", f"attempt {number}", "Warning")
    assert len(now.events) == MAX_EVENTS
    again = machine.event(now, NOW + 100, "Retry", "attempt 30", "Warning")
    assert len(again.events) == MAX_EVENTS
    assert (again.events[-1].message, again.events[-1].count, again.events[-1].timestamp) == (
        "attempt 30",
        2,
        NOW + 100,
    )
    long = machine.event(now, NOW, "Long", "x" * 5000)
    assert len(long.events[-1].message) == 500


@pytest.mark.parametrize("phase", PHASES)
def test_an_object_that_makes_no_sense(phase: Phase) -> None:
    """It says why, serves on if it served, is not written twice, and is built anew once it makes sense."""
    refused = machine.refuse(status(CACHE, phase), NOW + 1, cache_id=CACHE.id, message="spec.images: no")
    assert (refused.reason, refused.message) == ("InvalidSpec", "spec.images: no")
    assert refused.usable == (phase in ("Ready", "Updating", "UpdateFailed"))
    building = refused.condition("Building")
    assert building is not None
    assert (building.status, building.reason) == ("False", "InvalidSpec")
    assert machine.refuse(refused, NOW + 9, cache_id=CACHE.id, message="spec.images: no") is refused
    assert machine.needs_build(CACHE, refused)


def test_drift() -> None:
    """Tags that moved are shown and told once; serving goes on until somebody refreshes."""
    ready = status(CACHE, "Ready")
    moved = machine.drifted(CACHE, ready, ("busybox",), NOW + 1)
    assert (moved.drifted_images, moved.usable) == (("busybox",), True)
    current = moved.condition("Current")
    assert current is not None
    assert (current.status, current.reason) == ("False", "TagsMoved")
    assert moved.events[-1].name == "Drifted"
    assert machine.drifted(CACHE, moved, ("busybox",), NOW + 2) is moved
    assert machine.begin(edited(CACHE), moved, NOW + 3).drifted_images == ()


def test_matched() -> None:
    """A pod's use is remembered, and only of what serves."""
    assert machine.matched(CACHE, status(CACHE, "Updating"), NOW + 7.9).last_matched_time == NOW + 7
    with pytest.raises(FailedPrecondition, match="c is Failed and serves nothing"):
        machine.matched(CACHE, status(CACHE, "Failed"), NOW)


class AnySequence(RuleBasedStateMachine):
    """Whatever is called in whatever order, the promises of the status hold."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = CACHE
        self.status = Status()
        self.now = NOW
        self.history: list[Phase] = []

    def act(self, act: machine.Act, change: Callable[[], Status]) -> None:
        before = self.status
        try:
            self.status = change()
        except FailedPrecondition:
            assert (act, before.phase) not in ALLOWED
            assert self.status is before
            return
        assert ALLOWED[act, before.phase] == self.status.phase

    @rule(seconds=st.integers(-100, 100_000))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(refresh=st.text(max_size=2), images=st.sampled_from([("nginx:1",), ("nginx:2", "busybox")]))
    def somebody_edits(self, refresh: str, images: tuple[str, ...]) -> None:
        self.cache = edited(replace(self.cache, images=images), refresh)

    @rule()
    def begin(self) -> None:
        self.act("begin", lambda: machine.begin(self.cache, self.status, self.now))

    @precondition(lambda self: self.status.generation > 0)
    @rule()
    def resolve(self) -> None:
        self.act("resolve", lambda: machine.resolve(self.cache, self.status, built(self.cache), self.now))

    @precondition(lambda self: self.status.generation > 0)
    @rule(moved=st.builds(Bytes, *[st.integers(0, 1000)] * 4))
    def advance(self, moved: Bytes) -> None:
        before = machine.percent_of(self.status.progress)
        self.act("advance", lambda: machine.advance(self.cache, self.status, self.now, moved=moved))
        assert machine.percent_of(self.status.progress) >= before

    @precondition(lambda self: self.status.generation > 0)
    @rule(failed=st.booleans())
    def end(self, failed: bool) -> None:
        if failed:
            fail: dict[str, Any] = {"reason": "Unavailable", "message": "m"}
            self.act("fail", lambda: machine.fail(self.cache, self.status, self.now, **fail))
        else:
            self.act("finish", lambda: machine.finish(self.cache, self.status, self.now))

    @rule()
    def somebody_breaks_it(self) -> None:
        self.act(
            "refuse",
            lambda: machine.refuse(self.status, self.now, cache_id=self.cache.id, message="no images"),
        )

    @rule(ready=st.integers(0, 3), total=st.integers(0, 3))
    def nodes(self, ready: int, total: int) -> None:
        self.status = machine.nodes(self.cache, self.status, self.now, ready=ready, total=total)

    @invariant()
    def a_cache_that_served_serves(self) -> None:
        assert self.status.usable == bool(self.status.serving)
        assert (self.status.phase in ("Ready", "Updating", "UpdateFailed")) == self.status.usable

    @invariant()
    def it_says_100_when_ready_only(self) -> None:
        if self.status.generation:
            assert (self.status.progress == "100%") == (self.status.phase == "Ready")

    @invariant()
    def it_can_be_written_down(self) -> None:
        assert parse_status(status_document(self.status)) == self.status
        assert len(self.status.events) <= MAX_EVENTS


TestAnySequence = AnySequence.TestCase
