"""The controller when things go wrong: nothing is lost, nothing is done twice that may not be,
others go on.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from imagecached.errors import AccessDenied, NotFound, Unavailable
from imagecached.kube.controller import Settings, grants
from tests.support.apiserver import calls
from tests.unit.kube.controller.conftest import Play, World

DAY = 86_400
IMC = "imagecaches.eci.alibabacloud.com"
ROLES = "roles.rbac.authorization.k8s.io"
BINDINGS = "rolebindings.rbac.authorization.k8s.io"


async def everything_happens(world: World) -> None:
    """A private cache is built, updated and deleted; another expires; a node leaves for good."""
    world.secret("pull")
    world.declare("web", imagePullSecrets=["team:pull"])
    world.declare("old", retentionDays=1)
    await asyncio.sleep(100)
    world.declare("web", "registry.example/web:2", imagePullSecrets=["team:pull"])
    world.fleet.leave("n2")
    await asyncio.sleep(2 * DAY)
    assert world.granted() == ["pull"]
    assert world.status("web").serving_generation == 2
    world.server.remove(IMC, "web")
    await asyncio.sleep(1000)


def nothing_is_left(world: World) -> None:
    """What must be true in the end, however it came about."""
    assert world.caches() == []
    assert world.granted() == []
    assert world.labels("n0") == {"imagecached.dev/handler": "ready"}
    assert {each["metadata"]["name"] for each in world.server.all("nodeimagecaches.imagecached.dev")} == {
        "n0",
        "n1",
    }


STEPS = [
    *(("status", number) for number in range(1, 13)),
    *(("label", number) for number in (1, 2, 4, 6)),
    ("grant role", 1),
    ("grant binding", 1),
    ("revoke rolebinding", 1),
    ("revoke role", 1),
    ("remove", 1),
    ("stray", 1),
]


@pytest.mark.parametrize(("step", "number"), STEPS)
def test_a_leader_killed_at_any_step_is_continued_by_the_next(play: Play, step: str, number: int) -> None:
    """Each write of the whole life of a cache is once the last one that a leader wanted to make."""

    async def scene(world: World) -> None:
        first = world.lead("one", die_at=(step, number))

        async def follow() -> None:
            while not first.dead:
                await asyncio.sleep(5)
            world.lead("two")

        world.tasks.append(world.group.create_task(follow()))
        await everything_happens(world)
        assert first.dead, "the scenario must come by this step"
        nothing_is_left(world)

    play(scene)


def test_two_leaders_for_a_while_change_nothing(play: Play) -> None:
    """Their writes are made over what they saw, or mean the same twice."""

    async def scene(world: World) -> None:
        world.lead("one")
        world.lead("two")
        await everything_happens(world)
        nothing_is_left(world)

    play(scene)


def test_a_leader_with_an_older_view_cannot_undo(play: Play) -> None:
    """One that is cut off and comes back writes over versions that are gone: it is refused, and
    reads again.
    """

    async def scene(world: World) -> None:
        first = world.lead("one")
        world.declare()
        await asyncio.sleep(60)
        first.wire.cut = True
        world.lead("two")
        world.declare("web", "registry.example/web:2")
        await asyncio.sleep(60)
        first.wire.cut = False
        await asyncio.sleep(600)
        assert (world.status().phase, world.status().generation) == ("Ready", 2)

    play(scene)


@pytest.mark.parametrize("fault", ["conflict", "too_many", "break_down"])
@pytest.mark.parametrize(
    "plural", ["imagecaches/status", "nodes", "roles", "secrets", "events", "imagecaches"]
)
def test_refusals_are_tried_again(play: Play, fault: str, plural: str) -> None:
    """409, 429 and 500 on every kind of request; an event that is not written is no loss."""

    async def scene(world: World) -> None:
        world.lead()
        matches = calls(plural=plural)
        how: dict[str, Any] = {"times": 4, "matches": matches}
        if fault == "conflict":
            world.server.faults.conflict(plural, **how)
        else:
            getattr(world.server.faults, fault)(**how)
        await everything_happens(world)
        nothing_is_left(world)

    play(scene)


def test_history_that_is_gone_and_watches_that_drop_are_no_matter(play: Play) -> None:
    """410 on every watch, again and again, while nodes fetch."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        for _ in range(20):
            await asyncio.sleep(3)
            world.server.drop_watches()
            world.server.storage.compact()
        await asyncio.sleep(60)
        assert world.status().phase == "Ready"
        await everything_happens(world)
        nothing_is_left(world)

    play(scene)


