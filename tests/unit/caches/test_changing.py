"""Updates, failures, restarts, deletions: what serves serves on, and what nobody needs goes."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import pytest

from imagecached.caches import Declared
from imagecached.errors import FailedPrecondition, NotFound
from imagecached.oci.digest import Digest
from imagecached.registry import NOTHING
from tests.fakes import faults
from tests.unit.caches.conftest import Node, cache, layer


def blob(repository: str, name: str) -> str:
    """Where the fake serves the layer ``name``."""
    return f"/v2/{repository}/blobs/{Digest.of(layer(name))}"


def pinned(node: Node) -> set[str]:
    """Names that a pin keeps."""
    return {pin.value for pin in node.store.pins()}


async def test_an_edit_builds_beside_what_serves(node: Node) -> None:
    """The old generation serves until the new one is whole; then its images go, and the id stays."""
    old = node.fake.put_image("app", "1", [layer("old")])
    new = node.fake.put_image("app", "2", [layer("new")])
    gate = asyncio.Event()
    node.fake.script(blob("app", "new"), faults.gated(gate, after=100))
    node.declare(cache("demo", node.name("app:1")))
    await node.phase("demo", "Ready")
    before = node.caches.view("demo").id
    node.declare(cache("demo", node.name("app:2")))
    status = await node.phase("demo", "Updating")
    await node.until(lambda: node.caches.status("demo").bytes.done > 0)
    assert status.usable
    assert [image.digest for image in node.caches.status("demo").serving] == [old]
    gate.set()
    status = await node.phase("demo", "Ready")
    assert [image.digest for image in status.serving] == [new]
    assert node.caches.view("demo").id == before
    await node.until(lambda: pinned(node) == {node.name(f"app@{new}")}, "old pins gone")
    await node.until(lambda: node.collected == 1)
    assert {image.name for image in node.store.images()} == {node.name("app:2"), node.name(f"app@{new}")}
    assert [each.diff_id for each in node.store.layers()] == [Digest.of(layer("new"))]


async def test_the_old_generation_serves_after_a_failed_update(node: Node) -> None:
    """An image that is not there: UpdateFailed says which, the pins of what serves stay, an edit mends it."""
    old = node.fake.put_image("app", "1", [layer("old")])
    node.declare(cache("demo", node.name("app:1")))
    await node.phase("demo", "Ready")
    node.declare(cache("demo", node.name("app:1"), node.name("gone:1")))
    for _ in range(2):
        await node.until(lambda: node.kinds()[-1] == "imagecache_retry")
        node.events.emit("seen")
        node.calendar.advance(600)
        await node.until(lambda: node.events.recent()[-1].kind != "seen")
    status = await node.phase("demo", "UpdateFailed")
    assert status.usable
    assert (status.reason, [image.digest for image in status.serving]) == ("ImageNotFound", [old])
    assert "gone/manifests/1" in status.message
    assert pinned(node) == {node.name(f"app@{old}")}
    node.fake.put_image("gone", "1", [layer("late")])
    node.declare(cache("demo", node.name("app:1"), node.name("gone:1"), annotations=REFRESH))
    assert len((await node.phase("demo", "Ready")).serving) == 2


REFRESH = {"imagecached.dev/refresh": "again"}


async def test_refresh_follows_a_moved_tag(node: Node) -> None:
    """Nothing follows it by itself; the annotation asks for it, and the tag's name moves with it."""
    node.fake.put_image("app", "1", [layer("old")])
    node.declare(cache("demo", node.name("app:1")))
    await node.phase("demo", "Ready")
    new = node.fake.put_image("app", "1", [layer("new")])
    node.declare(cache("demo", node.name("app:1"), retentionDays=9))
    await node.until(lambda: node.caches.status("demo").expire_date_time is not None)
    assert node.caches.status("demo").generation == 1
    node.declare(cache("demo", node.name("app:1"), annotations=REFRESH))
    await node.until(lambda: node.caches.status("demo").serving_generation == 2)
    image = node.store.image(node.name("app:1"))
    assert image is not None
    assert image.target.digest == new


