"""The controller as a whole: what users, nodes and registries see of it when all goes well."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from imagecached.errors import Unavailable
from imagecached.imagecache import EVERYBODY, Quota, cache_id, timestamp
from imagecached.kube.controller import Settings
from tests.fakes.virtual import wall
from tests.unit.kube.controller.building import DIGEST
from tests.unit.kube.controller.conftest import Play, World

DAY = 86_400


def test_a_cache_becomes_ready(play: Play) -> None:
    """An id at once, digests that all nodes share, and Ready when every node holds it."""

    async def scene(world: World) -> None:
        world.lead()
        await asyncio.sleep(1)
        world.declare()
        await asyncio.sleep(1)
        status = world.status()
        assert status.phase == "Creating"
        assert status.image_cache_id == cache_id(world.object()["metadata"]["uid"])
        assert status.images[0].digest is not None
        await asyncio.sleep(60)
        status = world.status()
        assert (status.phase, status.progress) == ("Ready", "100%")
        assert (status.nodes_ready, status.nodes_total) == (3, 3)
        assert status.serving == status.images
        assert world.labels("n0") == {
            "imagecached.dev/handler": "ready",
            f"imagecached.dev/{status.image_cache_id}": "ready",
        }
        assert [event.name for event in status.events] == ["Declared", "Resolved", "Ready"]
        assert world.events("Ready") != []

    play(scene)


def test_the_id_is_there_before_any_registry_is_asked(play: Play) -> None:
    """Users see it in the first answer of kubectl, also when the registry does not answer."""

    async def scene(world: World) -> None:
        world.registries.errors["web"] = Unavailable("no route")
        world.lead()
        world.declare()
        await asyncio.sleep(1)
        status = world.status()
        assert (status.phase, status.reason) == ("Pending", "RegistryUnavailable")
        assert status.image_cache_id == cache_id(world.object()["metadata"]["uid"])

    play(scene)


def test_steady_state_is_silent(play: Play) -> None:
    """No request but watches: nothing is polled, nothing is written again."""

    async def scene(world: World) -> None:
        world.lead()
        for number in range(5):
            world.declare(f"c{number}")
        await asyncio.sleep(600)
        world.server.traffic.reset()
        await asyncio.sleep(3600)
        assert {name for name in world.server.traffic.requests if not name.startswith("watch")} == set()

    play(scene)


def test_nodes_fetch_what_was_resolved_once(play: Play) -> None:
    """A tag that moves while nodes fetch must not give two nodes two images."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(2)
        before = world.status().images
        world.registries.pushed["registry.example/web:1"] = 1
        await asyncio.sleep(60)
        assert world.status().serving == before
        assert len([each for each in world.registries.asked if each[0] == "linux/amd64"]) == 1

    play(scene)


def test_every_platform_among_the_nodes_is_resolved(play: Play) -> None:
    """And the index is pinned, so that a platform that joins later gets the same image."""

    async def scene(world: World) -> None:
        found = world.server.get("nodes", "n0")
        info = {**found["status"]["nodeInfo"], "architecture": "arm64"}
        world.server.put({**found, "status": {**found["status"], "nodeInfo": info}})
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        (image,) = world.status().images
        assert len(image.manifest_digests) == 2
        assert [each[0] for each in world.registries.asked] == ["linux/amd64", "linux/arm64"]
        assert world.registries.asked[1][1].endswith(f"@{image.digest}")

    play(scene)


def test_an_edit_builds_beside_what_serves(play: Play) -> None:
    """The id stays, the old generation serves until the new one is everywhere."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        first = world.status()
        world.declare("web", "registry.example/web:2")
        await asyncio.sleep(2)
        status = world.status()
        assert (status.phase, status.usable) == ("Updating", True)
        assert status.serving == first.serving
        assert len(world.labels("n0")) == 2
        await asyncio.sleep(60)
        status = world.status()
        assert (status.phase, status.serving_generation) == ("Ready", 2)
        assert status.image_cache_id == first.image_cache_id
        assert status.serving != first.serving

    play(scene)


def test_the_refresh_annotation_asks_the_registry_again(play: Play) -> None:
    """That is how a moved tag is followed."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        first = world.status()
        world.registries.pushed["registry.example/web:1"] = 1
        world.declare("web", annotations={"imagecached.dev/refresh": "now"})
        await asyncio.sleep(60)
        status = world.status()
        assert (status.phase, status.generation) == ("Ready", 2)
        assert status.serving[0].digest != first.serving[0].digest

    play(scene)


def test_a_flash_cache_is_ready_with_its_first_node(play: Play) -> None:
    """The other nodes go on fetching."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare(annotations={"k8s.aliyun.com/imc-enable-flash": "true"})
        await asyncio.sleep(30)
        status = world.status()
        assert (status.phase, status.nodes_ready, status.nodes_total) == ("Ready", 1, 3)
        await asyncio.sleep(1000)
        status = world.status()
        assert (status.nodes_ready, status.message) == (3, "")

    play(scene, seconds=lambda node, _: 20.0 if node == "n1" else 500.0)


def test_a_rollout_lets_in_a_bounded_number_of_nodes(play: Play) -> None:
    """The registry sees twenty nodes at once, not two hundred; whoever comes later need not wait."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(1000)
        assert world.status().phase == "Ready"
        assert world.fleet.most_fetching["web"] <= 20
        assert world.status().rollout_window == EVERYBODY

    play(scene, nodes=200)