def test_an_outage_of_the_api_server_is_waited_out(play: Play) -> None:
    """What changed meanwhile is seen afterwards."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(5)
        world.server.partition()
        await asyncio.sleep(300)
        world.declare("later")
        world.server.heal()
        await asyncio.sleep(300)
        assert (world.status().phase, world.status("later").phase) == ("Ready", "Ready")

    play(scene)


@pytest.mark.parametrize("skew", [-10 * DAY, 3600])
def test_a_clock_that_is_off_delays_and_hastens_only_what_depends_on_dates(play: Play, skew: float) -> None:
    """A cache is built as ever; one with days left stays."""

    async def scene(world: World) -> None:
        world.lead(skew=skew)
        world.declare(retentionDays=7)
        await asyncio.sleep(60)
        assert world.status().phase == "Ready"
        await asyncio.sleep(DAY)
        assert world.status().phase == "Ready"

    play(scene)


def test_a_cache_deleted_while_nodes_fetch_it_is_gone(play: Play) -> None:
    """And one made anew under its name is another cache, with an id of its own."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(5)
        first = world.status().image_cache_id
        world.server.remove(IMC, "web")
        await asyncio.sleep(2)
        world.declare()
        await asyncio.sleep(100)
        status = world.status()
        assert (status.phase, status.generation) == ("Ready", 1)
        assert status.image_cache_id != first
        assert f"imagecached.dev/{first}" not in world.labels("n0")

    play(scene)


# Registries.


def test_a_registry_that_is_down_is_asked_again(play: Play) -> None:
    """The status says why nothing happens, without a write per attempt."""

    async def scene(world: World) -> None:
        world.registries.errors["web"] = Unavailable("registry.example: connection refused")
        world.lead()
        world.declare()
        await asyncio.sleep(600)
        status = world.status()
        assert (status.phase, status.reason) == ("Pending", "RegistryUnavailable")
        assert "registry.example/web:1: registry.example: connection refused" in status.message
        assert len(status.events) == 2
        world.registries.errors.clear()
        await asyncio.sleep(400)
        assert world.status().phase == "Ready"

    play(scene)


def test_a_registry_that_stays_down_fails_the_cache_and_a_day_later_it_goes(play: Play) -> None:
    """As with any failure: kept for people to see, then removed."""

    async def scene(world: World) -> None:
        world.registries.errors["web"] = AccessDenied("401 Unauthorized")
        world.lead()
        world.declare()
        await asyncio.sleep(3600)
        status = world.status()
        assert (status.phase, status.reason) == ("Failed", "RegistryAccessDenied")
        assert status.expire_date_time is not None
        await asyncio.sleep(DAY)
        assert world.caches() == []

    play(scene)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(NotFound("no such manifest"), "ImageNotFound"), (None, "ImagesTooLarge")],
)
def test_what_cannot_succeed_fails_before_anything_is_fetched(play: Play, error: Any, reason: str) -> None:
    """An image that is not there, or is larger than the cache; an edit mends it."""

    async def scene(world: World) -> None:
        if error:
            world.registries.errors["web:1"] = error
        world.registries.sizes["web:1"] = 21 << 30
        world.lead()
        world.declare()
        await asyncio.sleep(30)
        assert (world.status().phase, world.status().reason) == ("Failed", reason)
        assert world.fleet.writes == 0
        world.declare("web", "registry.example/web:2")
        await asyncio.sleep(60)
        assert world.status().phase == "Ready"

    play(scene)


