"""``imagecached controller`` as the cluster runs it: processes, an API server, a registry, and signals."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.registry import FakeRegistry
from tests.support.apiserver import ApiServer
from tests.support.apiserver_thread import Served, served
from tests.support.daemon import BIN
from tests.support.fleet import node_document
from tests.support.processes import await_true
from tests.support.registry import free_port
from tests.support.webhooks import wait_longer

pytestmark = pytest.mark.timeout(120)

_MANIFESTS = Path(__file__).resolve().parents[2] / "daemonset"
_SYSTEM = "imagecached-system"
_PATIENCE_SECONDS = 30.0


class Controller:
    """One process."""

    def __init__(self, name: str, kubeconfig: Path, directory: Path) -> None:
        self.name, self.port, self.hook = name, free_port("127.0.0.1"), free_port("127.0.0.1")
        config = directory / f"{name}.toml"
        section = {
            "namespace": _SYSTEM,
            "lease_seconds": 3.0,
            "lease_renew_seconds": 2.0,
            "lease_retry_seconds": 0.2,
        }
        config.write_text(
            "\n".join(
                (
                    "[controller]",
                    *(f"{key} = {json.dumps(value)}" for key, value in section.items()),
                    f'address = "127.0.0.1:{self.hook}"',
                    "[kubernetes]",
                    f'kubeconfig = "{kubeconfig}"',
                    "[http]",
                    f'address = "127.0.0.1:{self.port}"',
                )
            )
        )
        self.log = directory / f"{name}.log"
        argv: list[str | Path] = [
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
            BIN / "imagecached",
            "controller",
            "--config",
            config,
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, env={"POD_NAME": name, "PATH": "/usr/bin:/bin"}, stdout=log, stderr=log
            )

    def end(self, number: int) -> int:
        """Send a signal, wait for the end."""
        self.process.send_signal(number)
        return self.process.wait(_PATIENCE_SECONDS)

    def page(self, path: str) -> tuple[int, str]:
        """Status and text of a page; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""


class Stage:
    """The API server, and what tests ask of it."""

    def __init__(self, cluster: Served, registry: FakeRegistry, directory: Path) -> None:
        self._cluster, self._registry, self._directory = cluster, registry, directory
        self._kubeconfig = cluster.do(lambda server: server.kubeconfig(directory / "kubeconfig"))
        self.controllers: list[Controller] = []

    def start(self, name: str) -> Controller:
        """A controller more."""
        self.controllers.append(Controller(name, self._kubeconfig, self._directory))
        return self.controllers[-1]

    def put(self, document: dict[str, Any]) -> None:
        self._cluster.do(lambda server: server.put(document))

    def cache(self) -> dict[str, Any]:
        """The ImageCache."""
        return self._cluster.do(lambda server: server.get("imagecaches.eci.alibabacloud.com", "web"))

    def holder(self) -> str:
        """Who leads."""
        found = self._cluster.do(lambda server: server.all("leases.coordination.k8s.io"))
        return str(found[0]["spec"]["holderIdentity"]).partition("_")[0] if found else ""

    def declare(self) -> None:
        """An ImageCache of a public image."""
        image = f"{self._registry.address}/demo/app:1"
        annotations = {"k8s.aliyun.com/plain-http-registry": self._registry.address}
        self.put(
            {
                "apiVersion": "eci.alibabacloud.com/v1",
                "kind": "ImageCache",
                "metadata": {"name": "web", "annotations": annotations},
                "spec": {"images": [image]},
            }
        )

    def report(self) -> None:
        """The node holds it."""
        found = self.cache()
        entry = {
            "name": "web",
            "uid": found["metadata"]["uid"],
            "generation": 1,
            "phase": "Ready",
            "servingGeneration": 1,
        }
        self.put(
            {
                "apiVersion": "imagecached.dev/v1alpha1",
                "kind": "NodeImageCache",
                "metadata": {"name": "n1"},
                "status": {"handlerReady": True, "caches": [entry]},
            }
        )

    def wait(self, phase: str) -> dict[str, Any]:
        """The status once the cache is in this phase."""
        self._await(lambda: self.cache().get("status", {}).get("phase") == phase, f"phase {phase}")
        status: dict[str, Any] = self.cache()["status"]
        return status

    def wait_leader(self, name: str) -> None:
        """Until this one leads."""
        self._await(lambda: self.holder() == name, f"{name} leading")

    def wait_page(self, controller: Controller, path: str, text: str) -> None:
        """Until the page holds the text."""
        self._await(lambda: text in controller.page(path)[1], f"{text!r} on {path}")

    def matched_pod(self, controller: Controller) -> dict[str, Any]:
        """The first pod that gets a cache, once the replica knows of a node with the handler."""
        pods: list[dict[str, Any]] = []

        def matched() -> bool:
            pods.append(self.create_pod(controller))
            return "runtimeClassName" in pods[-1]["spec"]

        self._await(matched, "a pod that gets a cache")
        return pods[-1]

    def create_pod(self, controller: Controller) -> dict[str, Any]:
        """A pod that wants the best cache, with this replica behind the webhook's Service."""
        service = (_SYSTEM, "imagecached-webhook", 443)
        address = ("127.0.0.1", controller.hook)
        self._cluster.do(lambda server: server.admission.services.update({service: address}))
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"generateName": "web-", "annotations": {"k8s.aliyun.com/eci-image-cache": "true"}},
            "spec": {"containers": [{"name": "web", "image": f"{self._registry.address}/demo/app:1"}]},
        }
        url = f"{self._cluster.server.url}/api/v1/namespaces/default/pods"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(pod).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            created: dict[str, Any] = json.load(answer)
            return created

    def events(self, uid: str) -> set[str]:
        """The reasons of the events about this object."""
        found = self._cluster.do(lambda server: server.all("events"))
        return {event["reason"] for event in found if event["involvedObject"].get("uid") == uid}

    def wait_event(self, uid: str, reason: str) -> None:
        """Until it is told."""
        self._await(lambda: reason in self.events(uid), f"event {reason}")

    def _await(self, question: Any, what: str) -> None:
        def alive() -> bool:
            return any(each.process.poll() is None for each in self.controllers)

        await_true(question, what=what, deadline_seconds=_PATIENCE_SECONDS, alive=alive)


