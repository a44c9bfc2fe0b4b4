"""Clocks that jump, disks that fill, caches that are too many, tags that move: what goes and what stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from imagecached.caches import Settings
from imagecached.errors import FailedPrecondition, NotFound, OutOfSpace
from imagecached.imagecache import PodImages, Quota
from imagecached.store import StorePolicy
from tests.fakes import faults
from tests.unit.caches.conftest import Node, cache, layer
from tests.unit.caches.test_changing import blob, pinned

DAY = 86400.0
AUTO = {"k8s.aliyun.com/eci-auto-imc": "true"}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two automatic caches at most."""
    return Settings(secrets_dir=tmp_path / "secrets", quota=Quota(manual=2, automatic=2))


async def idle(node: Node) -> None:
    """Until every worker waits."""
    await node.until(lambda: node.calendar.sleepers == len(node.caches.list()), "idle")


async def ready(node: Node, name: str, *layers: bytes, **spec: object) -> None:
    """An applied cache of one image that is Ready."""
    node.fake.put_image(name, "1", layers or [layer(name)])
    await node.caches.apply([cache(name, node.name(f"{name}:1"), **spec)])
    await node.phase(name, "Ready")


async def test_retention_is_over(node: Node) -> None:
    """The cache goes by itself, for good, and the event and the metric say why."""
    await ready(node, "demo", retentionDays=1)
    assert node.caches.status("demo").expire_date_time == node.calendar.wall + DAY
    node.calendar.advance(DAY)
    await node.until(lambda: node.calendar.next == 60)
    node.calendar.advance(60)
    await node.gone("demo")
    await node.until(lambda: node.store.images() == ())
    [event] = [event for event in node.events.recent() if event.kind == "imagecache_removed"]
    assert (event.facts["reason"], event.facts["why"]) == ("Expired", "kept for 1 days")
    assert 'imagecached_cache_removals_total{reason="Expired"} 1.0' in exposition(node)
    await node.restart()
    assert node.caches.list() == ()


def exposition(node: Node) -> str:
    """What a scrape gets."""
    return node.metrics.exposition()[0].decode()


async def test_a_clock_that_was_set_wrong_for_a_moment_deletes_nothing(node: Node) -> None:
    """A time to go must last; by then NTP has put it right."""
    await ready(node, "demo", retentionDays=1)
    await idle(node)
    node.calendar.jump(10 * DAY)
    node.calendar.advance(600)
    await node.until(lambda: node.calendar.next == 60, "confirmation")
    node.calendar.jump(-10 * DAY)
    node.calendar.advance(60)
    await node.until(lambda: node.calendar.next > 60)
    assert node.caches.status("demo").phase == "Ready"


