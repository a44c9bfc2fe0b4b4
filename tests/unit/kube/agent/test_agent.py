"""A node that follows its cluster: what it fetches, what it reports, and what it does when things fail."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from imagecached.imagecache import rollout_rank
from tests.fakes import faults
from tests.support.apiserver import calls
from tests.support.apiserver.requests import Call
from tests.unit.kube.agent.conftest import CACHES, REPORTS, World, node_object


async def test_a_resolved_cache_is_fetched_and_reported(world: World) -> None:
    """By exactly the digest that the controller resolved; the report belongs to our Node."""
    image = world.image("app:1")
    world.declare("one", image)
    world.resolve("one")
    world.fake.put_image("app", "1", [])  # the tag moves: nobody looks at it again
    entry = await world.phase("one", "Ready")
    found = world.server.get(CACHES, "one")
    assert entry["uid"] == found["metadata"]["uid"]
    assert (entry["generation"], entry["servingGeneration"]) == (1, 1)
    assert entry["bytesFetched"] > 0
    held = world.node.store.image(f"{world.fake.address}/app@{found['status']['images'][0]['digest']}")
    assert held is not None
    report = world.server.get(REPORTS, "n1")
    node = world.server.get("nodes", "n1")["metadata"]
    assert [owner["uid"] for owner in report["metadata"]["ownerReferences"]] == [node["uid"]]
    assert report["status"]["platform"] == "linux/amd64"
    assert report["status"]["handlerReady"] is True


async def test_nothing_is_fetched_before_it_is_resolved(world: World) -> None:
    """The controller pins the digests first."""
    world.declare("one", world.image("app:1"))
    world.declare("two", world.image("app:2"))
    world.resolve("two")
    await world.phase("two", "Ready")
    assert world.local("one") == ""
    assert world.fake.asked("/manifests/1") == []


async def test_the_node_selector_decides(world: World) -> None:
    """Not ours: not fetched. It becomes ours with a label of the Node, and is given back without it."""
    chosen = {"imagecached.dev/node-selector": "tier=fast"}
    world.declare("one", world.image("app:1"), annotations=chosen)
    world.resolve("one")
    world.declare("two", world.image("app:2"))
    world.resolve("two")
    await world.phase("two", "Ready")
    assert world.local("one") == ""
    world.server.put(node_object(labels={"tier": "fast"}))
    await world.phase("one", "Ready")
    world.server.put(node_object())
    await world.until(lambda: not world.entry("one"))
    assert world.local("one") == ""


async def test_a_tainted_node_is_left_alone(world: World) -> None:
    """Unless the cache tolerates the taint."""
    world.server.put(node_object(taints=[{"key": "gpu", "value": "a", "effect": "NoSchedule"}]))
    tolerations = json.dumps([{"key": "gpu", "operator": "Exists"}])
    world.declare("kept-out", world.image("app:1"))
    world.declare("let-in", world.image("app:2"), annotations={"imagecached.dev/tolerations": tolerations})
    for name in ("kept-out", "let-in"):
        world.resolve(name)
    await world.phase("let-in", "Ready")
    assert world.local("kept-out") == ""


async def test_a_node_that_is_drained_and_comes_back(world: World) -> None:
    """Cordoned, it fetches nothing new and keeps what it has."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    world.server.put(node_object(unschedulable=True))
    tolerant = json.dumps([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}])
    world.declare("two", world.image("two:1"))
    world.declare("three", world.image("three:1"), annotations={"imagecached.dev/tolerations": tolerant})
    for name in ("two", "three"):
        world.resolve(name)
    await world.phase("three", "Ready")
    assert world.local("two") == ""
    assert world.local("one") == "Ready"
    world.server.put(node_object())
    await world.phase("two", "Ready")
    assert world.fake.asked("/v2/app/manifests/1") == []


