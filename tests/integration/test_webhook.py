"""Pods created in an emulated cluster whose API server asks our webhook, by the manifests that we ship.

Real TLS with our own certificates, real AdmissionReviews, the rights of the shipped Role and no more.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagecached.errors import AccessDenied, ImagecachedError
from imagecached.imagecache import parse_object, phases, status_document
from imagecached.imagecache.status import Status
from imagecached.kube.client import Cluster, Pace, kinds
from imagecached.kube.recorder import Recorder
from imagecached.kube.webhook import Listen, Place, Rules, Webhook
from tests.support.apiserver import ApiServer, User
from tests.support.webhooks import wait_longer
from tests.unit.imagecache.building import NOW, built, digest

MANIFESTS = Path(__file__).parents[2] / "daemonset"
SYSTEM = "imagecached-system"
ECI = "k8s.aliyun.com/"
AUTO = {ECI + "eci-image-cache": "true"}
CACHE = """
apiVersion: eci.alibabacloud.com/v1
kind: ImageCache
metadata: {name: sample, uid: sample-uid, creationTimestamp: "2026-11-25T10:00:00Z", generation: 1}
spec: {images: ["quay.io/team/app:1"], imageCacheSize: 25}
"""
PINNED = f"quay.io/team/app:1@{digest('index of quay.io/team/app:1')}"

Document = dict[str, Any]


class World:
    """The emulated cluster, somebody who creates pods in it, and our webhook."""

    def __init__(self, server: ApiServer, user: Cluster, webhook: Webhook, recorder: Recorder) -> None:
        self.server, self.user, self.webhook, self.recorder = server, user, webhook, recorder

    def put_cache(self, phase: str = "Ready") -> str:
        """The cache is there and in this phase; its id."""
        document = yaml.safe_load(CACHE)
        declared = parse_object(document)
        status = phases.begin(declared, Status(), NOW)
        if phase != "Pending":
            status = phases.resolve(declared, status, built(declared), NOW)
        if phase == "Ready":
            status = phases.finish(declared, status, NOW)
        self.server.put({**document, "status": status_document(status)})
        return declared.id

    async def knows(self, phase: str) -> None:
        """Wait until the webhook has seen the cache in this phase."""
        await until(lambda: self._phase() == phase)

    def _phase(self) -> str:
        found = self.webhook.caches.named("sample")
        return found.status.phase if found else ""

    async def create(
        self,
        annotations: dict[str, str],
        image: str = "quay.io/team/app:1",
        *,
        spec: Document | None = None,
        **metadata: Any,
    ) -> Document:
        """Create a pod as its owner does, and wait for what follows."""
        document: Document = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "app-", "annotations": annotations, **metadata},
            "spec": {"containers": [{"name": "app", "image": image}], **(spec or {})},
        }
        namespace = metadata.get("namespace", "default")
        try:
            return await self.user.create(kinds.PODS, document, namespace=namespace)
        finally:
            await self.webhook.effects.done()
            await self.recorder.told()

    def events(self) -> list[tuple[str, str, str]]:
        """Reason, kind and name of what each event is about; uid and message are there."""
        found = self.server.all("events")
        assert all(event["message"].startswith("[eci.imagecache] ") for event in found)
        return sorted(
            (event["reason"], event["involvedObject"]["kind"], event["involvedObject"].get("uid", ""))
            for event in found
        )


async def until(holds: Callable[[], bool]) -> None:
    """Wait, without guessing for how long."""
    async with asyncio.timeout(40):
        while not holds():
            await asyncio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Everything installed, the webhook ready, no cache yet."""
    tokens = {
        "user": User("user", ("system:masters", "system:authenticated")),
        "controller": User.service_account(SYSTEM, "imagecached-controller"),
    }
    pace = Pace(request=30.0, first_wait=0.01, most_wait=0.02, jitter=random.Random(1))
    async with ApiServer(tokens=tokens, rbac=True, bookmark_seconds=0.05) as server:
        server.install(MANIFESTS / "crds", MANIFESTS / "base")
        wait_longer(server)
        labels = {"imagecached.dev/handler": "ready", "pool": "web"}
        server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}})
        user_file, own_file = tmp_path / "user", tmp_path / "controller"
        async with (
            Cluster.open(server.kubeconfig(user_file, token="user"), manager="user", pace=pace) as user,
            Cluster.open(server.kubeconfig(own_file, token="controller"), manager="ours", pace=pace) as own,
            asyncio.TaskGroup() as group,
        ):
            recorder = Recorder(own, "imagecached-controller", "replica-1")
            webhook = Webhook(own, recorder.tell, Listen("127.0.0.1", 0), Place(), Rules(), settle=0.05)
            tasks = [group.create_task(webhook.run()), group.create_task(recorder.run())]
            await webhook.started.wait()
            server.admission.services[SYSTEM, "imagecached-webhook", 443] = ("127.0.0.1", webhook.port)
            await until(lambda: webhook.why_not_ready() is None)
            yield World(server, user, webhook, recorder)
            for task in tasks:
                task.cancel()