# Secrets.


def test_secrets_are_granted_by_name_while_a_cache_names_them(play: Play) -> None:
    """Nodes may read these and no others; the last user takes the grant with it."""

    async def scene(world: World) -> None:
        for name in ("one", "two", "other"):
            world.secret(name)
        world.lead()
        world.declare("a", imagePullSecrets=["team:one", "team:two"])
        world.declare("b", imagePullSecrets=["team:one"])
        await asyncio.sleep(60)
        assert world.granted() == ["one", "two"]
        (binding,) = world.server.all("rolebindings.rbac.authorization.k8s.io")
        account = {"kind": "ServiceAccount", "name": "imagecached-node", "namespace": "imagecached-system"}
        assert binding["subjects"] == [account]
        world.server.remove(IMC, "a")
        await asyncio.sleep(60)
        assert world.granted() == ["one"]
        world.server.remove(IMC, "b")
        await asyncio.sleep(60)
        assert world.granted() == []

    play(scene)


@pytest.mark.parametrize(
    "harm", ["role gone", "binding gone", "both gone", "role wider", "subject changed", "another role bound"]
)
def test_grants_that_somebody_changed_are_mended(play: Play, harm: str) -> None:
    """Nobody tells, so they are looked at now and then, and nothing is written where all is well."""

    async def scene(world: World) -> None:
        world.secret("pull")
        world.lead()
        world.declare(imagePullSecrets=["team:pull"])
        await asyncio.sleep(60)
        before = _grants(world)
        if harm in ("role gone", "both gone"):
            world.server.remove(ROLES, grants.NAME, "team")
        if harm in ("binding gone", "both gone"):
            world.server.remove(BINDINGS, grants.NAME, "team")
        if harm == "role wider":
            (found,) = world.server.all(ROLES)
            (rule,) = found["rules"]
            world.server.put({**found, "rules": [{**rule, "resourceNames": ["pull", "other"]}]})
        if harm == "subject changed":
            (found,) = world.server.all(BINDINGS)
            world.server.put({**found, "subjects": [{**found["subjects"][0], "name": "somebody"}]})
        if harm == "another role bound":
            (found,) = world.server.all(BINDINGS)
            world.server.remove(BINDINGS, grants.NAME, "team")
            world.server.put({**found, "roleRef": {**found["roleRef"], "name": "mighty"}})
        assert _grants(world) != before
        await asyncio.sleep(3600)
        assert _grants(world) == before
        world.server.traffic.reset()
        await asyncio.sleep(24 * 3600)
        asked = world.server.traffic.requests
        assert 36 <= asked["list roles"] == asked["list rolebindings"] <= 64
        assert world.server.traffic.writes() == asked["update leases"] + asked["patch leases"]

    play(scene)