@contextmanager
def staged(directory: Path) -> Iterator[Stage]:
    """An API server with one node, and a registry with one image."""
    server, registry = ApiServer(), FakeRegistry()
    with served(server) as cluster, cluster.beside(registry), ExitStack() as stack:
        registry.put_image("demo/app", "1", [b"layer"])
        cluster.do(lambda each: each.install(_MANIFESTS / "crds", _MANIFESTS / "base/controller"))
        cluster.do(wait_longer)
        stage = Stage(cluster, registry, directory)
        stage.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _SYSTEM}})
        stage.put(node_document("n1"))
        report = {"metadata": {"name": "n1"}, "status": {"handlerReady": True, "caches": []}}
        stage.put({"apiVersion": "imagecached.dev/v1alpha1", "kind": "NodeImageCache", **report})
        stack.callback(
            lambda: [each.end(signal.SIGKILL) for each in stage.controllers if each.process.poll() is None]
        )
        yield stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as found:
        yield found


def test_from_declared_to_ready(stage: Stage) -> None:
    """The digest comes from the registry, the end from the node; metrics show it, SIGTERM ends it with 0."""
    one = stage.start("one")
    stage.declare()
    status = stage.wait("Creating")
    assert status["images"][0]["digest"].startswith("sha256:")
    stage.report()
    assert stage.wait("Ready")["nodesReady"] == 1
    stage.wait_page(one, "/metrics", 'imagecached_cluster_caches{phase="Ready"} 1.0')
    assert "imagecached_cluster_leading 1.0" in one.page("/metrics")[1]
    stage.wait_page(one, "/readyz", "ok")
    assert one.page("/livez") == (200, "ok\n")
    assert one.end(signal.SIGTERM) == 0
    assert stage.holder() == ""
    assert '"level": "error"' not in one.log.read_text()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_another_takes_over(stage: Stage, how: signal.Signals) -> None:
    """At once when the leader stops in order, after its term when it is killed; the work goes on."""
    one = stage.start("one")
    stage.wait_leader("one")
    two = stage.start("two")
    stage.declare()
    stage.wait("Creating")
    stage.wait_page(two, "/metrics", "imagecached_cluster_leading 0.0")
    one.end(how)
    stage.report()
    stage.wait_leader("two")
    stage.wait("Ready")


def test_every_replica_answers_pods(stage: Stage) -> None:
    """The one that leads and the one that waits alike: the same digest, RuntimeClass and event."""
    replicas = [stage.start("one"), stage.start("two")]
    stage.declare()
    stage.wait("Creating")
    stage.report()
    digest = stage.wait("Ready")["serving"][0]["digest"]
    for replica in replicas:
        stage.wait_page(replica, "/readyz", "ok")
        pod = stage.matched_pod(replica)
        assert pod["spec"]["runtimeClassName"] == "imagecached"
        assert pod["spec"]["containers"][0]["image"].endswith(f"/demo/app:1@{digest}")
        stage.wait_event(pod["metadata"]["uid"], "SuccessfulHitImageCache")
        outcome = 'imagecached_cluster_admission_seconds_count{outcome="full"} 1.0'
        stage.wait_page(replica, "/metrics", outcome)


def test_a_cluster_that_cannot_be_named_is_said_in_one_line(tmp_path: Path) -> None:
    """No traceback, and the exit code of what is missing."""
    config = tmp_path / "config.toml"
    config.write_text(f'[kubernetes]\nkubeconfig = "{tmp_path}/none"\n')
    argv: list[str | Path] = [BIN / "imagecached", "controller", "--config", config]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == f"imagecached: kubeconfig {tmp_path}/none does not exist"
