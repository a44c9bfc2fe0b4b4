"""The distribution's containerd with a root and socket of its own: the reference that our trees must equal.

Needs root. Everything is below one folder and gone with it; no container is ever started.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.mounts import unmount_below
from tests.support.processes import running

_DISABLED = (
    "io.containerd.grpc.v1.cri",
    "io.containerd.cri.v1.images",
    "io.containerd.cri.v1.runtime",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
)


@dataclass(frozen=True, slots=True)
class Containerd:
    """A containerd that answers on ``socket``."""

    directory: Path
    socket: Path
    pid: int
    programs: Path | None = None

    def ctr(self, *arguments: str | Path) -> str:
        """Run ``ctr`` against this containerd; its output, or CalledProcessError with its words as a note."""
        command = [_program("ctr", self.programs), "--address", str(self.socket), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
            error.add_note(done.stderr.strip())
            raise error
        return done.stdout

    def pull(self, reference: str) -> None:
        """Pull an image of this host's platform and unpack it with overlayfs."""
        self.ctr("images", "pull", "--hosts-dir", self._certs, "--snapshotter", "overlayfs", reference)

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
        folder = self._certs / address
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hosts.toml").write_text(
            f'server = "http://{address}"\n[host."http://{address}"]\ncapabilities = ["pull", "resolve"]\n'
        )

    @property
    def _certs(self) -> Path:
        return self.directory / "certs.d"


@contextmanager
def serve_containerd(
    *,
    plain_http: Sequence[str] = (),
    programs: Path | None = None,
    environment: Mapping[str, str] | None = None,
    snapshots: Path | None = None,
) -> Iterator[Containerd]:
    """Run containerd for the length of the block; then unmount and delete all it made.

    ``programs``: a folder with another ``containerd`` and ``ctr`` than those on PATH. ``snapshots``: the
    socket of a snapshotter that it knows as ``imagecached``.
    """
    # Not pytest's tmp_path: socket addresses are limited to 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="containerd-")).resolve()
    address, config = directory / "c.sock", directory / "config.toml"
    config.write_text(_config(directory, address, snapshots))
    try:
        with running(
            [_program("containerd", programs), "--config", config],
            log=directory / "log",
            ready=lambda: _answers(address, programs),
            environment=environment,
        ) as pid:
            containerd = Containerd(directory, address, pid, programs)
            for registry in plain_http:
                containerd.trust_plain_http(registry)
            yield containerd
    finally:
        unmount_below(directory)
        # Not shutil.rmtree: it fails on trees that are a thousand directories deep.
        subprocess.run(["rm", "-rf", directory], check=True)


def _config(directory: Path, address: Path, snapshots: Path | None) -> str:
    # A JSON string or list is TOML.
    return "\n".join(
        (
            "version = 2",
            f"root = {json.dumps(str(directory / 'root'))}",
            f"state = {json.dumps(str(directory / 'state'))}",
            f"disabled_plugins = {json.dumps(_DISABLED)}",
            "[grpc]",
            f"address = {json.dumps(str(address))}",
            f"uid = {os.getuid()}",
            f"gid = {os.getgid()}",
            *(_proxy(snapshots) if snapshots else ()),
            "",
        )
    )


def _proxy(snapshots: Path) -> tuple[str, ...]:
    return (
        "[proxy_plugins.imagecached]",
        'type = "snapshot"',
        f"address = {json.dumps(str(snapshots))}",
    )


def _program(name: str, programs: Path | None) -> str:
    return str(programs / name) if programs else name


def _answers(address: Path, programs: Path | None) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(address))
        except OSError:
            return False
    asked = subprocess.run(
        ["ctr", "--address", str(address), "--connect-timeout", "2s", "version"],
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0