async def test_an_unavailable_registry_is_waited_for(node: Node) -> None:
    """For as long as it takes, not before it asked for, and the status says what holds it up."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.script("/v2/app/manifests/1", faults.status(503, retry_after="120"))
    node.declare(cache("demo", node.name("app:1")))
    await node.until(lambda: "imagecache_retry" in node.kinds())
    status = node.caches.status("demo")
    assert (status.phase, status.reason) == ("Pending", "RegistryUnavailable")
    await node.until(lambda: node.calendar.next == 120)
    node.calendar.advance(119)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(node.fake.asked("/manifests/")) == 1
    node.calendar.advance(1)
    assert (await node.phase("demo", "Ready")).reason == ""


async def test_who_applies_again_does_not_wait_for_the_next_try(node: Node) -> None:
    """The registry is mended, and the user who knows it says so."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.script("/v2/app/manifests/1", faults.status(503, retry_after="120"))
    demo = cache("demo", node.name("app:1"))
    assert await node.caches.apply([demo]) == {"demo": "created"}
    await node.until(lambda: node.calendar.next == 120)
    assert await node.caches.apply([demo]) == {"demo": "restarted"}
    await node.until(lambda: "imagecache_ready" in node.kinds())
    assert await node.caches.apply([demo]) == {"demo": "unchanged"}


async def test_what_cannot_succeed_fails_and_goes_after_a_day(node: Node) -> None:
    """What was fetched for it is let go; it can be looked at for 24 hours, and is not built again after."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.put_manifest("bad", "1", b'{"schemaVersion": 1}')
    node.declare(cache("demo", node.name("app:1"), node.name("bad:1")))
    status = await node.phase("demo", "Failed")
    assert status.expire_date_time == node.calendar.wall + 86400
    assert node.store.pins() == ()
    node.calendar.advance(86400 + 1)
    await node.until(lambda: node.calendar.next == 60, "confirmation")
    node.calendar.advance(60)
    await node.gone("demo")
    asked = len(node.fake.requests)
    await node.restart()
    node.declare(cache("demo", node.name("app:1"), node.name("bad:1")))
    await node.until(lambda: node.calendar.next == 600)
    assert (len(node.fake.requests), node.caches.list()) == (asked, ())
    [problem] = node.caches.over()
    assert str(problem).startswith("demo.yaml: metadata.name: 'demo' expired, or failed a day ago")
    node.declare(cache("demo", node.name("app:1")))
    await node.phase("demo", "Ready")


async def test_too_large_for_its_size_is_found_before_anything_is_fetched(node: Node) -> None:
    """By what the manifests say: compressed bytes are a lower bound."""
    node.fake.put_image("app", "1", [layer("a")])
    document = node.fake.manifest("app", "1")
    document["layers"][0]["size"] = 21 << 30
    node.fake.put_manifest("app", "1", json.dumps(document).encode())
    node.declare(cache("demo", node.name("app:1")))
    status = await node.phase("demo", "Failed")
    assert status.reason == "TooLarge"
    assert "at least 21.0 GiB unpacked, more than imageCacheSize: 20" in status.message
    assert not node.fake.asked(Digest.of(layer("a")))


async def test_a_restart_in_the_middle_goes_on_with_the_same_digests(node: Node) -> None:
    """Even if the tag has moved meanwhile; layers that came before are reused."""
    first = node.fake.put_image("app", "1", [layer("one"), layer("two")])
    gate = asyncio.Event()
    node.fake.script(blob("app", "two"), faults.gated(gate, after=100))
    await node.caches.apply([cache("demo", node.name("app:1"))])
    await node.until(lambda: bool(node.store.layers()), "the first layer")
    node.fake.put_image("app", "1", [layer("three")])
    await node.restart()
    status = await node.phase("demo", "Ready")
    assert ([image.digest for image in status.serving], status.generation) == ([first], 1)
    assert status.bytes.reused == len(layer("one"))
    assert len(node.fake.asked(blob("app", "one"))) == 1


async def test_deleting_frees_what_nobody_else_needs(node: Node) -> None:
    """By name or id; shared layers and what a person pulled stay; the container runtime lets go first."""
    one = node.fake.put_image("one", "1", [layer("base"), layer("one")])
    two = node.fake.put_image("two", "1", [layer("base"), layer("two")])
    await node.images.pull(node.name("two:1")).wait()
    await node.caches.apply(
        [cache("a", node.name("one:1"), node.name("two:1")), cache("b", node.name("two:1"))]
    )
    await node.phase("a", "Ready")
    await node.phase("b", "Ready")
    await node.caches.delete(node.caches.view("a").id)
    await node.gone("a")
    await node.until(lambda: node.collected == 1)
    assert {image.name for image in node.store.images()} == {node.name("two:1"), node.name(f"two@{two}")}
    assert set(node.unregistered) == {node.name("one:1"), node.name(f"one@{one}")}
    assert Digest.of(layer("one")) not in {each.diff_id for each in node.store.layers()}
    await node.caches.delete("b")
    await node.gone("b")
    await node.until(lambda: node.collected == 2)
    assert {image.name for image in node.store.images()} == {node.name("two:1")}
    with pytest.raises(NotFound, match="no ImageCache b"):
        await node.caches.delete("b")
    await node.restart()
    assert node.caches.list() == ()


async def test_what_is_declared_again_while_it_goes(node: Node) -> None:
    """The old worker ends, and the new declaration gets one of its own."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.put_image("app", "2", [layer("b")])
    await node.caches.apply([cache("demo", node.name("app:1"))])
    await node.phase("demo", "Ready")
    for number in (2, 1, 2):
        await node.caches.delete("demo")
        for _ in range(number):
            await asyncio.sleep(0)
        await node.caches.apply([cache("demo", node.name(f"app:{number}"))])
        digest = node.fake.put_image("app", str(number), [layer("ab"[number - 1])])
        await node.until(lambda: serving(node, "demo") == [digest])  # noqa: B023  awaited in this round


