"""daemonset/install and daemonset/uninstall with a real kubectl, against the emulated API server.

What a cluster's controllers would do (pods of a DaemonSet become ready) is played: nothing runs here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.apiserver import ApiServer
from tests.support.apiserver_thread import Served, served
from tests.support.rollouts import play_controllers

FOLDER: Final = Path(__file__).resolve().parents[2] / "daemonset"
SYSTEM: Final = "imagecached-system"
IMAGE: Final = "registry.example:5000/team/imagecached:7"
CRD: Final = "imagecaches.eci.alibabacloud.com"

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here"),
    pytest.mark.timeout(180),
]


@pytest.fixture
def api() -> Iterator[Served]:
    """A cluster of one node, where whatever is applied becomes ready."""
    with served(ApiServer()) as running:
        running.do(_prepare)
        yield running


def _prepare(server: ApiServer) -> None:
    server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})
    play_controllers(server)


@pytest.fixture
def run(api: Served, tmp_path: Path) -> Any:
    """Runs one of the scripts on that cluster; its exit code and what it said."""
    kubectl = tmp_path / "bin/kubectl"
    kubectl.parent.mkdir()
    # Only this is not emulated: the API's own description, against which kubectl checks before it sends.
    unchecked = 'case "$1" in apply) set -- "$@" --validate=false ;; esac'
    kubectl.write_text(f'#!/bin/sh\n{unchecked}\nexec {shutil.which("kubectl")} "$@"\n')
    kubectl.chmod(0o755)
    environment = {
        **os.environ,
        "KUBECONFIG": str(api.server.kubeconfig(tmp_path / "kubeconfig")),
        "HOME": str(tmp_path),
        "PATH": f"{kubectl.parent}:{os.environ['PATH']}",
    }

    def run(script: str, *arguments: str) -> tuple[int, str]:
        command = [str(FOLDER / script), *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stderr

    return run


def _names(api: Served) -> set[tuple[str, str]]:
    def collect(server: ApiServer) -> set[tuple[str, str]]:
        return {
            (stored.document["kind"], stored.meta["name"])
            for _, shelf in server.storage.shelves()
            for stored in shelf.objects.values()
        }

    return api.do(collect)


def test_a_cluster_is_as_before_after_install_and_uninstall(api: Served, run: Any) -> None:
    """All objects come with the image that was said, again changes nothing, and all of them go."""
    before = _names(api)
    code, said = run("install", "--image", IMAGE)
    assert code == 0, said
    pod = api.do(lambda server: server.get("daemonsets.apps", "imagecached", SYSTEM))["spec"]["template"][
        "spec"
    ]
    assert {each["image"] for each in (*pod["initContainers"], *pod["containers"])} == {IMAGE}
    installed = _names(api)
    code, said = run("install", "--image", IMAGE)
    assert code == 0, said
    assert _names(api) == installed

    labels = {"imagecached.dev/handler": "ready", "imagecached.dev/imc-1": "ready", "other": "x"}
    api.do(
        lambda server: server.put(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}}
        )
    )
    code, said = run("uninstall")
    assert code == 0, said
    assert _names(api) == before
    assert api.do(lambda server: server.get("nodes", "n1"))["metadata"]["labels"] == {"other": "x"}
    assert run("uninstall")[0] == 0


def test_install_stops_where_ecis_own_is_installed(api: Served, run: Any) -> None:
    """It names the definition and changes nothing."""
    names = {
        "plural": "imagecaches",
        "singular": "imagecache",
        "kind": "ImageCache",
        "listKind": "ImageCacheList",
    }
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    spec = {"group": "eci.alibabacloud.com", "scope": "Cluster", "names": names, "versions": [version]}
    api.do(
        lambda server: server.put(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": CRD},
                "spec": spec,
            }
        )
    )
    before = _names(api)
    code, said = run("install", "--image", IMAGE)
    assert code == 8
    assert CRD in said
    assert "Nothing was changed" in said
    assert _names(api) == before


def test_uninstall_refuses_while_pods_stand_on_images(api: Served, run: Any) -> None:
    """It names the pods and changes nothing."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"runtimeClassName": "imagecached", "containers": [{"name": "c", "image": "nginx"}]},
    }
    api.do(lambda server: server.put(pod))
    before = _names(api)
    code, said = run("uninstall")
    assert code == 1
    assert "default/p" in said
    assert _names(api) == before


@pytest.mark.parametrize("image", ["", "registry.example:5000/imagecached", "a:1|b"])
def test_an_image_without_version_is_refused(image: str, run: Any, api: Served) -> None:
    """Before the cluster is asked anything."""
    before = _names(api)
    code, said = run("install", *(["--image", image] if image else []))
    assert code == 2
    assert "--image" in said
    assert _names(api) == before