async def test_a_pod_gets_the_best_cache(world: World) -> None:
    """Created without a word about nodes or digests, stored with all of it; the event is on the pod."""
    cache_id = world.put_cache()
    await world.knows("Ready")
    pod = await world.create(AUTO)
    assert pod["spec"]["runtimeClassName"] == "imagecached"
    assert pod["spec"]["containers"][0]["image"] == PINNED
    assert pod["metadata"]["annotations"]["imagecached.dev/cache-id"] == cache_id
    assert pod["metadata"]["annotations"]["imagecached.dev/match-degree"] == "full 1/1"
    assert world.events() == [("SuccessfulHitImageCache", "Pod", pod["metadata"]["uid"])]
    assert world.server.get("imagecaches.eci.alibabacloud.com", "sample")["status"]["lastMatchedTime"]


async def test_a_knative_digest(world: World) -> None:
    """Knative names the image by digest: it matches and stays as it is."""
    world.put_cache()
    await world.knows("Ready")
    image = f"quay.io/team/app@{digest('index of quay.io/team/app:1')}"
    pod = await world.create(AUTO, image)
    assert pod["spec"]["containers"][0]["image"] == image
    assert pod["metadata"]["annotations"]["imagecached.dev/match-degree"] == "full 1/1"


async def test_a_miss_makes_a_cache_once(world: World) -> None:
    """Three pods of one image set: three events, one ImageCache, accepted by our own CRD."""
    pods = [await world.create(AUTO, "quay.io/team/other:1") for _ in range(3)]
    assert all("runtimeClassName" not in pod["spec"] for pod in pods)
    (made,) = world.server.all("imagecaches.eci.alibabacloud.com")
    assert made["spec"] == {"images": ["quay.io/team/other:1"], "imageCacheSize": 30}
    assert made["metadata"]["labels"] == {"imagecached.dev/automatic": "true"}
    assert parse_object(made).options.automatic
    reasons = [reason for reason, _, _ in world.events()]
    assert reasons.count("ImageCacheMissed") == 3
    assert reasons.count("ImageCacheAutoCreated") >= 1


@pytest.mark.parametrize("phase", ["Pending", "Creating"])
async def test_an_id_that_is_not_ready_is_refused(world: World, phase: str) -> None:
    """The user reads which cache and in which phase; what makes the pods gets the event."""
    cache_id = world.put_cache(phase)
    await world.knows(phase)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs-uid", "controller": True}
    with pytest.raises(AccessDenied) as caught:
        await world.create({ECI + "eci-image-snapshot-id": cache_id}, ownerReferences=[owner])
    assert 'admission webhook "explicit.imagecached.dev" denied the request: ImageCache sample' in str(
        caught.value
    )
    assert f"({cache_id}) is {phase}" in str(caught.value)
    assert world.server.all("pods") == []
    assert world.events() == [("ImageCacheNotComplete", "ReplicaSet", "rs-uid")]


