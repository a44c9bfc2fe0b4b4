"""scripts/e2e-cluster from one end to the other: emulated API server, real controller, daemon and containerd.

Of a cluster only the API server and the kubelet are stand-ins.
"""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagecached.imagecache.annotations import AUTO_MATCH
from imagecached.kube.controller import grants
from tests.e2e import __main__ as e2e
from tests.e2e import installation
from tests.e2e import world as worlds
from tests.e2e.cluster import Cluster, Document, Kind, wait_for
from tests.e2e.node import mounts
from tests.e2e.options import parse
from tests.e2e.report import Report
from tests.e2e.scenarios import FIRST, LAST, MIDDLE
from tests.e2e.world import CACHE, World
from tests.fakes.registry import FakeRegistry
from tests.support.apiserver import ApiServer, User
from tests.support.apiserver_thread import Served, served
from tests.support.containerd import CONTAINERD2
from tests.support.demo import base_layer
from tests.support.images import ImageFolder
from tests.support.knative import knative
from tests.support.kubelet import kubelet
from tests.support.registry import Registry
from tests.support.restarting import Node, restartable
from tests.support.tars import file, tar

ROLE = Kind("rbac.authorization.k8s.io/v1", "Role")

pytestmark = [
    pytest.mark.root,
    pytest.mark.containerd,
    pytest.mark.containerd2,
    pytest.mark.timeout(600),
]


@pytest.fixture
def node(registry: Registry, tmp_path: Path) -> Iterator[Node]:
    """The node, with CRI and a pause image."""
    with restartable(registry, tmp_path) as node:
        yield node


@pytest.fixture
def api(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A cluster of that one node, where roles count."""
    admin = {"admin": User("admin", ("system:masters",))}
    with served(ApiServer(rbac=True, tokens=admin)) as running:
        kubeconfig = running.server.kubeconfig(tmp_path / "kubeconfig", token="admin")
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        containerd = node.running
        with running.beside(kubelet(running.server, containerd.socket, containerd.directory / "logs", "n1")):
            yield running


def _images(registry: Registry, directory: Path) -> Iterator[str]:
    """Three that share their first layer and run until they are ended."""
    folder = ImageFolder(directory)
    base = base_layer(folder)
    for name in ("e2e/web:1", "e2e/tool:1", "e2e/other:1"):
        own = folder.layer(tar(file("etc/motd", name.encode() * 1000)))
        image = folder.image([base, own], {"Entrypoint": ["/usr/bin/sleep", "inf"], "Env": ["PATH=/usr/bin"]})
        folder.push(image, registry.reference(name))
        yield registry.reference(name)


def _arguments(node: Node, registry: Registry, folder: Path) -> list[str]:
    containerd = node.running
    return [
        "--node-process",
        "--images", ",".join(_images(registry, folder)),
        "--plain-http", registry.address,
        "--containerd-config", str(containerd.config),
        "--containerd-socket", str(containerd.socket),
        "--containerd-program", str(CONTAINERD2 / "containerd"),
        "--containerd-restart", node.restart,
        "--root", str(containerd.directory / "ours"),
        "--run", str(containerd.directory / "run"),
        "--patience", "60",
    ]  # fmt: skip


def test_every_scenario_passes_and_nothing_is_left(
    api: Served,
    node: Node,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From install to uninstall: no line says FAIL, and none of the scenarios is left out."""
    monkeypatch.setattr(worlds, "_MAKER_SECONDS", 0.5)  # nothing makes pods of Deployments here, we know
    code = e2e.main(_arguments(node, registry, tmp_path / "images"))
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.startswith("FAIL")] == [], said
    assert code == 0
    tried = {line.split()[1] for line in said.splitlines() if line.startswith("ok ")}
    assert {*FIRST, *MIDDLE, *LAST} <= tried, said