def serving(node: Node, name: str) -> list[object]:
    """The digests that serve."""
    return [image.digest for view in node.caches.list() if view.name == name for image in view.status.serving]


async def test_those_who_watch_see_each_change(node: Node) -> None:
    """As it is, every phase, the end; one who watches one cache hears of no other."""
    node.fake.put_image("app", "1", [layer("a")])
    seen: list[str] = []

    async def watch() -> None:
        async with aclosing(node.caches.watch("demo")) as changes:
            async for change in changes:
                seen.append(change if isinstance(change, str) else change.status.phase)  # noqa: PERF401  read meanwhile

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await node.caches.apply([cache("demo", node.name("app:1")), cache("other", node.name("app:1"))])
        await node.until(lambda: "Ready" in seen)
        await node.caches.delete("demo")
        await node.until(lambda: seen[-1].startswith("imc-"))
        watching.cancel()
    assert list(dict.fromkeys(seen))[:3] == ["Pending", "Creating", "Ready"]
    assert len([each for each in seen if each.startswith("imc-")]) == 1


async def test_a_build_ends_when_its_cache_is_deleted(node: Node) -> None:
    """What it was fetching is given up, and nothing of it is left."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.script(blob("app", "a"), faults.stalled(after=100))
    await node.caches.apply([cache("demo", node.name("app:1"))])
    await node.until(lambda: len(list(node.store.layout.ingest.iterdir())) == 1)
    await node.caches.delete("demo")
    await node.gone("demo")
    await node.until(lambda: not list(node.store.layout.ingest.iterdir()) and not node.store.pins())
    assert node.store.images() == ()


async def test_what_a_file_declares_is_not_the_apis(node: Node) -> None:
    """Neither applied nor deleted; once the file is gone, what was applied before counts again."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.put_image("app", "2", [layer("b")])
    await node.caches.apply([cache("demo", node.name("app:1"))])
    await node.phase("demo", "Ready")
    node.declare(cache("demo", node.name("app:2")))
    await node.until(lambda: node.caches.status("demo").serving_generation == 2)
    for act in (node.caches.apply([cache("demo", node.name("app:1"))]), node.caches.delete("demo")):
        with pytest.raises(FailedPrecondition, match=r"declared by demo\.yaml: edit or remove that file"):
            await act
    node.declare()
    await node.until(lambda: node.caches.status("demo").serving_generation == 3)
    assert node.caches.view("demo").source == "api"


