"""ImageCaches on one machine as its operator meets them: files, client, a real registry, real containers."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, serve_daemon
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.processes import await_true
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def demo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with both demo images in it."""
    push_demo(registry, tmp_path_factory.mktemp("demo"))
    return registry


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon on an empty root; its folder of manifests is ``daemon/caches.d``."""
    (tmp_path / "daemon" / "caches.d").mkdir(parents=True)
    with serve_daemon(tmp_path / "daemon") as running:
        yield running


def manifest(name: str, *images: str, **annotations: str) -> str:
    """An ImageCache."""
    return json.dumps(
        {
            "apiVersion": "eci.alibabacloud.com/v1",
            "kind": "ImageCache",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"images": list(images), "imageCacheSize": 25, "retentionDays": 7},
        }
    )


def caches(daemon: Daemon) -> dict[str, Any]:
    """All of them, by name."""
    return {one["name"]: one for one in daemon.ask("get", "imagecaches")["imagecaches"]}


def until(daemon: Daemon, name: str, phase: str | None) -> None:
    """Wait until the cache is in this phase, or gone."""
    await_true(
        lambda: (caches(daemon).get(name) or {"phase": None})["phase"] == phase,
        what=f"{name} {phase}",
        deadline_seconds=30,
        alive=lambda: daemon.process is not None and daemon.process.poll() is None,
    )


def test_from_a_file_to_a_container(demo: Registry, daemon: Daemon, tmp_path: Path) -> None:
    """A file appears: its images get ready and run, by tag or by annotation; it goes, and so do they."""
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    file = tmp_path / "daemon" / "caches.d" / "demo.yaml"
    file.write_text(manifest("demo", hello, shell))
    (tmp_path / "daemon" / "caches.d" / "bad.yaml").write_text("kind: ImageCache\n")
    until(daemon, "demo", "Ready")
    head, row = daemon.ctl("get", "imagecaches").stdout.splitlines()
    assert head.split() == ["NAME", "AGE", "CACHEID", "PHASE", "PROGRESS"]
    assert re.fullmatch(r"demo   \d+s {2,4} imc-[a-z0-9]{20}   Ready   100%", row)
    cache = caches(daemon)["demo"]
    assert cache["bytes_reused"] + cache["bytes_fetched"] == cache["bytes_total"]
    assert daemon.ctl("run", hello).stdout == "Hello, world!\n"
    explicit = f"k8s.aliyun.com/eci-image-snapshot-id={cache['id']}"
    assert daemon.ctl("run", "-a", explicit, hello).stdout == "Hello, world!\n"
    assert daemon.ctl("run", "-a", "k8s.aliyun.com/eci-auto-imc=true", hello).stdout == "Hello, world!\n"
    described = daemon.ctl("describe", cache["id"]).stdout
    assert "prepare" in described
    assert re.search(r"bad\.yaml: apiVersion: must be ", daemon.ctl("doctor", check=False).stdout)
    file.unlink()
    until(daemon, "demo", None)
    await_true(
        lambda: daemon.ask("get", "images")["images"] == [],
        what="images gone", deadline_seconds=10, alive=lambda: True,
    )  # fmt: skip


def test_applied_waited_for_updated_and_deleted(demo: Registry, daemon: Daemon, tmp_path: Path) -> None:
    """With the client alone; a restart forgets nothing; what fails says so with its exit code."""
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    file = tmp_path / "cache.yaml"
    file.write_text(manifest("demo", shell))
    done = daemon.ctl("apply", "-f", file, "--wait")
    assert done.stdout == "imagecache.eci.alibabacloud.com/demo created\n"
    assert "demo: Ready 100%" in done.stderr
    before = caches(daemon)["demo"]
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    daemon.start()
    assert caches(daemon)["demo"] == before
    file.write_text(manifest("demo", shell, hello))
    assert daemon.ctl("apply", "-f", file, "--wait").stdout.endswith("configured\n")
    after = caches(daemon)["demo"]
    assert (after["id"], after["serving_generation"], len(after["serving"])) == (before["id"], 2, 2)
    assert after["bytes_reused"] == before["bytes_total"]
    file.write_text(manifest("demo", shell, hello.rpartition(":")[0] + ":nosuchtag"))
    daemon.ctl("apply", "-f", file)
    until(daemon, "demo", "Updating")
    assert daemon.ctl("run", hello).stdout == "Hello, world!\n"
    assert daemon.ctl("delete", before["id"]).stdout == 'imagecache.eci.alibabacloud.com "demo" deleted\n'
    until(daemon, "demo", None)
    explicit = f"k8s.aliyun.com/eci-imc-id={before['id']}"
    assert daemon.ctl("run", "-a", explicit, hello, check=False).returncode == 3


def test_an_automatic_cache_for_the_next_container(demo: Registry, daemon: Daemon) -> None:
    """A miss makes one, and the second run hits it."""
    hello = demo.reference(HELLO)
    auto = ("-a", "k8s.aliyun.com/eci-image-cache=true")
    first = daemon.ctl("run", *auto, hello)
    assert first.stdout == "Hello, world!\n"
    assert "none 0/1" in first.stderr
    [name] = caches(daemon)
    assert name.startswith("auto-create-for-")
    until(daemon, name, "Ready")
    second = daemon.ctl("run", *auto, hello)
    assert (second.stdout, "full 1/1" in second.stderr) == ("Hello, world!\n", True)
    assert caches(daemon)[name]["automatic"]
    assert caches(daemon)[name]["last_matched"] is not None
