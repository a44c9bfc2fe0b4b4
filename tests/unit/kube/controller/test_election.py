"""Leading by a Lease, against the emulated API server and in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from imagecached.kube.client import Pace
from imagecached.kube.controller.election import Election
from imagecached.kube.controller.lease import Terms
from tests.fakes.virtual import run, wall
from tests.support.apiserver import ApiServer, calls
from tests.support.direct import Direct, direct

LEASES = "leases.coordination.k8s.io"


class Stage:
    """Candidates on one server; ``log`` says who began and ended when, ``leading`` who works now."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.log: list[tuple[float, str, str]] = []
        self.leading: set[str] = set()
        self.most = 0
        self.wires: dict[str, Direct] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def candidate(self, name: str, *, skew: float = 0.0, request: float = 5.0) -> Election:
        """One with a clock of its own, off by ``skew``."""
        loop = asyncio.get_running_loop()
        wire = self.wires[name] = Direct(self.server)
        cluster = direct(self.server, pace=Pace(request=request, monotonic=loop.time), transport=wire)
        return Election(
            cluster, name, name="imagecached-controller", namespace="default", terms=Terms(),
            wall=lambda: wall() + skew, jitter=random.Random(1),
        )  # fmt: skip

    async def work(self, name: str) -> None:
        """A leader's work: to be there."""
        clock = asyncio.get_running_loop().time
        self.leading.add(name)
        self.most = max(self.most, len(self.leading))
        self.log.append((clock(), name, "begins"))
        try:
            await asyncio.Event().wait()
        finally:
            self.leading.discard(name)
            self.log.append((clock(), name, "ends"))

    def start(self, group: asyncio.TaskGroup, name: str, **how: Any) -> asyncio.Task[None]:
        """Let a candidate run."""
        self.tasks.append(group.create_task(self.candidate(name, **how).run(lambda: self.work(name))))
        return self.tasks[-1]

    @property
    def holder(self) -> str:
        """Whom the Lease names."""
        return str(self.server.get(LEASES, "imagecached-controller", "default")["spec"]["holderIdentity"])


def play(scene: Callable[[Stage, asyncio.TaskGroup], Coroutine[Any, Any, None]]) -> Stage:
    """Run ``scene``, then end every candidate that is left as SIGKILL would."""

    async def whole() -> Stage:
        stage = Stage(ApiServer())
        async with asyncio.TaskGroup() as group:
            await scene(stage, group)
            for wire in stage.wires.values():
                wire.cut = True
            for task in stage.tasks:
                task.cancel()
        return stage

    return run(whole())


def test_one_of_two_leads() -> None:
    """And goes on leading, with a write every two seconds and no more."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a")
        await asyncio.sleep(1)
        stage.start(group, "b")
        stage.server.traffic.reset()
        await asyncio.sleep(600)
        assert (stage.leading, stage.holder) == ({"a"}, "a")
        assert stage.server.traffic.writes() <= 301
        assert stage.server.traffic.requests["get leases"] <= 301

    assert play(scene).most == 1


def test_a_leader_that_stops_in_order_is_followed_at_once() -> None:
    """The lease is released after its work has ended."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        first = stage.start(group, "a")
        await asyncio.sleep(1)
        stage.start(group, "b")
        await asyncio.sleep(60)
        first.cancel()
        await asyncio.sleep(3)
        assert stage.leading == {"b"}

    stage = play(scene)
    assert stage.most == 1


def test_a_leader_that_dies_is_followed_after_its_term() -> None:
    """Nobody begins before the record was seen unchanged for as long as it is valid."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a")
        await asyncio.sleep(1)
        stage.start(group, "b")
        await asyncio.sleep(60)
        stage.wires["a"].cut = True
        await asyncio.sleep(30)
        assert stage.leading == {"b"}

    log = play(scene).log
    ended = next(at for at, name, what in log if (name, what) == ("a", "ends"))
    begun = next(at for at, name, what in log if (name, what) == ("b", "begins"))
    assert 61 < ended <= 71 < begun <= 61 + 15 + 3


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0])
def test_clocks_that_differ_by_a_day_do_not_matter(skew: float) -> None:
    """Times in the Lease are for people; we count from what we saw, on a clock of our own."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a", skew=skew)
        await asyncio.sleep(1)
        stage.start(group, "b")
        await asyncio.sleep(600)

    stage = play(scene)
    assert [entry for entry in stage.log if entry[2] == "begins"] == [(0.0, "a", "begins")]


def test_an_outage_shorter_than_the_term_changes_nothing() -> None:
    """The leader works on through it."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a")
        await asyncio.sleep(60)
        stage.server.partition()
        await asyncio.sleep(5)
        stage.server.heal()
        await asyncio.sleep(60)
        assert stage.leading == {"a"}

    assert len([entry for entry in play(scene).log if entry[2] == "begins"]) == 1


def test_a_leader_whose_writes_hang_stops_before_another_may_begin() -> None:
    """A request that gets no answer is not waited for beyond the term of renewing."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a", request=1000.0)
        await asyncio.sleep(60.5)
        stage.server.faults.delay_seconds = 10_000
        await asyncio.sleep(12)
        assert stage.leading == set()

    play(scene)


def test_a_leader_that_finds_another_in_the_lease_stops_at_once() -> None:
    """Somebody with power over the Lease decided so."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a")
        await asyncio.sleep(60)
        lease = stage.server.get(LEASES, "imagecached-controller", "default")
        stage.server.put({**lease, "spec": {**lease["spec"], "holderIdentity": "somebody"}})
        await asyncio.sleep(5)
        assert stage.leading == set()
        await asyncio.sleep(20)
        assert stage.leading == {"a"}  # nobody renewed for somebody

    play(scene)


@pytest.mark.parametrize("fault", ["conflict", "too_many", "break_down", "forbid"])
def test_single_failures_are_tried_again(fault: str) -> None:
    """409, 429, 500 and 403 on the way cost one round each."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a")
        await asyncio.sleep(60)
        matches = calls(plural="leases")
        faults = stage.server.faults
        if fault == "conflict":
            faults.conflict("leases", times=2, matches=matches)
        else:
            getattr(faults, fault)(times=2, matches=matches)
        await asyncio.sleep(60)
        assert stage.leading == {"a"}

    assert len([entry for entry in play(scene).log if entry[2] == "begins"]) == 1


def test_the_lease_that_is_deleted_is_made_anew() -> None:
    """By whoever led, if it is there."""

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        stage.start(group, "a")
        await asyncio.sleep(60)
        stage.server.remove(LEASES, "imagecached-controller", "default")
        await asyncio.sleep(60)
        assert (stage.leading, stage.holder) == ({"a"}, "a")

    play(scene)


def test_work_that_fails_ends_the_candidate_and_frees_the_lease() -> None:
    """A fault of ours must not be hidden by leading on without work."""

    async def fail() -> None:
        raise ValueError("a fault of ours")

    async def scene(stage: Stage, group: asyncio.TaskGroup) -> None:
        with pytest.raises(ValueError, match="a fault of ours"):
            await stage.candidate("a").run(fail)
        assert stage.holder == ""

    play(scene)
