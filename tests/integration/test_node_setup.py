"""daemonset/node-setup: a containerd learns of us and forgets us, with no more restarts than needed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.containerd import CONTAINERD2
from tests.support.mounts import unmount_below
from tests.support.registry import Registry
from tests.support.restarting import Node, restartable

SCRIPT: Final = Path(__file__).resolve().parents[2] / "daemonset/node-setup"

pytestmark = [
    pytest.mark.root,
    pytest.mark.containerd,
    pytest.mark.containerd2,
    pytest.mark.timeout(180),
]


@pytest.fixture
def node(registry: Registry, tmp_path: Path) -> Iterator[Node]:
    """A node without us."""
    with restartable(registry, tmp_path) as node:
        yield node


def _setup(node: Node, action: str, *, restart: str = "", expect: int = 0) -> str:
    """Run the script as its pod does, but that this host is the node; what it said."""
    directory = node.running.directory
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{CONTAINERD2}:{os.environ['PATH']}",
        "HOST": "env",
        "CONTAINERD_CONFIG": str(node.running.config),
        "CONTAINERD_SOCKET": str(node.running.socket),
        "CONTAINERD_RESTART": restart or node.restart,
        "IMAGECACHED_ROOT": str(directory / "ours"),
        "IMAGECACHED_RUN": str(directory / "run"),
    }
    command = [str(SCRIPT), action]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == expect, done.stderr
    return done.stderr


def _configuration(node: Node) -> dict[str, bytes]:
    folder = node.running.directory
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (*folder.glob("*.toml"), *folder.glob("conf.d/*"), *folder.glob("imagecached/*"))
    }


def test_a_node_is_as_before_after_install_and_remove(node: Node) -> None:
    """One restart each way, none when there is nothing to do, and not a byte is left."""
    before = _configuration(node)
    assert "drop-in changed" in _setup(node, "install")
    assert node.restarts == 1
    dump = subprocess.run(
        [CONTAINERD2 / "containerd", "--config", node.running.config, "config", "dump"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert str(node.running.directory / "run/snapshots.sock") in dump
    installed = _configuration(node)
    assert "drop-in unchanged" in _setup(node, "install")
    assert (node.restarts, _configuration(node)) == (1, installed)

    stored = node.running.directory / "ours/version"
    stored.parent.mkdir()
    stored.write_text("{}")
    _setup(node, "remove")
    assert node.restarts == 2
    assert _configuration(node) == before
    assert not stored.parent.exists()
    _setup(node, "remove")
    assert node.restarts == 2


def test_a_containerd_that_does_not_start_gets_its_configuration_back(node: Node) -> None:
    """The pod says so and fails; nothing of us is left on the node."""
    before = _configuration(node)
    count = node.running.directory / "count"
    once = f"echo >>{count}; [ $(wc -l <{count}) -gt 1 ] && ({node.restart})"
    said = _setup(node, "install", restart=once, expect=1)
    assert "Nothing is left of it" in said
    assert _configuration(node) == before
    assert node.restarts == 1


def test_nothing_is_removed_under_a_container(node: Node) -> None:
    """The script names the mount and changes nothing."""
    _setup(node, "install")
    installed, directory = _configuration(node), node.running.directory
    for name in ("ours/m/1", "lower", "rootfs"):
        (directory / name).mkdir(parents=True)
    options = f"lowerdir={directory}/ours/m/1:{directory}/lower"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", directory / "rootfs"], check=True)
    try:
        said = _setup(node, "remove", expect=1)
        assert str(directory / "rootfs") in said
        assert _configuration(node) == installed
    finally:
        unmount_below(directory / "rootfs")