async def test_the_rollout_window_is_kept(world: World) -> None:
    """Nothing before it is our turn; then at once."""
    world.declare("one", world.image("app:1"))
    rank = rollout_rank(world.server.get(CACHES, "one")["metadata"]["uid"], 1, "n1")
    world.resolve("one", window=rank)
    world.declare("two", world.image("app:2"))
    world.resolve("two")
    await world.phase("two", "Ready")
    assert world.local("one") == ""
    world.resolve("one", window=rank + 1)
    await world.phase("one", "Ready")


async def test_an_edit_changes_nothing_until_the_controller_has_looked(world: World) -> None:
    """The old generation serves meanwhile, and goes when the new one is here."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    world.declare("one", world.image("app:2"))
    world.declare("two", world.image("other:1"))
    world.resolve("two")
    await world.phase("two", "Ready")
    assert world.entry("one")["servingGeneration"] == 1
    world.resolve("one")
    await world.until(lambda: world.entry("one").get("servingGeneration") == 2)
    assert world.entry("one")["phase"] == "Ready"


async def test_a_deleted_cache_is_given_back(world: World) -> None:
    """Its entry goes, and what it held is freed."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    world.server.remove(CACHES, "one")
    await world.until(lambda: not world.report()["caches"])
    await world.until(lambda: not world.node.caches.list())


async def test_a_cache_deleted_while_it_is_fetched(world: World) -> None:
    """The fetch ends, and nothing is reported of it any more."""
    gate = asyncio.Event()
    image = world.image("app:1")
    blob = world.fake.manifest("app", "1")["layers"][0]["digest"]
    world.fake.always(f"/v2/app/blobs/{blob}", faults.gated(gate, after=10))
    world.declare("one", image)
    world.resolve("one")
    await world.until(lambda: world.fake.asked(blob))
    world.server.remove(CACHES, "one")
    await world.until(lambda: world.local("one") == "")
    gate.set()
    await world.until(lambda: world.report() and not world.entry("one"))