async def test_a_clock_that_is_set_back_stops_no_build(node: Node) -> None:
    """What waits for a moment that is now years away tries at once."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.script("/v2/app/manifests/1", faults.status(503))
    node.declare(cache("demo", node.name("app:1")))
    await node.until(lambda: "imagecache_retry" in node.kinds() and node.calendar.sleepers == 1)
    node.calendar.jump(-10 * 365 * DAY)
    node.calendar.advance(600)
    await node.phase("demo", "Ready")


async def test_tags_that_moved_are_shown(node: Node) -> None:
    """Once per interval, by a request that is no pull; nothing follows the tag; no answer is no news."""
    await ready(node, "demo")
    await idle(node)
    node.fake.put_image("demo", "1", [layer("moved")])
    before = len(node.fake.requests)
    for _ in range(7):
        node.calendar.advance(600)
        await idle(node)
    status = node.caches.status("demo")
    assert status.drifted_images == (node.name("demo:1"),)
    assert [asked.method for asked in node.fake.requests[before:]] == ["HEAD"]
    assert [event.name for event in status.events][-1] == "Drifted"
    node.fake.always("/v2/demo/manifests/1", faults.status(503))
    for _ in range(7):
        node.calendar.advance(600)
        await idle(node)
    assert node.caches.status("demo").drifted_images == (node.name("demo:1"),)
    await node.caches.apply(
        [cache("demo", node.name("demo:1"), annotations={"imagecached.dev/refresh": "1"})]
    )
    node.fake.always("/v2/demo/manifests/1", faults.plainly)
    await node.until(lambda: node.caches.status("demo").phase == "Updating")
    assert node.caches.status("demo").drifted_images == ()


async def choose(node: Node, image: str) -> str:
    """What a container with automatic matching gets."""
    choice = await node.caches.choose(node.name(image), AUTO)
    return choice.name


async def test_a_container_that_found_none_makes_one_for_the_next(node: Node) -> None:
    """By the automatic rules: named after its images, made once; 30 days after its last use it goes."""
    digest = node.fake.put_image("app", "1", [layer("a")])
    assert await choose(node, "app:1") == node.name("app:1")
    [view] = node.caches.list()
    assert view.name.startswith("auto-create-for-")
    assert view.cache is not None
    assert (view.cache.options.automatic, view.cache.size_gib) == (True, 30)
    await choose(node, "app:1")
    assert len(node.caches.list()) == 1
    await node.phase(view.name, "Ready")
    node.calendar.advance(6 * DAY)
    assert await choose(node, "app:1") == node.name(f"app@{digest}")
    matches = [
        line for line in exposition(node).splitlines() if line.startswith("imagecached_cache_matches_total")
    ]
    assert sorted(line for line in matches if not line.endswith(" 0.0")) == [
        'imagecached_cache_matches_total{result="full"} 1.0',
        'imagecached_cache_matches_total{result="missed"} 2.0',
    ]
    node.calendar.advance(29 * DAY)
    await idle(node)
    assert len(node.caches.list()) == 1
    node.calendar.advance(DAY)
    await node.until(lambda: node.calendar.next == 60)
    node.calendar.advance(60)
    await node.gone(view.name)


async def test_of_too_many_automatic_caches_the_longest_unused_goes(node: Node) -> None:
    """Never one that somebody made by hand."""
    await ready(node, "manual")
    names: list[str] = []
    for number in range(3):
        node.calendar.advance(10)
        node.fake.put_image(f"app{number}", "1", [layer(f"app{number}")])
        await choose(node, f"app{number}:1")
        names += [view.name for view in node.caches.list() if view.name not in ("manual", *names)]
        await node.phase(names[-1], "Ready", "Pending", "Creating")
        if number < 2:
            await node.phase(names[-1], "Ready")
    await node.gone(names[0])
    assert {view.name for view in node.caches.list()} == {"manual", *names[1:]}
    assert 'imagecached_cache_removals_total{reason="TooMany"} 1.0' in exposition(node)


async def test_too_many_made_by_hand_are_refused(node: Node) -> None:
    """Before anything is declared; those that may go make room, the longest unused first; edits are free."""
    await ready(node, "a")
    await ready(node, "b")
    more = cache("c", node.name("a:1"))
    with pytest.raises(FailedPrecondition, match="3 ImageCaches are more than the 2 of caches"):
        await node.caches.apply([more])
    assert [view.name for view in node.caches.list()] == ["a", "b"]
    lru = {"imagecached.dev/elimination-strategy": "LRU"}
    await node.caches.apply([cache("a", node.name("a:1"), annotations=lru)])
    await node.caches.apply([more])
    await node.gone("a")
    await node.phase("c", "Ready")
    assert [view.name for view in node.caches.list()] == ["b", "c"]


async def test_an_explicit_id_must_be_ready(node: Node) -> None:
    """Else the container is refused with which and why; the image it names is taken by digest."""
    digest = node.fake.put_image("app", "1", [layer("a")])
    node.fake.script("/v2/app/manifests/1", faults.status(503))
    node.declare(cache("demo", node.name("app:1")))
    await node.until(lambda: node.kinds()[-1:] == ["imagecache_retry"])
    wanted = {"k8s.aliyun.com/eci-imc-id": node.caches.view("demo").id}
    with pytest.raises(FailedPrecondition, match=r"ImageCache demo \(imc-.*\) is Pending, not Ready"):
        await node.caches.choose(node.name("app:1"), wanted)
    with pytest.raises(NotFound, match="imc-0000 does not exist"):
        await node.caches.choose(node.name("app:1"), {"k8s.aliyun.com/eci-imc-id": "imc-0000"})
    node.calendar.advance(600)
    await node.phase("demo", "Ready")
    assert (await node.caches.choose(node.name("app:1"), wanted)).name == node.name(f"app@{digest}")
    assert (await node.caches.choose(node.name("other:1"), wanted)).name == node.name("other:1")
    assert (await node.caches.choose(node.caches.view("demo").id, {})).name == node.name(f"app@{digest}")
    assert node.caches.decide(PodImages("Pod", "", "", (node.name("app:1"),), auto=True)).outcome == "full"


def fill(node: Node, share: float) -> None:
    """Make what is used now this share of the quota."""
    used = node.store.usage().disk_bytes
    quota = int(used / share)
    node.policy = StorePolicy(quota_bytes=quota, free_bytes=0, gc_high=0.9, gc_low=0.8)
    node.store._state.budget.policy = node.policy


async def test_what_is_freed_when_the_disk_fills(node: Node) -> None:
    """First the automatic cache unused for the longest time, then what somebody pulled, never a cache
    made by hand. It is an event and a metric, and it is gone for good.
    """
    await ready(node, "manual", layer("manual", 40_000))
    for name in ("old", "new"):
        node.calendar.advance(100)
        node.fake.put_image(name, "1", [layer(name, 40_000)])
        await choose(node, f"{name}:1")
        await node.until(lambda: all(view.status.phase == "Ready" for view in node.caches.list()))
    node.fake.put_image("pulled", "1", [layer("pulled", 40_000)])
    await node.images.pull(node.name("pulled:1")).wait()
    old, new = (view.name for view in sorted(node.caches.list(), key=lambda view: view.created)[1:])
    fill(node, 0.95)
    await node.store.gc()
    await node.gone(old)
    assert {view.name for view in node.caches.list()} == {"manual", new}
    assert node.name("pulled:1") in {image.name for image in node.store.images()}
    [event] = [event for event in node.events.recent() if event.kind == "imagecache_removed"]
    assert (event.subject, event.facts["reason"]) == (old, "DiskPressure")
    fill(node, 2.0)
    await node.store.gc()
    await node.gone(new)
    await node.until(lambda: node.store.usage().images == 2, "only the manual cache's two names")
    await node.restart()
    assert [view.name for view in node.caches.list()] == ["manual"]


async def test_a_full_disk_in_the_middle_of_an_update(node: Node) -> None:
    """The old generation serves, during and after it; nothing of the new one is left; later it works."""
    await ready(node, "demo")
    old = pinned(node)
    node.fake.put_image("demo", "2", [layer("big", 3_000_000)])
    fill(node, 0.5)
    await node.caches.apply([cache("demo", node.name("demo:2"))])
    for _ in range(4):
        await node.until(lambda: node.calendar.sleepers == 1 and node.kinds()[-1] == "imagecache_retry")
        status = node.caches.status("demo")
        assert (status.phase, status.reason, status.usable) == ("Updating", "OutOfSpace", True)
        node.events.emit("imagecache_seen")
        node.calendar.advance(600)
    status = await node.phase("demo", "UpdateFailed")
    assert status.usable
    assert "no room for 2.9 MiB more" in status.message
    await node.until(lambda: pinned(node) == old)
    assert len(node.store.layers()) == 1
    node.store._state.budget.policy = StorePolicy(free_bytes=0)
    assert await node.caches.apply([cache("demo", node.name("demo:2"))]) == {"demo": "restarted"}
    await node.until(lambda: node.caches.status("demo").serving_generation == 3)


async def test_an_image_that_vanished_from_the_registry(node: Node) -> None:
    """What serves needs no registry; a new generation cannot be made without it."""
    await ready(node, "demo")
    del node.fake._manifests["demo"]
    await node.restart()
    assert node.caches.status("demo").usable
    await node.caches.apply(
        [cache("demo", node.name("demo:1"), annotations={"imagecached.dev/refresh": "1"})]
    )
    for _ in range(2):
        await node.until(lambda: node.calendar.sleepers == 1 and node.kinds()[-1] == "imagecache_retry")
        node.events.emit("imagecache_seen")
        node.calendar.advance(600)
    status = await node.phase("demo", "UpdateFailed")
    assert (status.reason, status.usable) == ("ImageNotFound", True)


def secret(node: Node, password: str) -> str:
    """What a pull secret for the fake holds."""
    return json.dumps({"auths": {node.fake.address: {"username": "me", "password": password}}})


async def test_pull_secrets_are_files_here(node: Node, tmp_path: Path) -> None:
    """By namespace and name; a missing or broken one is named, and nothing it holds."""
    node.fake.put_image("app", "1", [layer("a")])
    node.fake.challenge = 'Basic realm="x"'
    node.fake.authorizations = {"Basic bWU6c2VjcmV0"}
    node.declare(cache("demo", node.name("app:1"), imagePullSecrets=["default:regcred"]))
    file = tmp_path / "secrets" / "default" / "regcred"

    async def retried(says: Callable[[str], bool]) -> None:
        await node.until(lambda: node.calendar.sleepers == 1 and says(node.caches.status("demo").message))

    await retried(lambda message: message == f"pull secret {file}: No such file or directory")
    assert node.caches.status("demo").reason == "AccessDenied"
    file.parent.mkdir(parents=True)
    file.write_text(secret(node, "wrong"))
    node.calendar.advance(600)
    await retried(lambda message: "401" in message)
    file.write_text(secret(node, "secret"))
    node.calendar.advance(600)
    await node.phase("demo", "Ready")


async def test_nothing_is_deleted_because_a_file_cannot_be_read(node: Node) -> None:
    """Not before the files were read at all, and not while the file that declared it is broken."""
    await ready(node, "other")
    node.fake.put_image("app", "1", [layer("a")])
    node.declare(cache("demo", node.name("app:1")))
    await node.phase("demo", "Ready")
    await node.restart()
    await idle(node)
    assert {view.name for view in node.caches.list()} == {"demo", "other"}
    node.caches.declare("files", {}, frozenset({"demo.yaml"}))
    await idle(node)
    assert node.caches.status("demo").usable
    node.caches.declare("files", {}, frozenset({"else.yaml"}))
    await node.gone("demo")


async def test_a_worker_that_cannot_write_goes_on(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk what happened is shown, nothing that serves is let go, and it is written later."""
    await ready(node, "demo")
    node.fake.put_image("demo", "2", [layer("second")])
    real = node.store.shelf.put

    async def full(kind: str, key: str, document: bytes) -> None:
        if kind == "imagecache":
            raise OutOfSpace("no room for the database")
        await real(kind, key, document)

    monkeypatch.setattr(node.store.shelf, "put", full)
    before = pinned(node)
    await node.caches.apply([cache("demo", node.name("demo:2"))])
    await node.until(lambda: node.caches.status("demo").serving_generation == 2)
    await asyncio.sleep(0)
    assert before < pinned(node)
    monkeypatch.setattr(node.store.shelf, "put", real)
    await node.caches.apply([cache("demo", node.name("demo:2"), retentionDays=5)])
    await node.until(lambda: node.caches.status("demo").expire_date_time is not None)
    await node.restart()
    assert node.caches.status("demo").serving_generation == 2


