"""The drop-ins that we print, read by real containerds."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from imagecached.dropin import Mode, Places, Version, explained, read
from tests.support.containerd import CONTAINERD2, STABLE
from tests.support.toml import toml

pytestmark = [pytest.mark.containerd]

OLD = "io.containerd.grpc.v1.cri"
RUNTIMES = {"runc": {"runtime_type": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}}}
OLD_FORM = {
    "version": 2,
    "plugins": {
        OLD: {"sandbox_image": "pause:x", "max_concurrent_downloads": 7, "containerd": {"runtimes": RUNTIMES}}
    },
}
NEW_FORM = {
    "version": 3,
    "plugins": {
        "io.containerd.cri.v1.images": {
            "pinned_images": {"sandbox": "pause:x"},
            "max_concurrent_downloads": 7,
        },
        "io.containerd.cri.v1.runtime": {"containerd": {"runtimes": RUNTIMES}},
    },
}


def program(programs: Path | None) -> str:
    return str(programs / "containerd") if programs else "containerd"


def with_drop_in(folder: Path, programs: Path | None, mode: Mode, main: dict[str, Any]) -> Any:
    """What containerd makes of the node's file and our drop-in together."""
    config, drop_in = folder / "config.toml", folder / "drop-in.toml"
    config.write_text(toml(main))
    said = subprocess.run([program(programs), "--version"], capture_output=True, text=True, check=True).stdout
    version = Version.parse(said)
    drop_in.write_text(explained(version, mode, read(config, version), Places()))
    config.write_text(toml({**main, "imports": [str(drop_in)]}))
    dumped = subprocess.run(
        [program(programs), "--config", config, "config", "dump"], capture_output=True, text=True, check=True
    )
    assert "unknown" not in dumped.stderr.lower()
    return tomllib.loads(dumped.stdout)


@pytest.mark.parametrize("main", [{}, OLD_FORM], ids=["empty", "filled"])
def test_containerd_1(main: dict[str, Any], tmp_path: Path) -> None:
    """Default mode is in force, and the node keeps its runtimes and settings."""
    dump = with_drop_in(tmp_path, STABLE, "default", main)
    cri = dump["plugins"][OLD]
    assert cri["containerd"]["snapshotter"] == "imagecached"
    assert cri["containerd"]["disable_snapshot_annotations"] is False
    assert set(cri["containerd"]["runtimes"]) == {"runc", "imagecached"}
    assert dump["proxy_plugins"]["imagecached"]["address"] == "/run/imagecached/snapshots.sock"
    if main:
        assert (cri["sandbox_image"], cri["max_concurrent_downloads"]) == ("pause:x", 7)
        for runtime in cri["containerd"]["runtimes"].values():
            assert runtime["options"]["SystemdCgroup"] is True


@pytest.mark.containerd2
@pytest.mark.parametrize("mode", ["handler", "default"])
@pytest.mark.parametrize("main", [{}, OLD_FORM, NEW_FORM], ids=["empty", "old", "new"])
def test_containerd_2(main: dict[str, Any], mode: Mode, tmp_path: Path) -> None:
    """Both modes over files of both forms; the node keeps its runtimes and settings."""
    dump = with_drop_in(tmp_path, CONTAINERD2, mode, main)
    images, runtime = (dump["plugins"][f"io.containerd.cri.v1.{part}"] for part in ("images", "runtime"))
    assert images["snapshotter"] == ("imagecached" if mode == "default" else "overlayfs")
    assert images["runtime_platforms"]["imagecached"]["snapshotter"] == "imagecached"
    runtimes = runtime["containerd"]["runtimes"]
    assert {name: each["snapshotter"] for name, each in runtimes.items()} == {
        "runc": "", "imagecached": "imagecached",
    }  # fmt: skip
    unpackers = dump["plugins"]["io.containerd.transfer.v1.local"]["unpack_config"]
    assert {each["snapshotter"] for each in unpackers} == {"overlayfs", "imagecached"}
    assert dump["proxy_plugins"]["imagecached"]["exports"]["root"] == "/var/lib/imagecached"
    if main:
        assert (images["pinned_images"]["sandbox"], images["max_concurrent_downloads"]) == ("pause:x", 7)
        assert images["disable_snapshot_annotations"] is False
        for each in runtimes.values():
            assert each["options"]["SystemdCgroup"] is True