@pytest.mark.parametrize(
    "spoil",
    [
        {"spec": "nonsense"},
        {"spec": {"images": [1, 2]}},
        {"status": {"generation": "x"}},
        {"metadata": {"annotations": {"imagecached.dev/tolerations": "{"}}},
    ],
    ids=["spec", "images", "status", "annotations"],
)
async def test_objects_that_bypass_the_schema(world: World, spoil: dict[str, Any]) -> None:
    """They stop no other, and take nothing away that is here, not even after a restart."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    found = world.server.get(CACHES, "one")
    meta = {**found["metadata"], **spoil.get("metadata", {})}
    world.server.put({**found, **spoil, "metadata": meta})
    for name in ("two", "three"):
        world.declare(name, world.image(f"{name}:1"))
        world.resolve(name)
        await world.phase(name, "Ready")
        assert world.local("one") == "Ready"
        assert world.entry("one")["servingGeneration"] == 1
        await world.restart()
    assert world.local("one") == "Ready"


def _secret(data: dict[str, str] | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "pull", "namespace": "team"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": data,
    }


def _login(world: World, user: str = "me") -> dict[str, str]:
    pair = base64.b64encode(f"{user}:secret-word".encode()).decode()
    config = {"auths": {world.fake.address: {"auth": pair}}}
    return {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()}


def _guard(world: World) -> None:
    """Only ``me`` may pull."""
    pair = base64.b64encode(b"me:secret-word").decode()
    world.fake.challenge = 'Basic realm="x"'
    world.fake.authorizations = {f"Basic {pair}"}


async def test_private_images_are_fetched_with_the_named_secret(world: World) -> None:
    """One get of exactly that Secret; none for what is here already, after a restart."""
    _guard(world)
    world.server.put(_secret(_login(world)))
    world.declare("one", world.image("app:1"), imagePullSecrets=["team:pull"])
    world.resolve("one")
    await world.phase("one", "Ready")
    assert world.server.traffic.requests["get secrets"] == 1
    await world.restart()
    world.declare("two", world.image("two:1"), imagePullSecrets=["team:pull"])
    world.resolve("two")
    await world.phase("two", "Ready")
    assert world.server.traffic.requests["get secrets"] == 2
    assert world.server.traffic.requests["list secrets"] == 0


async def test_a_slow_secret_delays_no_other(world: World) -> None:
    """However many caches come after it."""
    _guard(world)
    secret = _secret(_login(world))
    world.server.put(secret)
    world.server.put({**secret, "metadata": {"name": "slow", "namespace": "team"}})
    never = asyncio.Event()

    async def hang(call: Call) -> None:
        if calls("get", "secrets")(call) and call.name == "slow":
            await never.wait()

    world.server.faults.before = hang
    names = [f"c{number}" for number in range(8)]
    for name in names:
        secrets = ["team:slow" if name == "c0" else "team:pull"]
        world.declare(name, world.image(f"{name}:1"), imagePullSecrets=secrets)
        world.resolve(name)
    for name in names[1:]:
        await world.phase(name, "Ready")
    assert world.local("c0") != "Ready"
    never.set()
    await world.phase("c0", "Ready")


async def test_a_private_image_that_was_lost_comes_back_after_a_restart(world: World) -> None:
    """Its Secret is asked for again, as nothing of it is remembered."""
    _guard(world)
    world.server.put(_secret(_login(world)))
    image = world.image("app:1")
    world.declare("one", image, imagePullSecrets=["team:pull"])
    world.resolve("one")
    await world.phase("one", "Ready")
    [lost] = world.node.store.layers()
    await world.stop()
    lost.path.unlink()
    await world.start()
    while "imagecache_mended" not in world.node.kinds():
        world.node.calendar.advance(60)
        await asyncio.sleep(0.002)
    assert len(world.node.store.layers()) == 1
    assert world.server.traffic.requests["get secrets"] == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("missing", "SecretNotFound"),
        ("denied", "SecretDenied"),
        (None, "SecretMalformed"),
        ({".dockerconfigjson": "***"}, "SecretMalformed"),
        ({".dockerconfigjson": base64.b64encode(b"{").decode()}, "SecretMalformed"),
        ({"other": ""}, "SecretMalformed"),
    ],
)
async def test_secrets_that_cannot_be_used(
    world: World, monkeypatch: pytest.MonkeyPatch, data: Any, reason: str
) -> None:
    """The build fails with the reason, other caches go on, and it begins once the Secret is mended."""
    monkeypatch.setattr("imagecached.kube.agent.secrets._FIRST_SECONDS", 0.01)
    monkeypatch.setattr("imagecached.kube.agent.secrets._MOST_SECONDS", 0.05)
    _guard(world)
    if data == "denied":
        world.server.put(_secret(_login(world)))
        world.server.faults.forbid(times=10, matches=calls("get", "secrets"))
    elif data != "missing":
        world.server.put(_secret(data))
    world.declare("one", world.image("app:1"), imagePullSecrets=["team:pull"])
    world.resolve("one")
    entry = await world.phase("one", "Failed")
    assert entry["reason"] == reason
    assert "team:pull" in entry["message"]
    world.server.put(_secret(_login(world)))
    await world.phase("one", "Ready")


async def test_a_secret_that_is_granted_a_moment_later_is_no_failure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The controller makes the Role while we ask already."""
    monkeypatch.setattr("imagecached.kube.agent.secrets._FIRST_SECONDS", 0.01)
    _guard(world)
    world.server.put(_secret(_login(world)))
    world.server.faults.forbid(times=2, matches=calls("get", "secrets"))
    world.declare("one", world.image("app:1"), imagePullSecrets=["team:pull"])
    world.resolve("one")
    seen: list[str] = []

    def ready() -> bool:
        phase = world.entry("one").get("phase", "")
        seen.append(phase)
        return bool(phase == "Ready")

    await world.until(ready)
    assert "Failed" not in seen