async def test_a_cache_of_another_platform(node: Node) -> None:
    """Kept by the platform's own manifest; the tag stays free for this machine's image."""
    arm = node.fake.put_image("app", None, [layer("arm")], config={"architecture": "arm64"})
    amd = node.fake.put_image("app", None, [layer("amd")])
    entries = [
        (arm, {"os": "linux", "architecture": "arm64"}),
        (amd, {"os": "linux", "architecture": "amd64"}),
    ]
    index = node.fake.put_index("app", "1", entries)
    there = cache("arm", node.name("app:1"), annotations={"k8s.aliyun.com/imc-cpu-arch": "arm64"})
    node.declare(there, cache("amd", node.name("app:1")))
    for name in ("arm", "amd"):
        status = await node.phase(name, "Ready")
        assert [image.digest for image in status.serving] == [index]
    assert node.caches.view("arm").names == {node.name("app:1"): node.name(f"app@{arm}")}
    images = {image.name: str(image.platform) for image in node.store.images()}
    assert images == {
        node.name(f"app@{arm}"): "linux/arm64",
        node.name(f"app@{index}"): "linux/amd64",
        node.name("app:1"): "linux/amd64",
    }


async def test_two_caches_of_one_image_share_it(node: Node) -> None:
    """Counted once; it goes with the last of them."""
    node.fake.put_image("app", "1", [layer("a")])
    node.declare(cache("a", node.name("app:1")), cache("b", node.name("app:1")))
    await node.phase("a", "Ready")
    await node.phase("b", "Ready")
    assert len(node.fake.asked(blob("app", "a"))) == 1
    node.declare(cache("b", node.name("app:1")))
    await node.gone("a")
    await node.until(lambda: len({pin.owner for pin in node.store.pins()}) == 1)
    assert len(node.store.images()) == 2
    node.declare()
    await node.gone("b")
    await node.until(lambda: node.store.images() == ())