def test_nobody_asks_for_grants_where_there_are_none(play: Play) -> None:
    """A cluster without private images is silent."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        world.server.traffic.reset()
        await asyncio.sleep(6 * 3600)
        assert world.server.traffic.requests["list roles"] == 0

    play(scene)


def _grants(world: World) -> list[Any]:
    return [
        [found.get(key) for key in ("rules", "subjects", "roleRef")]
        for kind in (ROLES, BINDINGS)
        for found in world.server.all(kind)
    ]


def test_grants_that_nobody_needs_go_with_the_next_leader(play: Play) -> None:
    """A cache may be deleted while no controller runs."""

    async def scene(world: World) -> None:
        world.secret("pull")
        first = world.lead()
        world.declare(imagePullSecrets=["team:pull"])
        await asyncio.sleep(60)
        assert world.granted() == ["pull"]
        first.kill()
        world.server.remove(IMC, "web")
        world.lead("two")
        await asyncio.sleep(60)
        assert world.granted() == []

    play(scene)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("Opaque", {"password": "c2VjcmV0"}),
        ("kubernetes.io/service-account-token", {"token": "c2VjcmV0"}),
        ("kubernetes.io/dockerconfigjson", {}),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": "not base64 c2VjcmV0"}),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": base64.b64encode(b"c2VjcmV0").decode()}),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": base64.b64encode(b'{"auths":[]}').decode()}),
        (None, None),
    ],
)
def test_a_secret_that_is_no_use_is_named_and_not_granted(play: Play, kind: str | None, data: Any) -> None:
    """Missing, for something else, or broken: public images come all the same, and nothing of
    it is quoted.
    """

    async def scene(world: World) -> None:
        if kind is not None:
            world.secret("pull", kind=kind, data=data)
        world.lead()
        world.declare(imagePullSecrets=["team:pull"])
        await asyncio.sleep(60)
        assert world.status().phase == "Ready"
        assert world.granted() == []
        (message,) = world.events("PullSecretUnusable")
        assert message.startswith("Secret team:pull")
        assert "c2VjcmV0" not in message

    play(scene)


def test_a_private_image_comes_as_soon_as_its_secret_is_there(play: Play) -> None:
    """The refusal names the Secret that is missing; it is granted once it exists."""

    async def scene(world: World) -> None:
        world.registries.errors["web"] = AccessDenied("401 Unauthorized")
        world.lead()
        world.declare(imagePullSecrets=["team:pull"])
        await asyncio.sleep(60)
        status = world.status()
        assert (status.phase, status.reason) == ("Pending", "PullSecretUnusable")
        assert "Secret team:pull does not exist" in status.message
        world.secret("pull")
        world.registries.errors.clear()
        await asyncio.sleep(400)
        assert world.status().phase == "Ready"
        assert world.granted() == ["pull"]

    play(scene)


# Objects that bypass the schema.


BROKEN: list[Any] = [
    None,
    {},
    [],
    {"images": []},
    {"images": "nginx"},
    {"images": ["A B"]},
    {"images": ["nginx"] * 50},
    {"images": ["nginx"], "imageCacheSize": "big"},
    {"images": ["nginx"], "imagePullSecrets": ["x"]},
]


@pytest.mark.parametrize("spec", BROKEN)
def test_an_object_that_makes_no_sense_says_so_and_stops_no_other(play: Play, spec: Any) -> None:
    """On servers that take a status all the same; it is built once it is mended."""

    async def scene(world: World) -> None:
        world.without_schema()
        world.declare()
        world.server.put({**world.object(), "metadata": {"name": "broken"}, "spec": spec})
        world.lead()
        await asyncio.sleep(60)
        assert world.status("web").phase == "Ready"
        status = world.status("broken")
        assert (status.phase, status.reason) == ("Failed", "InvalidSpec")
        assert status.image_cache_id.startswith("imc-")
        world.declare("broken")
        await asyncio.sleep(60)
        assert world.status("broken").phase == "Ready"

    play(scene)


@pytest.mark.parametrize("spec", BROKEN)
def test_where_no_status_can_be_written_an_event_says_why(play: Play, spec: Any) -> None:
    """Servers that check the whole object refuse it; the server is not asked again and again."""

    async def scene(world: World) -> None:
        world.declare()
        world.server.put({**world.object(), "metadata": {"name": "broken"}, "spec": spec})
        world.lead()
        await asyncio.sleep(60)
        assert world.status("web").phase == "Ready"
        assert len(world.events("InvalidSpec")) == 1
        world.server.traffic.reset()
        await asyncio.sleep(3600)
        assert world.server.traffic.writes() == 0

    play(scene)


def test_what_serves_goes_on_serving_when_the_spec_breaks(play: Play) -> None:
    """Pods that start meanwhile get the old generation."""

    async def scene(world: World) -> None:
        world.without_schema()
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        world.server.put({**world.object(), "spec": {"images": [7]}})
        await asyncio.sleep(60)
        status = world.status()
        assert (status.phase, status.reason, status.usable) == ("UpdateFailed", "InvalidSpec", True)
        world.declare()
        await asyncio.sleep(60)
        assert world.status().phase == "Ready"

    play(scene)


@pytest.mark.parametrize(
    "status", [[], "x", {"phase": "Preparing"}, {"images": 3}, {"startTime": "yesterday"}]
)
def test_a_status_that_makes_no_sense_is_written_anew(play: Play, status: Any) -> None:
    """Whoever had the right to write it did not have the last word."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        world.server.put({**world.object(), "status": status})
        await asyncio.sleep(120)
        assert world.status().phase == "Ready"

    play(scene)