async def test_a_build_that_failed_here_alone_is_tried_again(world: World) -> None:
    """After an hour, as others hold it; not once the controller has given the build up."""
    for name in ("one", "two"):
        image = world.image(f"{name}:1")
        world.declare(name, image)
        digest = world.digest(image)
        world.fake.always(f"/v2/{name}/manifests/{digest}", faults.status(403))
        world.resolve(name)
    calendar = world.node.calendar
    for name in ("one", "two"):
        while world.entry(name).get("phase") != "Failed":
            calendar.advance(60)
            await asyncio.sleep(0.002)
    found = world.server.get(CACHES, "two")
    world.server.put({**found, "status": {**found["status"], "phase": "Failed"}})
    world.fake._always.clear()
    while world.entry("one").get("phase") != "Ready":
        calendar.advance(60)
        await asyncio.sleep(0.002)
    assert world.entry("two")["phase"] == "Failed"


async def test_an_update_that_failed_everywhere(world: World) -> None:
    """Nodes go back to what serves, and one that has nothing brings just that."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    image = world.image("app:2")
    world.fake.always(f"/v2/app/manifests/{world.digest(image)}", faults.status(503))
    world.declare("one", image)
    world.resolve("one")
    await world.phase("one", "Updating")
    found = world.server.get(CACHES, "one")
    serving = [{"image": world.image("app:1"), "digest": world.digest(world.image("app:1"))}]
    failed = {"phase": "UpdateFailed", "serving": serving, "servingGeneration": 1}
    world.server.put({**found, "status": {**found["status"], **failed}})
    assert (await world.phase("one", "Ready"))["generation"] == 1
    assert [view.status.serving_generation for view in world.node.caches.list()] == [1]


async def test_an_outage_changes_nothing(world: World) -> None:
    """What is here stays, what is being fetched goes on, and is reported afterwards."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    gate = asyncio.Event()
    image = world.image("two:1")
    blob = world.fake.manifest("two", "1")["layers"][0]["digest"]
    world.fake.always(f"/v2/two/blobs/{blob}", faults.gated(gate, after=10))
    world.declare("two", image)
    world.resolve("two")
    await world.until(lambda: world.fake.asked(blob))
    world.server.partition()
    gate.set()
    await world.until(lambda: world.local("two") == "Ready")
    assert world.local("one") == "Ready"
    await world.until(lambda: world.agent.problem)
    assert world.entry("two").get("phase") != "Ready"
    world.server.heal()
    await world.phase("two", "Ready")
    await world.until(lambda: world.agent.problem is None)


async def test_a_restart_during_an_outage(world: World) -> None:
    """The node knows what it had, and says nothing half when the server is back."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    world.server.partition()
    await world.restart()
    await world.until(lambda: world.agent.problem and "not listed" not in world.agent.problem)
    assert world.local("one") == "Ready"
    world.server.traffic.reset()
    world.server.heal()
    await world.until(lambda: world.agent.problem is None)
    world.declare("two", world.image("two:1"))
    world.resolve("two")
    await world.phase("two", "Ready")
    assert world.entry("one")["phase"] == "Ready"
    assert world.fake.asked("/v2/app/manifests/1") == []


async def test_steady_state_is_silent(world: World) -> None:
    """A restart that changes nothing writes nothing."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    version = world.server.get(REPORTS, "n1")["metadata"]["resourceVersion"]
    world.server.traffic.reset()
    await world.restart()
    await world.until(lambda: world.server.traffic.requests["get nodeimagecaches"] == 1)
    world.server.put(node_object(labels={"other": "label"}))
    await world.until(lambda: world.server.watches() == 2)
    assert world.server.traffic.writes() == 0
    assert world.server.get(REPORTS, "n1")["metadata"]["resourceVersion"] == version


