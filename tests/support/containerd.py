"""containerd with a root and socket of its own: what our trees must equal, and what uses our snapshots.

Needs root. Everything is below one folder and gone with it. ``STABLE`` is the distribution's, the others
are those of other Debians, if ``scripts/setup`` found them. CRI is off unless a pause image is given.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from tests.support.mounts import unmount_below
from tests.support.processes import NotStarted, await_true
from tests.support.toml import toml

STABLE: Final[Path | None] = None
"""The programs on PATH."""
_CACHE: Final = Path(__file__).resolve().parents[2] / ".cache"
CONTAINERD17: Final = _CACHE / "tools-trixie/usr/bin"
"""A folder with containerd 1.7 and its ``ctr``."""
CONTAINERD2: Final = _CACHE / "tools-sid/usr/bin"
"""The same of containerd 2."""

NAME: Final = "imagecached"
"""Of our snapshotter and of the runtime handler that uses it."""
Mode = Literal["handler", "default"]

_DISABLED: Final = (
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
)
_CRI: Final = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime")
_PATIENCE_SECONDS: Final = 30.0
_SILENT: Final = "timed out waiting for server handshake"
_SILENT_SECONDS: Final = 10.0


class Containerd:
    """One root and its containerd; :meth:`start` and :meth:`stop` may be repeated."""

    def __init__(
        self, directory: Path, programs: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.socket = directory / "c.sock"
        self.config = directory / "config.toml"
        self.log = directory / "log"
        self.programs = programs
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = {**os.environ, **(environment or {})}
        if programs:  # its own shim, not that of the other version
            self._environment["PATH"] = f"{programs}:{os.environ['PATH']}"

    def start(self) -> None:
        """Start and wait until it answers."""
        command = ["setpriv", "--pdeathsig", "KILL", "--", _program("containerd", self.programs)]
        with self.log.open("ab") as log:
            self.process = process = subprocess.Popen(
                [*command, "--config", self.config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self._environment, start_new_session=True,
            )  # fmt: skip
        try:
            await_true(
                self._answers,
                what="containerd",
                deadline_seconds=_PATIENCE_SECONDS,
                alive=lambda: process.poll() is None,
            )
        except NotStarted as error:
            self.stop(signal.SIGKILL)
            raise NotStarted(f"{error}: {self.log.read_text(errors='replace')[-3000:]}") from None

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal and wait for the end; containers run on."""
        assert self.process is not None
        self.process.send_signal(number)
        try:
            self.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def ctr(self, *arguments: str | Path) -> str:
        """Run ``ctr`` against this containerd; its output, or CalledProcessError with its words as a note.

        containerd answers by itself, for some seconds, while it waits to try again a snapshotter that was
        silent: it is asked again then.
        """
        command = [_program("ctr", self.programs), "--address", str(self.socket), *map(str, arguments)]
        deadline = time.monotonic() + _SILENT_SECONDS
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        while done.returncode and _SILENT in done.stderr and time.monotonic() < deadline:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
            error.add_note(done.stderr.strip())
            raise error
        return done.stdout

    def pull(self, reference: str) -> None:
        """Pull an image of this host's platform and unpack it with overlayfs."""
        self.ctr("images", "pull", "--hosts-dir", self.certs, "--snapshotter", "overlayfs", reference)

    @contextmanager
    def mounted(self, reference: str) -> Iterator[Path]:
        """The tree of a pulled image, mounted read-only for the length of the block."""
        target = Path(tempfile.mkdtemp(prefix="view-", dir=self.directory))
        self.ctr("images", "mount", "--snapshotter", "overlayfs", reference, target)
        try:
            yield target
        finally:
            self.ctr("images", "unmount", "--rm", "--snapshotter", "overlayfs", target)
            target.rmdir()

    def trust_plain_http(self, address: str) -> None:
        """Let pulls from the registry at ``host:port`` use HTTP, by a ``hosts.toml``."""
        folder = self.certs / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(
            f'server = "http://{address}"\n[host."http://{address}"]\ncapabilities = ["pull", "resolve"]\n'
        )

    def collect_garbage(self) -> None:
        """Make a round of garbage collection, and wait for its end."""
        lease = self.ctr("leases", "create").strip()
        self.ctr("leases", "delete", "--sync", lease)

    def end_containers(self) -> None:
        """Kill whatever still runs in any namespace."""
        for namespace in self.ctr("namespaces", "list", "--quiet").split():
            tasks = ("--namespace", namespace, "tasks")
            for task in self.ctr(*tasks, "list", "--quiet").split():
                with suppress(subprocess.CalledProcessError):  # ended meanwhile
                    self.ctr(*tasks, "delete", "--force", task)

    def end_shims(self) -> None:
        """Kill the shims that are left: containerd forgets one whose sandbox it could not make."""
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                if str(self.socket).encode() in words and b"containerd-shim" in words[0]:
                    os.kill(int(folder.name), signal.SIGKILL)

    @property
    def certs(self) -> Path:
        """The folder of ``hosts.toml`` files."""
        return self.directory / "certs.d"

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(self.socket))
            except OSError:
                return False
        with suppress(subprocess.CalledProcessError):
            self.ctr("--connect-timeout", "2s", "version")
            return True
        return False