# Nodes.


def test_a_build_that_fails_everywhere_fails_and_what_served_serves_on(play: Play) -> None:
    """First Failed; for an update UpdateFailed with the old generation in use."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        broken.append("web")
        world.declare("web", "registry.example/web:2")
        world.declare("new")
        broken.append("new")
        await asyncio.sleep(60)
        status = world.status()
        assert (status.phase, status.reason, status.usable) == ("UpdateFailed", "OutOfSpace", True)
        assert (status.serving_generation, status.generation) == (1, 2)
        assert (world.status("new").phase, world.status("new").serving) == ("Failed", ())
        assert "3 of 3 nodes failed: disk is full" in world.status("new").message
        await asyncio.sleep(2 * DAY)
        assert [each["metadata"]["name"] for each in world.caches()] == ["web"]

    broken: list[str] = []
    play(scene, fails=lambda _, name: "disk is full" if name in broken else "")


def test_a_node_that_fails_alone_does_not_keep_the_others_from_serving(play: Play) -> None:
    """It is named, and the cache is Ready on the rest."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        status = world.status()
        assert (status.phase, status.nodes_ready, status.nodes_total) == ("Ready", 2, 3)
        assert status.message == "1 of 3 nodes do not hold it: 1 failed (disk is full)"
        assert len(world.labels("n0")) == 1
        assert len(world.labels("n1")) == 2

    play(scene, fails=lambda node, _: "disk is full" if node == "n0" else "")


def test_a_broken_image_is_not_tried_by_every_node(play: Play) -> None:
    """The window is not widened while nothing but failures come back."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(600)
        assert world.status().phase == "Failed"
        assert world.fleet.writes <= 2 * 20

    play(scene, nodes=200, fails=lambda *_: "digest differs")


def test_a_node_that_is_down_is_not_waited_for(play: Play) -> None:
    """It catches up when it is back."""

    async def scene(world: World) -> None:
        world.fleet.set_up("n0", up=False)
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        assert (world.status().phase, world.status().nodes_total) == ("Ready", 3)

    play(scene)


def test_a_node_whose_daemon_hangs_is_not_waited_for_for_ever(play: Play) -> None:
    """It is up, and says nothing for as long as nodes are given."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(800)
        assert world.status().phase == "Creating"
        await asyncio.sleep(400)
        status = world.status()
        assert (status.phase, status.nodes_ready, status.nodes_total) == ("Ready", 2, 3)

    play(scene, seconds=lambda node, _: 1e9 if node == "n1" else 20.0, settings=Settings(node_patience=900))


def test_a_cache_without_nodes_says_so_and_begins_when_one_comes(play: Play) -> None:
    """No registry is asked for nothing."""

    async def scene(world: World) -> None:
        world.lead()
        world.declare()
        await asyncio.sleep(60)
        assert (world.status().phase, world.status().reason) == ("Pending", "NoNodes")
        assert world.status().image_cache_id != ""
        assert world.registries.asked == []
        world.fleet.join("n0")
        await asyncio.sleep(60)
        assert world.status().phase == "Ready"

    play(scene, nodes=0)
