"""The rules of the house hold: locked requirements, import contracts, the unit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from imagecached.dropin import Places

PROJECT: Final = Path(__file__).resolve().parents[2]
UNIT: Final = PROJECT / "systemd/imagecached.service"
SOCKET_UNIT: Final = PROJECT / "systemd/imagecached-snapshots.socket"


@pytest.mark.parametrize("name", ["runtime", "build", "dev"])
def test_requirements_are_locked_to_digests_and_name_no_index(name: str) -> None:
    """Each requirement has one version and digests; nothing says where to get it."""
    text = (PROJECT / f"requirements/{name}.txt").read_text()
    for requirement in text.replace("\\\n", "").splitlines():
        assert re.fullmatch(r"[a-z0-9.-]+==\S+ (; [^-]+)?( *--hash=sha256:[0-9a-f]{64})+", requirement), (
            requirement
        )


def test_every_dependency_is_locked() -> None:
    """What the project asks for is in the lock that it is installed from."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    asked = {re.split(r"[><=~! ]", dependency)[0] for dependency in project["dependencies"]}
    for name in ("runtime", "dev"):
        locked = set(
            re.findall(r"^([a-z0-9.-]+)==", (PROJECT / f"requirements/{name}.txt").read_text(), re.M)
        )
        assert asked <= locked


def test_the_client_is_installed_with_its_own_script() -> None:
    """The one that pip makes of an entry point takes twice as long to start."""
    installed = (Path(sys.executable).parent / "imagecachectl").read_text().splitlines()
    assert installed[0].startswith("#!/")
    assert installed[1:] == (PROJECT / "daemon/bin/imagecachectl").read_text().splitlines()[1:]


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("store", "import imagecached.images", "a module imports only from lower levels"),
        ("store", "import imagecached.mounts", "a module imports only from lower levels"),
        ("oci", "import asyncio", "oci is pure"),
        ("oci", "import os", "oci is pure"),
        ("ctl", "import imagecached.aio", "the client knows nothing of the daemon"),
        ("images", "import aiohttp", "HTTP lives in"),
        ("images", "import sqlite3", "SQL lives in store"),
        ("api", "import rich", "tables and command parsing weigh on the command lines only"),
    ],
)
def test_an_import_against_the_order_is_caught(
    module: str, statement: str, contract: str, tmp_path: Path
) -> None:
    """Each contract holds in a house without imports and breaks with one wrong import."""
    rules = Path(shutil.copy(PROJECT / "pyproject.toml", tmp_path)).read_text()
    for name in _modules(tomllib.loads(rules)["tool"]["importlinter"]["contracts"]):
        file = tmp_path / name.replace(".", "/") / "__init__.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert _broken_contracts(tmp_path) == []
    (tmp_path / "imagecached" / module / "__init__.py").write_text(f"{statement}\n")
    assert any(name.startswith(contract) for name in _broken_contracts(tmp_path))


def _modules(contracts: list[dict[str, Any]]) -> set[str]:
    """Every module of ours that a contract names."""
    found = {"imagecached"}
    for contract in contracts:
        prefixes = [f"{container}." for container in contract.get("containers", ())]
        layers = [name for layer in contract.get("layers", ()) for name in re.findall(r"[\w.]+", layer)]
        found |= {prefix + layer for prefix in prefixes for layer in layers}
        lists = ("modules", "source_modules", "forbidden_modules")
        named = [name for key in lists for name in contract.get(key, ())]
        found |= {name for name in named if name.startswith("imagecached.")}
    return found


def _broken_contracts(directory: Path) -> list[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": "."}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    return re.findall(r"^(.+) BROKEN", done.stdout, re.M)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """``systemd-analyze verify`` has nothing to say about any line."""
    copy = tmp_path / UNIT.name
    # Only the program is another: it must exist, and the service is not installed here.
    copy.write_text(
        UNIT.read_text().replace("ExecStart=/opt/imagecached/venv/bin/imagecached", "ExecStart=/bin/true")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_accepts_the_socket_unit(tmp_path: Path) -> None:
    """With the service that it starts, changed by the settings that come with it."""
    service, settings = tmp_path / UNIT.name, tmp_path / f"{UNIT.name}.d/containerd.conf"
    service.write_text(
        UNIT.read_text().replace("ExecStart=/opt/imagecached/venv/bin/imagecached", "ExecStart=/bin/true")
    )
    settings.parent.mkdir()
    shutil.copy(PROJECT / "systemd/containerd.conf", settings)
    shutil.copy(SOCKET_UNIT, tmp_path)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / SOCKET_UNIT.name],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_socket_is_there_before_containerd_and_for_root_alone() -> None:
    """It names the place that the daemon is told of, and outlives a daemon that fails for long."""
    unit, settings = SOCKET_UNIT.read_text(), (PROJECT / "systemd/containerd.conf").read_text()
    place = re.search("^ListenStream=(.*)$", unit, re.M)
    assert place
    assert Path(place[1]) == Places().socket
    assert f"Environment=IMAGECACHED_SNAPSHOTTER__SOCKET={place[1]}\n" in settings
    for line in (
        "Before=containerd.service",
        "SocketMode=0600",
        "TriggerLimitIntervalSec=0",
        "WantedBy=sockets.target",
    ):
        assert f"\n{line}\n" in unit
    assert f"Sockets={SOCKET_UNIT.name}\n" in settings


def test_the_unit_keeps_the_mount_namespace_of_the_host_and_the_calls_that_we_make() -> None:
    """No setting is among those that hide our mounts from the host or forbid what we call; the unit names
    them all.
    """
    lines = UNIT.read_text().splitlines()
    hiding = {word for line in lines if line.startswith("#   ") for word in line.removeprefix("#   ").split()}
    assert {"PrivateMounts", "PrivateTmp", "ProtectSystem", "ReadWritePaths", "DynamicUser"} <= hiding
    forbidding = {name for line in lines for name in re.findall(r"^# \* ([A-Z]\w+)(?:, \w+)*  ", line)}
    assert forbidding == {"ProtectClock", "MemoryDenyWriteExecute", "RestrictSUIDSGID"}
    settings = {line.partition("=")[0] for line in lines if "=" in line and not line.startswith("#")}
    assert settings & (hiding | forbidding) == set()


def test_the_unit_and_the_scripts_agree_on_places() -> None:
    """The unit starts what the installer installs, with the folders that the uninstaller removes."""
    unit, install, uninstall = (
        path.read_text() for path in (UNIT, PROJECT / "scripts/install", PROJECT / "scripts/uninstall")
    )
    assert "ExecStart=/opt/imagecached/venv/bin/imagecached serve" in unit
    assert "/opt/imagecached/venv/bin/$program" in install
    assert "/opt/imagecached/venv/bin/$program" in uninstall
    assert "StateDirectory=imagecached\n" in unit
    assert "root=/var/lib/imagecached\n" in uninstall