@contextmanager
def serve_containerd(
    *,
    plain_http: Sequence[str] = (),
    programs: Path | None = STABLE,
    environment: Mapping[str, str] | None = None,
    snapshots: Path | None = None,
    pause: str = "",
    mode: Mode | None = None,
    root: Path | None = None,
    images: Mapping[str, Any] | None = None,
) -> Iterator[Containerd]:
    """Run containerd for the length of the block; then end, unmount and delete all it made.

    ``programs``: a folder with another ``containerd`` and ``ctr`` than those on PATH. ``snapshots``: the
    socket of a snapshotter that it knows as ``imagecached``. ``pause``: the image of sandboxes, which turns
    CRI on. ``mode``: how CRI uses the snapshotter, by the drop-in that the product prints; ``root``: that
    of our daemon; ``images``: what the node's own files say of CRI's images.
    """
    # Not pytest's tmp_path: socket addresses are limited to 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="containerd-")).resolve()
    containerd = Containerd(directory, programs, environment)
    for registry in plain_http:
        containerd.trust_plain_http(registry)
    document = main_config(containerd, pause, images or {})
    containerd.config.write_text(toml(document))
    if mode:
        drop_in = directory / "drop-in.toml"
        drop_in.write_text(_drop_in(containerd, mode, snapshots, root))
        document["imports"] = [str(drop_in)]
    elif snapshots:
        document["proxy_plugins"] = {NAME: {"type": "snapshot", "address": str(snapshots)}}
        if document["version"] > 2:
            _transfer_to_ours(document)
    containerd.config.write_text(toml(document))
    try:
        containerd.start()
        yield containerd
    finally:
        if containerd.process is not None:
            containerd.end_containers()
            containerd.stop()
        containerd.end_shims()
        unmount_below(directory)
        # Not shutil.rmtree: it fails on trees that are a thousand directories deep.
        subprocess.run(["rm", "-rf", directory], check=True)


def main_config(containerd: Containerd, pause: str, images: Mapping[str, Any]) -> dict[str, Any]:
    """The main configuration file, in the form of the version that reads it."""
    directory, new = containerd.directory, version_of(containerd.programs) >= (2, 0)
    return {
        "version": 3 if new else 2,
        "root": str(directory / "root"),
        "state": str(directory / "state"),
        "disabled_plugins": [*_DISABLED, *(() if pause else _CRI)],
        "grpc": {"address": str(containerd.socket), "uid": os.getuid(), "gid": os.getgid()},
        "plugins": (_cri_2 if new else _cri_1)(containerd, pause, images) if pause else {},
    }


def version_of(programs: Path | None = STABLE) -> tuple[int, int]:
    """Major and minor version of a containerd."""
    said = subprocess.run(
        [_program("containerd", programs), "--version"], capture_output=True, text=True, check=True
    ).stdout
    found = re.search(r" v?(\d+)\.(\d+)\.", said)
    assert found, said
    return int(found[1]), int(found[2])


def _cri_1(containerd: Containerd, pause: str, images: Mapping[str, Any]) -> dict[str, Any]:
    section: dict[str, Any] = {
        "sandbox_image": pause,
        "stats_collect_period": 1,
        "restrict_oom_score_adj": True,  # what we may not do in a container, it does not try
        "registry": {"config_path": str(containerd.certs)},
        "cni": {"bin_dir": str(containerd.directory), "conf_dir": str(containerd.directory / "cni")},
    }
    return {"io.containerd.grpc.v1.cri": {**section, **images}}


def _cri_2(containerd: Containerd, pause: str, images: Mapping[str, Any]) -> dict[str, Any]:
    cni = {"bin_dirs": [str(containerd.directory)], "conf_dir": str(containerd.directory / "cni")}
    section: dict[str, Any] = {
        "stats_collect_period": 1,
        "pinned_images": {"sandbox": pause},
        "registry": {"config_path": str(containerd.certs)},
    }
    return {
        "io.containerd.cri.v1.images": {**section, **images},
        "io.containerd.cri.v1.runtime": {"cni": cni, "restrict_oom_score_adj": True},
        "io.containerd.nri.v1.nri": {"disable": True},  # its socket would be the host's
    }


def _transfer_to_ours(document: dict[str, Any]) -> None:
    """Let the transfer service unpack into our snapshotter, and tell it which image that is."""
    document["proxy_plugins"][NAME]["exports"] = {"enable_remote_snapshot_annotations": "true"}
    unpack = [{"platform": "linux", "snapshotter": snapshotter} for snapshotter in (NAME, "overlayfs")]
    document["plugins"]["io.containerd.transfer.v1.local"] = {"unpack_config": unpack}


def _drop_in(containerd: Containerd, mode: Mode, snapshots: Path | None, root: Path | None) -> str:
    """What the product prints for this node."""
    major, minor = version_of(containerd.programs)
    argv: list[str | Path] = [Path(sys.executable).with_name("imagecachectl"), "containerd-config"]
    argv += ["--mode", mode, "--version", f"{major}.{minor}", "--config", containerd.config]
    argv += ["--snapshots", snapshots or "", "--root", root or ""]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout


def _program(name: str, programs: Path | None) -> str:
    return str(programs / name) if programs else name