def test_services_of_knative_start_from_the_cache(
    api: Served, node: Node, registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The users' Services as they are; Knative names images by digest, so no tag is left to match by."""
    with api.beside(knative(api.server, "admin")):
        code = e2e.main([*_arguments(node, registry, tmp_path / "images"), "--only", "automatic,explicit"])
    said = capsys.readouterr().out
    assert code == 0, said
    assert "pods are created from the template" not in said


def test_a_run_that_is_cut_short_leaves_everything_as_it_was(
    api: Served,
    node: Node,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In the middle, with a cache, a pod of it and both processes there: exit code 1, and nothing stays."""

    def interrupted(world: World) -> None:
        world.run_image(world.options.images[0], "a pod", {AUTO_MATCH[0]: "true"})
        os.kill(os.getpid(), signal.SIGTERM)

    before, config = _objects(api), node.running.config.read_bytes()
    monkeypatch.setattr(worlds, "_MAKER_SECONDS", 0.5)
    monkeypatch.setitem(MIDDLE, "automatic", interrupted)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    code = e2e.main([*_arguments(node, registry, tmp_path / "images"), "--only", "automatic"])
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == handlers
    said = capsys.readouterr().out
    assert code == 1, said
    assert [line.split(maxsplit=2) for line in said.splitlines() if line.startswith("FAIL")] == [
        ["FAIL", "automatic", "cut short"]
    ]
    assert _objects(api) == before
    assert node.running.config.read_bytes() == config
    directory = str(node.running.directory)
    left = [point for point in mounts() if point.startswith((f"{directory}/ours", f"{directory}/run/"))]
    assert left == []


def _objects(api: Served) -> set[tuple[str, str]]:
    def collect(server: ApiServer) -> set[tuple[str, str]]:
        return {
            (plural, stored.meta["name"])
            for (_, plural), shelf in server.storage.shelves()
            for stored in shelf.objects.values()
            if plural != "events"
        }

    return api.do(collect)


def test_a_private_image_comes_by_the_secret_that_its_cache_names(
    api: Served, node: Node, registry: Registry, tmp_path: Path
) -> None:
    """Without it the cache says what is missing.

    With it the daemon is granted this one Secret, by name, until the last cache that names it is gone.
    """
    options = parse(_arguments(node, registry, tmp_path / "images"), list(MIDDLE))
    world = World(options, Cluster.from_environment(), Report())
    with api.beside(FakeRegistry()) as private:
        private.challenge, private.authorizations = 'Basic realm="private"', {f"Basic {_b64('user:word')}"}
        private.put_image("team/app", "1", [tar(file("etc/secret", b"1"))])
        installation.preflight(world)
        try:
            installation.install(world)
            _put_pull_secret(world, private.address)
            world.cluster.create(_private_cache(private.address, "without"))
            world.cluster.create(_private_cache(private.address, "with", "team:pull"))
            assert world.await_phase("with", "Ready", "Failed")["phase"] == "Ready", world.seen("with")
            reason = wait_for(lambda: world.status("without").get("reason"), "a reason", options.patience)
            assert reason == "RegistryAccessDenied"
            assert private.address in world.status("without")["message"]
            role = world.cluster.get(ROLE, grants.NAME, "team")
            assert role is not None
            [rule] = role["rules"]
            assert (rule["resourceNames"], rule["verbs"]) == (["pull"], ["get"])
            world.cluster.delete(CACHE, "with")
            gone = lambda: world.cluster.get(ROLE, grants.NAME, "team") is None  # noqa: E731  asked again
            wait_for(gone, "the grant is gone", options.patience)
        finally:
            installation.restore(world)
            world.cluster.http.close()
    assert world.node is not None
    assert world.node.left_behind() == []
    world.node.close()


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _put_pull_secret(world: World, address: str) -> None:
    config = {"auths": {address: {"auth": _b64("user:word")}}}
    world.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}})
    world.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "pull", "namespace": "team"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": _b64(json.dumps(config))},
        }
    )


def _private_cache(address: str, name: str, *secrets: str) -> Document:
    return {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": {"name": name, "annotations": {"k8s.aliyun.com/plain-http-registry": address}},
        "spec": {"images": [f"{address}/team/app:1"], "imagePullSecrets": list(secrets)},
    }
