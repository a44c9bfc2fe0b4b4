"""The node half of the scenarios: what it starts it ends, and what is left behind is found."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.node import Node, mounts, restart_containerd
from tests.e2e.options import parse
from tests.e2e.report import Failed

PATIENCE = "20"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """This host with everything below one folder."""
    config = tmp_path / "containerd/config.toml"
    config.parent.mkdir()
    config.write_text("version = 3\n")
    options = parse(
        [
            "--image", "unused:1", "--patience", PATIENCE, "--containerd-config", str(config),
            "--containerd-socket", str(tmp_path / "c.sock"),
            "--containerd-restart", f"touch {tmp_path}/restarted",
            "--root", str(tmp_path / "root"), "--run", str(tmp_path / "run"),
        ],
        [],
    )  # fmt: skip
    node = Node(options, "n1")
    yield node
    node.stop()
    node.close()


def test_nothing_is_left_of_nothing(node: Node) -> None:
    """Restoring what was never changed changes nothing, and may be done twice."""
    node.restore()
    node.restore()
    assert node.left_behind() == []


def test_every_changed_setting_is_found(node: Node) -> None:
    """A file of containerd's that is other, new or gone."""
    config = node.options.containerd_config
    (config.parent / "conf.d").mkdir()
    (config.parent / "conf.d/99-imagecached.toml").write_text("version = 3\n")
    config.write_text("version = 3\nimports = []\n")
    assert node.left_behind() == [
        f"configuration {config.parent}/conf.d/99-imagecached.toml",
        f"configuration {config}",
    ]


def test_files_of_the_daemon_go(node: Node) -> None:
    """And are told of while they are there."""
    (node.options.root / "layers").mkdir(parents=True)
    assert node.left_behind() == [f"folder {node.options.root}"]
    node.restore()
    assert node.left_behind() == []


@pytest.mark.root
def test_mounts_of_the_daemon_go(node: Node) -> None:
    """Those that stand on each other, the newest first."""
    outer = node.options.root / "m/1"
    outer.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", outer], check=True)
    (outer / "inner").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", outer / "inner"], check=True)
    assert f"mount {outer}/inner" in node.left_behind()
    node.restore()
    assert list(mounts(node.options.root)) == []
    assert node.left_behind() == []


def test_a_containerd_that_does_not_come_back_is_told(node: Node, tmp_path: Path) -> None:
    """The command ran, and nothing answers."""
    node.options = replace(node.options, patience=0.0)
    with pytest.raises(Failed, match="containerd answers after a restart: not within"):
        restart_containerd(node.options)
    assert (tmp_path / "restarted").exists()


def test_a_controller_that_cannot_start_is_told_with_its_words(node: Node) -> None:
    """At once, not at the deadline; its kubeconfig is for nobody else's eyes."""
    node.log_in("controller", {"kind": "Config", "current-context": "nowhere"})
    kubeconfig = node.folder / "controller.kubeconfig"
    assert kubeconfig.stat().st_mode & 0o077 == 0
    assert json.loads(kubeconfig.read_text())["kind"] == "Config"
    with pytest.raises(Failed, match=r"the controller ended: .*kubeconfig"):
        node.start_controller()


def test_a_command_that_fails_is_told_with_its_words(node: Node) -> None:
    """The drop-in cannot be made for a program that is not there."""
    with pytest.raises(Failed, match=r"the drop-in: .*imagecached containerd install"):
        node.install_drop_in()