def test_selectors_say_whom_a_cache_is_for(play: Play) -> None:
    """Other nodes are neither waited for nor counted."""

    async def scene(world: World) -> None:
        world.fleet.join("gpu", pool="gpu")
        world.lead()
        world.declare(annotations={"imagecached.dev/node-selector": "pool=gpu"})
        await asyncio.sleep(60)
        assert (world.status().phase, world.status().nodes_total) == ("Ready", 1)
        assert len(world.labels("gpu")) == 2
        assert len(world.labels("n0")) == 1

    play(scene)


def test_nodes_that_come_later_do_not_make_a_cache_unready(play: Play) -> None:
    """They catch up, and are counted when they have."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        world.fleet.join("late")
        for _ in range(30):
            await asyncio.sleep(1)
            assert world.status().phase == "Ready"
        await asyncio.sleep(60)
        assert (world.status().nodes_ready, world.status().nodes_total) == (4, 4)
        assert len(world.labels("late")) == 2

    play(scene)


def test_drift_of_tags_is_shown_and_not_followed(play: Play) -> None:
    """Whoever wants the new image says so; a digest cannot drift and is not asked for."""

    async def scene(world: World) -> None:
        pinned = f"registry.example/db@{DIGEST}"
        world.lead()
        world.declare("web", "registry.example/web:1", pinned)
        await asyncio.sleep(60)
        before = world.status().serving
        world.registries.pushed["registry.example/web:1"] = 1
        world.registries.asked.clear()
        await asyncio.sleep(7 * 3600)
        status = world.status()
        assert status.drifted_images == ("registry.example/web:1",)
        assert (status.phase, status.serving) == ("Ready", before)
        assert {each[1] for each in world.registries.asked} == {"registry.example/web:1"}
        del world.registries.pushed["registry.example/web:1"]
        await asyncio.sleep(7 * 3600)
        assert world.status().drifted_images == ()

    play(scene)


def test_a_cache_goes_when_its_days_are_over(play: Play) -> None:
    """And its labels with it."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare(retentionDays=2)
        await asyncio.sleep(60)
        assert world.status().expire_date_time is not None
        await asyncio.sleep(2 * DAY - 120)
        assert len(world.caches()) == 1
        await asyncio.sleep(180)
        assert world.caches() == []
        assert world.labels("n0") == {"imagecached.dev/handler": "ready"}
        assert world.events("Expired") != []

    play(scene)


def test_automatic_caches_go_when_nobody_wants_them(play: Play) -> None:
    """Seven days unused, or thirty days after the last pod; manual ones stay."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare("manual")
        for name in ("unused", "used"):
            world.declare(name, labels={"imagecached.dev/automatic": "true"})
        await asyncio.sleep(60)
        found = world.object("used")
        matched = {**found["status"], "lastMatchedTime": timestamp(wall())}
        world.server.put({**found, "status": matched})
        await asyncio.sleep(7 * DAY)
        assert {each["metadata"]["name"] for each in world.caches()} == {"manual", "used"}
        await asyncio.sleep(23 * DAY + 60)
        assert {each["metadata"]["name"] for each in world.caches()} == {"manual"}

    play(scene)


def test_too_many_automatic_caches_push_out_the_longest_unused(play: Play) -> None:
    """Never a manual one, unless it asked for it."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare("manual")
        world.declare("willing", annotations={"imagecached.dev/elimination-strategy": "LRU"})
        for number in range(4):
            world.declare(f"auto{number}", labels={"imagecached.dev/automatic": "true"})
            await asyncio.sleep(60)
        names = {each["metadata"]["name"] for each in world.caches()}
        assert names == {"manual", "willing", "auto2", "auto3"}
        world.declare("more")
        await asyncio.sleep(60)
        assert {each["metadata"]["name"] for each in world.caches()} == {"manual", "more", "auto2", "auto3"}

    play(scene, settings=Settings(quota=Quota(manual=2, automatic=2)))


def test_the_report_of_a_node_that_is_gone_for_good_is_removed(play: Play) -> None:
    """After some time: a node object may be made anew. The cache does not wait for it."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(5)
        world.fleet.leave("n2")
        await asyncio.sleep(60)
        assert (world.status().phase, world.status().nodes_total) == ("Ready", 2)
        assert len(world.server.all("nodeimagecaches.imagecached.dev")) == 3
        await asyncio.sleep(700)
        assert len(world.server.all("nodeimagecaches.imagecached.dev")) == 2

    play(scene)


def test_the_object_stays_small(play: Play) -> None:
    """Twenty images with the longest names and a long history: far below 64 KiB, the history gives way."""

    async def scene(world: World) -> None:
        images = [f"registry.example/{'p' * 200}/{'q' * 40}{number:02}:{'t' * 128}" for number in range(20)]
        world.lead()
        world.declare("web", *images)
        await asyncio.sleep(60)
        for number in range(30):
            annotations = {"imagecached.dev/refresh": str(number), "note": "x" * 20_000}
            world.declare("web", *images, annotations=annotations)
            await asyncio.sleep(60)
        assert world.status().phase == "Ready"
        assert len(json.dumps(world.object())) < 64 << 10
        assert len(msgspec.json.encode(world.object())) < 64 << 10

    play(scene)


@pytest.mark.parametrize("images", [1, 20])
def test_what_an_object_costs(play: Play, images: int) -> None:
    """An ordinary cache is a few KiB: every write of it goes to every node."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare(
            "web", *[f"registry.example.com/team/app-{number}:v1.2.{number}" for number in range(images)]
        )
        await asyncio.sleep(60)
        assert len(msgspec.json.encode(world.object())) < 3000 + images * 600

    play(scene)