async def test_an_explicit_id(world: World) -> None:
    """Ready: the pod starts from it. Unknown: refused."""
    cache_id = world.put_cache()
    await world.knows("Ready")
    pod = await world.create({ECI + "eci-imc-id": cache_id})
    assert pod["metadata"]["annotations"]["imagecached.dev/cache-id"] == cache_id
    with pytest.raises(AccessDenied, match="imc-2ze5tm5gehgtiiga0000 does not exist"):
        await world.create({ECI + "eci-imc-id": "imc-2ze5tm5gehgtiiga0000"})


async def test_a_pod_of_a_daemon_set(world: World) -> None:
    """It is bound to its node, and gets the cache where that node is known to have the handler."""
    world.put_cache()
    await world.knows("Ready")
    labels = {"imagecached.dev/handler": "ready"}
    world.server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "with", "labels": labels}})
    world.server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "without"}})
    await until(lambda: world.webhook.can_start({}, "with"))
    for node, runtime_class in (("with", "imagecached"), ("without", None)):
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        required = {"nodeSelectorTerms": [{"matchFields": [field]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        pod = await world.create(AUTO, spec={"affinity": affinity})
        assert pod["spec"].get("runtimeClassName") == runtime_class


async def test_a_pod_that_no_prepared_node_could_run(world: World) -> None:
    """It would wait for ever with our RuntimeClass; it starts as it came instead."""
    world.put_cache()
    await world.knows("Ready")
    fits = await world.create(AUTO, spec={"nodeSelector": {"pool": "web"}})
    assert fits["spec"]["runtimeClassName"] == "imagecached"
    other = await world.create(AUTO, spec={"nodeSelector": {"pool": "gpu"}})
    assert "runtimeClassName" not in other["spec"]
    world.server.remove("nodes", "n1")
    await until(lambda: not world.webhook.can_start({}))
    alone = await world.create(AUTO)
    assert "runtimeClassName" not in alone["spec"]


async def test_other_pods_never_get_here(world: World) -> None:
    """Pods without our annotations, and the system's, are stored without anybody asked."""
    world.put_cache()
    await world.knows("Ready")
    asked = len(world.server.admission.calls)
    plain = await world.create({"other": "annotation"})
    off = await world.create({ECI + "eci-auto-imc": "false"})
    system = await world.create(AUTO, namespace="kube-system")
    assert len(world.server.admission.calls) == asked
    assert all("runtimeClassName" not in pod["spec"] for pod in (plain, off, system))


async def test_the_webhook_is_gone(world: World) -> None:
    """Automatic matching fails open; a pod that names a cache waits for us."""
    cache_id = world.put_cache()
    world.server.admission.services.clear()
    pod = await world.create(AUTO)
    assert "runtimeClassName" not in pod["spec"]
    with pytest.raises(ImagecachedError, match="failed calling webhook"):
        await world.create({ECI + "eci-imc-id": cache_id})


async def test_a_cache_that_goes(world: World) -> None:
    """From the moment it is deleted nobody is given it."""
    cache_id = world.put_cache()
    await world.knows("Ready")
    world.server.remove("imagecaches.eci.alibabacloud.com", "sample")
    await world.knows("")
    with pytest.raises(AccessDenied, match=f"{cache_id} does not exist"):
        await world.create({ECI + "eci-imc-id": cache_id})


async def test_an_outage_of_the_api_server(world: World) -> None:
    """What was known before serves on, and after the outage what changed meanwhile is known."""
    world.put_cache("Creating")
    await world.knows("Creating")
    world.server.partition()
    world.server.heal()
    world.put_cache()
    await world.knows("Ready")
    assert (await world.create(AUTO))["spec"]["runtimeClassName"] == "imagecached"