async def test_dropped_watches_and_gone_history(world: World) -> None:
    """Neither is noticed by anybody."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    world.server.drop_watches()
    world.declare("two", world.image("two:1"))
    world.server.storage.compact()
    world.resolve("two")
    await world.phase("two", "Ready")
    assert world.local("one") == "Ready"


async def test_writes_that_are_refused_are_tried_again(world: World) -> None:
    """429, 500 and 409 delay the report."""
    status = calls("patch", "nodeimagecaches/status")
    world.server.faults.too_many(retry_after=0, matches=status)
    world.server.faults.break_down(matches=status)
    world.server.faults.conflict("nodeimagecaches/status")
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")


async def test_our_node_is_deleted_and_comes_back(world: World) -> None:
    """Its report goes with it; the node keeps what it has, and reports anew for the new Node."""
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    world.server.remove("nodes", "n1")
    assert world.server.all(REPORTS) == []
    world.declare("two", world.image("two:1"))
    world.resolve("two")
    world.server.put({**node_object(), "metadata": {"name": "n1", "uid": "another"}})
    await world.phase("two", "Ready")
    assert world.entry("one")["phase"] == "Ready"
    owners = world.server.get(REPORTS, "n1")["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ["another"]


async def test_a_report_of_an_older_node_is_taken_over(world: World) -> None:
    """One that belongs to a Node of the past, and that nobody has removed yet."""
    await world.until(world.report)
    await world.stop()
    found = world.server.get(REPORTS, "n1")
    stale = [{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "older"}]
    world.server.put({**found, "metadata": {**found["metadata"], "ownerReferences": stale}})
    await world.start()
    uid = world.server.get("nodes", "n1")["metadata"]["uid"]

    def adopted() -> bool:
        owners = world.server.get(REPORTS, "n1")["metadata"]["ownerReferences"]
        return [owner["uid"] for owner in owners] == [uid]

    await world.until(adopted)


async def test_a_report_that_somebody_deletes_is_made_anew(world: World) -> None:
    """With the next thing to say."""
    await world.until(world.report)
    world.server.remove(REPORTS, "n1")
    world.declare("one", world.image("app:1"))
    world.resolve("one")
    await world.phase("one", "Ready")
    assert world.report()["platform"] == "linux/amd64"


async def test_the_handler_is_not_taken_away_by_a_containerd_that_is_silent(world: World) -> None:
    """It keeps it however long it is away; only its answer takes it."""
    await world.until(lambda: world.report().get("handlerReady") is True)
    world.handler = False
    await world.until(lambda: world.report().get("handlerReady") is False)
    world.handler = True
    await world.until(lambda: world.report().get("handlerReady") is True)
    world.handler, before = None, world.looks
    await world.until(lambda: world.looks > before + 50)
    assert world.report()["handlerReady"] is True


async def test_a_handler_that_was_never_seen(world: World) -> None:
    """After a boot nothing is said until containerd answers, so that the node keeps its labels; in the end
    it is.
    """
    await world.until(lambda: world.report().get("handlerReady") is True)
    await world.stop()
    world.handler, before = None, world.looks
    await world.start()
    await world.until(lambda: world.looks > before + 20)
    assert world.report()["handlerReady"] is True
    await world.until(lambda: world.report().get("handlerReady") is False)


@pytest.mark.parametrize("created", ["1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z"])
async def test_clocks_that_are_wrong_decide_nothing(world: World, created: str) -> None:
    """Neither the times of objects nor our own."""
    world.wall = lambda: 4_000_000_000.0
    await world.restart()
    world.declare("one", world.image("app:1"))
    found = world.server.get(CACHES, "one")
    world.server.put({**found, "metadata": {**found["metadata"], "creationTimestamp": created}})
    world.resolve("one")
    await world.phase("one", "Ready")
    assert world.report()["observedTime"].startswith("2096-10-02T")
