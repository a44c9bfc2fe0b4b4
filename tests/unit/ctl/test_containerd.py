"""containerd-config: what it takes and what it says; what it prints is tried in tests/unit/dropin."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.unit.ctl.conftest import Ctl


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A containerd that only knows its version, and no other."""
    path = tmp_path / "bin/containerd"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\necho containerd github.com/containerd/containerd/v2 2.1.9 abc\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent))
    return path


def test_the_version_is_that_of_the_host(alone: Ctl, program: Path, tmp_path: Path) -> None:
    """Unless another is asked for. Places may be others; what containerd reads now is taken into account."""
    config = tmp_path / "config.toml"
    config.write_text("version = 3\n[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'zfs'\n")
    ended = alone(
        "containerd-config", "--mode", "handler", "--config", str(config), "--root", "/r", "--snapshots", "/s"
    )
    assert (ended.code, ended.err) == (0, "")
    document = tomllib.loads(ended.out)
    assert document["proxy_plugins"]["imagecached"]["address"] == "/s"
    assert document["proxy_plugins"]["imagecached"]["exports"]["root"] == "/r"
    unpackers = document["plugins"]["io.containerd.transfer.v1.local"]["unpack_config"]
    assert [each["snapshotter"] for each in unpackers] == ["zfs", "imagecached"]
    other = alone("containerd-config", "--mode", "default", "--version", "1.6", "--config", "/none").out
    assert tomllib.loads(other)["version"] == 2


def test_what_it_cannot_do(alone: Ctl, program: Path) -> None:
    """No mode, a version that cannot, no version at all: the reason, and the exit code of its kind."""
    assert "say --mode" in alone("containerd-config").err
    refused = alone("containerd-config", "--mode", "handler", "--version", "1.6")
    assert (refused.code, "needs 1.7" in refused.err) == (8, True)
    program.unlink()
    absent = alone("containerd-config", "--mode", "default")
    assert (absent.code, "no containerd is found" in absent.err) == (2, True)
