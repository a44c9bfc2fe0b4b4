"""A containerd that says which installation it is; names that come twice, from it or the one before it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpclib import Status

from imagecached.errors import Unavailable
from imagecached.snapshotter import generations
from tests.support.snapshots import REF, mounted, names, refused, run_in, served
from tests.unit.store import building

pytestmark = pytest.mark.root

BASE, CONTAINER = "k8s.io/2/sha256:a", "k8s.io/3/container"


@dataclass
class Installation:
    """containerd's introspection; no id: it does not answer."""

    id: str = "first"
    asked: int = 0

    async def __call__(self) -> str:
        self.asked += 1
        if not self.id:
            raise Unavailable("containerd is away")
        return self.id


async def test_it_is_asked_once_per_connection(root: Path) -> None:
    """Before the first name is taken, and not before every one."""
    said = Installation()
    async with served(root, identify=said) as world:
        await world.snapshots.walk()
        assert said.asked == 0
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(world.snapshots.prepare(f"k8s.io/{number}/x"))
        assert said.asked == 1
        with world.connected() as again:
            await again.prepare("k8s.io/9/x")
        assert said.asked == 2


async def test_the_same_one_cannot_take_a_name_twice(root: Path) -> None:
    """Not after it was restarted, nor after we were."""
    said = Installation()
    async with served(root, identify=said) as world:
        await world.snapshots.prepare(CONTAINER)
        async with refused(Status.ALREADY_EXISTS):
            await world.snapshots.prepare(CONTAINER)
        with world.connected() as restarted:
            async with refused(Status.ALREADY_EXISTS):
                await restarted.prepare(CONTAINER)
    async with served(root, identify=said) as world, refused(Status.ALREADY_EXISTS):
        await world.snapshots.prepare(CONTAINER)


async def test_one_that_began_anew_takes_the_names_of_the_old(root: Path, target: Path) -> None:
    """With all that stands on them; what it has made itself it cannot take twice; a prepared chain serves
    both.
    """
    said = Installation()
    async with served(root, identify=said) as world:
        image = world.hold_image("app", building.layer(1))
        infos = await world.snapshots.adopt_image(image)
        with mounted(await world.snapshots.prepare("k8s.io/1/extract"), target):
            run_in(target, "touch old")
        await world.snapshots.commit(BASE, "k8s.io/1/extract", {REF: "sha256:a"})
        await world.snapshots.prepare(CONTAINER, BASE)
        said.id = "second"
        with world.connected() as anew:
            await anew.prepare("k8s.io/1/extract")
            await anew.commit(BASE, "k8s.io/1/extract", {REF: "sha256:a"})
            assert await anew.names() == {infos[0].name, BASE}
            with mounted(await anew.prepare(CONTAINER, BASE), target):
                assert names(target) == []
            assert await anew.adopt_image(image) == infos
            for _ in range(2):
                async with refused(Status.ALREADY_EXISTS):
                    await anew.prepare(CONTAINER)
    async with served(root, identify=said) as world, refused(Status.ALREADY_EXISTS):
        await world.snapshots.prepare(CONTAINER)


async def test_names_of_any_form_are_stale(root: Path) -> None:
    """The age tells, not the looks."""
    said = Installation()
    async with served(root, identify=said) as world:
        await world.snapshots.prepare("anything")
        said.id = "second"
        with world.connected() as anew:
            await anew.prepare("anything")
            async with refused(Status.ALREADY_EXISTS):
                await anew.prepare("anything")


async def test_while_it_does_not_answer_nothing_is_given_away(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New names are taken, old ones wait; what is made meanwhile is not stale when the answer comes, not even
    if we were restarted before that.
    """
    monkeypatch.setattr(generations, "_REST_SECONDS", 0.0)
    said = Installation()
    async with served(root, identify=said) as world:
        await world.snapshots.prepare(CONTAINER)
        said.id = ""
        with world.connected() as silent:
            async with refused(Status.UNAVAILABLE, "ask again"):
                await silent.prepare(CONTAINER)
            await silent.prepare("k8s.io/4/new")
    async with served(root, identify=said) as world:
        await world.snapshots.prepare("k8s.io/5/newer")
        said.id = "second"
        for key in ("k8s.io/4/new", "k8s.io/5/newer"):
            async with refused(Status.ALREADY_EXISTS):
                await world.snapshots.prepare(key)
        await world.snapshots.prepare(CONTAINER)


async def test_numbers_never_fall_below_what_was_noted(root: Path) -> None:
    """The newest records are gone, the store is opened again: a new one is not taken for an old one."""
    said = Installation()
    async with served(root, identify=said) as world:
        for number in range(3):
            await world.snapshots.prepare(f"k8s.io/{number}/x")
        said.id = "second"
        with world.connected() as anew:
            await anew.prepare("k8s.io/7/x")
            for key in ("k8s.io/7/x", "k8s.io/2/x", "k8s.io/1/x", "k8s.io/0/x"):
                await anew.remove(key)
            await anew.cleanup()
    async with served(root, identify=said) as world:
        await world.snapshots.prepare("k8s.io/1/x")
        async with refused(Status.ALREADY_EXISTS):
            await world.snapshots.prepare("k8s.io/1/x")
