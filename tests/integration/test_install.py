"""scripts/install and scripts/uninstall, tried below a folder: no service, no group, no package."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.containerd import CONTAINERD2
from tests.support.mounts import unmount_below

_FORM: Final = "version = 3"
PROJECT: Final = Path(__file__).resolve().parents[2]

# Fetching and installing the locked requirements takes as long as the network and the disk take.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that stands for the root of a machine with imagecached installed."""
    folder = tmp_path_factory.mktemp("machine")
    _run(folder, PROJECT / "scripts/install")
    yield folder
    unmount_below(folder)


def _run(machine: Path, script: Path, *arguments: str, expect: int = 0) -> str:
    done = subprocess.run(
        [script, *arguments, "--destdir", machine], capture_output=True, text=True, check=False
    )
    assert done.returncode == expect, done.stderr
    return done.stderr


def _files(machine: Path) -> set[str]:
    return {
        str(found.relative_to(machine))
        for found in machine.rglob("*")
        if not found.is_dir() and "venv" not in found.parts
    }


def test_what_is_installed_answers(machine: Path) -> None:
    """The program runs from the virtual environment of the installation, without this clone."""
    program = machine / "opt/imagecached/venv/bin/imagecached"
    done = subprocess.run([program, "version"], cwd=machine, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.1.0" in done.stdout


def test_an_installation_goes_without_a_trace(machine: Path) -> None:
    """The files are those that the script's head names; an upgrade keeps an edited configuration, uninstall
    keeps that and the images, --purge keeps nothing at all."""
    config, stored = machine / "etc/imagecached/config.toml", machine / "var/lib/imagecached/version"
    assert _files(machine) == {
        "etc/imagecached/config.toml",
        "etc/systemd/system/imagecached.service",
        *(f"opt/imagecached/{name}" for name in ("LICENSE", "README.md", "config.sha256", "uninstall")),
        *(f"usr/local/bin/{name}" for name in ("imagecached", "imagecachectl")),
    }
    assert (machine / "usr/local/bin/imagecachectl").readlink() == Path(
        "/opt/imagecached/venv/bin/imagecachectl"
    )

    stored.parent.mkdir(parents=True)
    stored.write_text("{}")
    config.write_text('[log]\nlevel = "debug"\n')
    assert "Kept your" in _run(machine, PROJECT / "scripts/install")
    assert config.read_text() == '[log]\nlevel = "debug"\n'

    assert str(config) in _run(machine, machine / "opt/imagecached/uninstall")
    assert _files(machine) == {"etc/imagecached/config.toml", "var/lib/imagecached/version"}
    _run(machine, PROJECT / "scripts/uninstall", "--purge")
    assert _files(machine) == set()


def test_an_untouched_configuration_goes_with_the_installation(tmp_path: Path) -> None:
    """Uninstalling needs no --purge to remove the file as it was shipped."""
    config, home = tmp_path / "etc/imagecached/config.toml", tmp_path / "opt/imagecached"
    for folder in (config.parent, home):
        folder.mkdir(parents=True)
    config.write_text("# as shipped\n")
    digest = hashlib.sha256(config.read_bytes()).hexdigest()
    (home / "config.sha256").write_text(f"{digest}  -\n")
    _run(tmp_path, PROJECT / "scripts/uninstall")
    assert _files(tmp_path) == set()


@pytest.mark.root
def test_uninstall_refuses_while_a_container_stands_on_an_image(tmp_path: Path) -> None:
    """It names the mount and changes nothing; idle layer mounts are no reason to refuse."""
    layer, elsewhere = tmp_path / "var/lib/imagecached/m/1", tmp_path / "elsewhere"
    for folder in (layer, tmp_path / "m2", elsewhere):
        folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", layer], check=True)
    options = f"lowerdir={layer}:{tmp_path / 'm2'}"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "none", elsewhere], check=True)
    try:
        said = _run(tmp_path, PROJECT / "scripts/uninstall", "--purge", expect=1)
        assert str(elsewhere) in said
        assert os.path.ismount(layer)
        subprocess.run(["umount", elsewhere], check=True)
        _run(tmp_path, PROJECT / "scripts/uninstall", "--purge")
        assert not (tmp_path / "var/lib/imagecached").exists()
    finally:
        unmount_below(tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A folder that stands for the root of a machine with a configured containerd that does not run."""
    config = tmp_path / "etc/containerd/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'# mine\n{_FORM}\n[grpc]\naddress = "{tmp_path}/no.sock"\n')
    return tmp_path


@pytest.mark.containerd
@pytest.mark.containerd2
def test_containerd_is_set_up_and_set_back(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit's socket and settings, containerd's drop-in; all of it goes again."""
    monkeypatch.setenv("PATH", f"{CONTAINERD2}:{os.environ['PATH']}")
    config = node / "etc/containerd/config.toml"
    before = config.read_bytes()
    _run(node, PROJECT / "scripts/install", "--containerd", "handler")
    units = node / "etc/systemd/system"
    assert "MODE=handler" in (units / "imagecached.service.d/containerd.conf").read_text()
    assert (units / "imagecached-snapshots.socket").exists()
    dumped = subprocess.run(
        ["containerd", "--config", config, "config", "dump"], capture_output=True, text=True, check=True
    )
    runtimes = tomllib.loads(dumped.stdout)["plugins"]["io.containerd.cri.v1.runtime"]["containerd"][
        "runtimes"
    ]
    assert runtimes["imagecached"]["snapshotter"] == "imagecached"
    _run(node, node / "opt/imagecached/uninstall", "--purge")
    assert config.read_bytes() == before
    assert _files(node) == {"etc/containerd/config.toml"}


@pytest.mark.containerd
def test_a_node_that_would_break_is_left_alone(node: Path) -> None:
    """The reason is told and nothing is installed: here a containerd without handlers."""
    before = _files(node)
    said = _run(node, PROJECT / "scripts/install", "--containerd", "handler", expect=1)
    assert "made for containerd 2" in said or "handler mode needs 1.7" in said
    assert _files(node) == before
    assert "expected handler or default" in _run(
        node, PROJECT / "scripts/install", "--containerd", "x", expect=2
    )
