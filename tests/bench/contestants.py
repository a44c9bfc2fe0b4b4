"""What is measured: a daemon that starts on an empty store, pulls an image, and shows the prepared tree.

Every contestant keeps all its state below one folder, which the runner makes a fresh file system for each
run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.support.processes import await_true, stop

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONTAINERD_CONFIG = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{folder}/c.sock"
"""


class Contestant:
    """``start`` returns when the daemon answers; ``pull`` is what gets timed."""

    name: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        raise NotImplementedError

    def pull(self, image: str) -> list[str]:
        """The command that pulls and prepares ``image``."""
        raise NotImplementedError

    def mount(self, image: str, target: Path) -> None:
        raise NotImplementedError

    def umount(self, target: Path) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        if self.process is not None:
            stop(self.process)
            self.process = None

    def cpu_seconds(self) -> float:
        """CPU of the daemon, its threads and the children it has waited for."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")

    def _launch(self, argv: list[str], ready: Callable[[], bool], env: dict[str, str] | None = None) -> None:
        log = (self.folder.parent / f"{self.name}.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})}
            )
        process = self.process
        await_true(ready, what=self.name, deadline_seconds=30, alive=lambda: process.poll() is None)


class Ours(Contestant):
    name = "imagecached"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bin = Path(sys.executable).parent
        self.ctl = [str(self.bin / "imagecachectl"), "--socket", str(folder / "sock")]

    def start(self) -> None:
        config = self.folder / "config.toml"
        config.write_text('[http]\naddress = ""\n')
        argv = [str(self.bin / "imagecached"), "serve", "--root", str(self.folder / "root")]
        self._launch(
            [*argv, "--socket", str(self.folder / "sock"), "--config", str(config)],
            lambda: _succeeds([*self.ctl, "get", "images"]),
        )

    def pull(self, image: str) -> list[str]:
        return [*self.ctl, "pull", image]

    def mount(self, image: str, target: Path) -> None:
        subprocess.run([*self.ctl, "mount", image, str(target)], check=True, stdout=subprocess.DEVNULL)

    def umount(self, target: Path) -> None:
        subprocess.run([*self.ctl, "umount", str(target)], check=True, stdout=subprocess.DEVNULL)


class Containerd(Contestant):
    """containerd with its defaults: overlayfs, layers inflated by Go unless ``igzip``."""

    def __init__(self, folder: Path, *, binaries: Path, name: str, igzip: bool = False) -> None:
        super().__init__(folder)
        self.name = name
        self.ctr = [str(binaries / "ctr"), "-a", str(folder / "c.sock")]
        self.daemon = str(binaries / "containerd")
        self.env = {} if igzip else {"CONTAINERD_DISABLE_PIGZ": "1", "CONTAINERD_DISABLE_IGZIP": "1"}

    def start(self) -> None:
        config = self.folder / "config.toml"
        config.write_text(CONTAINERD_CONFIG.format(folder=self.folder))
        self._launch(
            [self.daemon, "-c", str(config)],
            lambda: _succeeds([*self.ctr, "version"]),
            env=self.env,
        )

    def pull(self, image: str) -> list[str]:
        return [*self.ctr, "images", "pull", "--plain-http", "--snapshotter", "overlayfs", image]

    def mount(self, image: str, target: Path) -> None:
        argv = [*self.ctr, "images", "mount", "--snapshotter", "overlayfs", image, str(target)]
        subprocess.run(argv, check=True, capture_output=True)

    def umount(self, target: Path) -> None:
        subprocess.run([*self.ctr, "images", "unmount", "--rm", str(target)], check=True, capture_output=True)


class Blobs(Contestant):
    """The floor: all blobs fetched at once into files, nothing looked at, nothing made durable."""

    name = "blobs"

    def start(self) -> None:
        (self.folder / "root").mkdir()

    def pull(self, image: str) -> list[str]:
        address, _, rest = image.partition("/")
        name, _, tag = rest.rpartition(":")
        base = f"http://{address}/v2/{name}"
        request = urllib.request.Request(f"{base}/manifests/{tag}", headers={"Accept": _MANIFEST})
        with urllib.request.urlopen(request) as answer:
            manifest = json.load(answer)
        digests = [part["digest"] for part in (manifest["config"], *manifest["layers"])]
        argv = ["curl", "--fail", "--silent", "--parallel", "--parallel-max", "8"]
        for digest in digests:
            argv += [f"{base}/blobs/{digest}", "--output", str(self.folder / "root" / digest[7:])]
        return argv

    def cpu_seconds(self) -> float:
        return 0.0  # curl is a child of the runner


def _succeeds(argv: list[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def contestants(folder: Path) -> list[Contestant]:
    """Ours, the distribution's containerd, and another if ``BENCH_CONTAINERD`` names a folder of binaries."""
    found: list[Contestant] = [Ours(folder), Blobs(folder)]
    system = shutil.which("containerd")
    if system:
        found.append(Containerd(folder, binaries=Path(system).parent, name="containerd"))
    if other := os.environ.get("BENCH_CONTAINERD"):
        found.append(Containerd(folder, binaries=Path(other), name="containerd-other"))
        found.append(Containerd(folder, binaries=Path(other), name="containerd-other-igzip", igzip=True))
    return found
