"""A daemon as a node of a cluster: the process, a real registry, an emulated API server over TLS."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagecached.imagecache import EVERYBODY, ImageStatus, parse_object, parse_status, phases, status_document
from imagecached.oci.digest import Digest
from tests.fakes.certificates import Authority, server_context
from tests.support.apiserver import ApiServer, User
from tests.support.apiserver_thread import Served, served
from tests.support.containerd import CONTAINERD2
from tests.support.daemon import Daemon
from tests.support.demo import HELLO, push_demo
from tests.support.mounts import unmount_below
from tests.support.nodes import push_pause
from tests.support.processes import await_true
from tests.support.registered import serve_registered
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

_MANIFESTS = Path(__file__).parents[2] / "daemonset"
_CACHES = "imagecaches.eci.alibabacloud.com"
_REPORTS = "nodeimagecaches.imagecached.dev"
_SECONDS = 30.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Served]:
    """A cluster with one Node, and the right of its daemon to follow it."""
    authority = Authority(tmp_path)
    tokens = {"of-the-node": User.service_account("imagecached-system", "imagecached-node")}
    server = ApiServer(tls=server_context(authority.issue("server")), tokens=tokens, rbac=True)
    with served(server) as up:
        up.do(lambda s: s.install(_MANIFESTS / "crds", _MANIFESTS / "base/node/rbac.yaml"))
        info = {"operatingSystem": "linux", "architecture": "amd64"}
        up.do(lambda s: s.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
                               "status": {"nodeInfo": info}}))  # fmt: skip
        file = tmp_path / "kubeconfig"
        up.do(lambda s: s.kubeconfig(file, token="of-the-node", authority=authority.certificate))
        yield up


@pytest.fixture
def daemon(cluster: Served, tmp_path: Path) -> Iterator[Daemon]:
    """The daemon of that Node."""
    kubernetes = {"node": "n1", "kubeconfig": str(tmp_path / "kubeconfig")}
    running = Daemon(tmp_path / "daemon", kubernetes=kubernetes)
    running.start()
    try:
        yield running
    finally:
        if running.process is not None:
            running.stop()
        unmount_below(tmp_path)


def _declare(cluster: Served, name: str, image: str, digest: str, registry: Registry) -> None:
    """As a user and the controller."""

    def act(server: ApiServer) -> None:
        found = server.put(
            {
                "apiVersion": "eci.alibabacloud.com/v1",
                "kind": "ImageCache",
                "metadata": {
                    "name": name,
                    "annotations": {"k8s.aliyun.com/plain-http-registry": registry.address},
                },
                "spec": {"images": [image], "imageCacheSize": 20},
            }
        )
        cache = parse_object(found)
        status = phases.begin(cache, parse_status({}), time.time())
        status = phases.resolve(cache, status, [ImageStatus(image, Digest.parse(digest))], time.time())
        server.put({**found, "status": status_document(replace(status, rollout_window=EVERYBODY))})

    cluster.do(act)


def _entry(cluster: Served, name: str) -> dict[str, Any]:
    return next((each for each in _report(cluster).get("caches", []) if each["name"] == name), {})


def _doctor(daemon: Daemon) -> str:
    """What doctor thinks of the cluster."""
    shown = daemon.ctl("-o", "json", "doctor", check=False).stdout
    return next(str(each["verdict"]) for each in json.loads(shown)["findings"] if each["name"] == "cluster")


def _await(what: str, holds: Callable[[], bool], daemon: Daemon) -> None:
    process = daemon.process
    assert process is not None
    await_true(holds, what=what, deadline_seconds=_SECONDS, alive=lambda: process.poll() is None)


def test_a_node_of_a_cluster(cluster: Served, daemon: Daemon, registry: Registry, tmp_path: Path) -> None:
    """Declared, resolved, fetched, reported; known again after SIGKILL without the API server; given back."""
    push_demo(registry, tmp_path)
    image = registry.reference(HELLO)
    digest = daemon.ask("pull", image)["images"][0]["manifest_digest"]
    daemon.ctl("rm", image)
    _declare(cluster, "hello", image, digest, registry)
    _await("ready", lambda: _entry(cluster, "hello").get("phase") == "Ready", daemon)
    shown = daemon.ctl("get", "imagecaches").stdout
    assert "hello" in shown
    assert "Ready" in shown

    assert _doctor(daemon) == "ok"
    cluster.do(lambda server: server.partition())
    _await("noticed", lambda: _doctor(daemon) == "warn", daemon)
    daemon.stop(signal.SIGKILL)
    daemon.start()
    assert "Ready" in daemon.ctl("get", "imagecaches").stdout
    assert daemon.ctl("run", f"{image.rpartition(':')[0]}@{digest}").stdout == "Hello, world!\n"

    cluster.do(lambda server: server.heal())
    cluster.do(lambda server: server.remove(_CACHES, "hello"))
    _await("given back", lambda: "hello" not in daemon.ctl("get", "imagecaches").stdout, daemon)


@pytest.mark.containerd
@pytest.mark.containerd2
def test_the_handler_and_the_memory(cluster: Served, registry: Registry, tmp_path: Path) -> None:
    """Our runtime handler of a real containerd is seen; with everything on the daemon stays
    within its 64 MiB.
    """
    pause = push_pause(registry, tmp_path / "pause")
    sections = {"kubernetes": {"node": "n1", "kubeconfig": str(tmp_path / "kubeconfig")}}
    with serve_registered(registry, pause, "handler", CONTAINERD2, sections=sections) as node:
        _await("handler", lambda: _report(cluster).get("handlerReady") is True, node.daemon)
        assert node.daemon.process is not None
        assert _rss_mib(node.daemon.process.pid) <= 64


def _report(cluster: Served) -> dict[str, Any]:
    reports = cluster.do(lambda server: server.all(_REPORTS))
    status: dict[str, Any] = reports[0].get("status", {}) if reports else {}
    return status


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # every process has it