async def test_a_controllers_digests_and_turn(node: Node) -> None:
    """Exactly its digests, under its number, when it is this node's turn; it alone decides when it goes."""
    old = node.fake.put_image("app", "1", [layer("old")])
    node.fake.put_image("app", "1", [layer("new")])
    wanted = cache("demo", node.name("app:1"), retentionDays=1)
    digests = {node.name("app:1"): node.name(f"app@{old}")}

    def declare(**more: object) -> None:
        node.caches.declare("cluster", {"demo": Declared(wanted, digests, NOTHING, **more)})  # type: ignore[arg-type]

    declare(may_fetch=False, generation=7)
    await node.until(lambda: node.calendar.next == 600)
    assert node.fake.requests == []
    declare(generation=7)
    status = await node.phase("demo", "Ready")
    assert (status.serving_generation, [image.digest for image in status.serving]) == (7, [old])
    assert {image.name for image in node.store.images()} == {node.name(f"app@{old}")}
    node.calendar.advance(3 * 86400)
    await node.until(lambda: node.calendar.next == 600)
    assert node.caches.status("demo").phase == "Ready"
    declare(generation=8)
    await node.until(lambda: node.caches.status("demo").serving_generation == 8)


async def test_what_was_lost_is_brought_back(node: Node) -> None:
    """A file that fsck took away: the same digest is fetched again, and the cache is Ready all the while."""
    node.fake.put_image("app", "1", [layer("a")])
    node.declare(cache("demo", node.name("app:1")))
    await node.phase("demo", "Ready")
    [lost] = node.store.layers()
    await node.stop()
    lost.path.unlink()
    await node.start()
    node.declare(cache("demo", node.name("app:1")))
    await node.until(lambda: "imagecache_mended" in node.kinds())
    assert len(node.store.layers()) == 1
    assert node.caches.status("demo").serving_generation == 1


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233])
async def test_stopped_at_any_moment_of_an_update(node: Node, turns: int) -> None:
    """Whatever had come about: the next start goes on, ends at the same generation, leaves nothing over."""
    node.fake.put_image("app", "1", [layer("one")])
    two = node.fake.put_image("app", "2", [layer("one"), layer("two")])
    await node.caches.apply([cache("demo", node.name("app:1"))])
    await node.phase("demo", "Ready")
    await node.caches.apply([cache("demo", node.name("app:2"))])
    for _ in range(turns):
        await asyncio.sleep(0)
    await node.stop()
    await node.start()
    await node.until(lambda: serving(node, "demo") == [two])
    await node.until(lambda: pinned(node) == {node.name(f"app@{two}")})
    names = {node.name("app:2"), node.name(f"app@{two}")}
    await node.until(lambda: {image.name for image in node.store.images()} == names)
    assert node.caches.status("demo").serving_generation == 2
    await node.caches.delete("demo")
    await node.gone("demo")
    await node.until(lambda: node.store.images() == () and node.store.pins() == ())
    await node.until(lambda: node.store.shelf.every("brought") == {})
