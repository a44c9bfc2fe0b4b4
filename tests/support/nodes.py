"""A node as the kubelet finds it: our daemon, a containerd with CRI that uses it, a pause image.

Needs root. The socket between the two is held open by the test, as systemd does it.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from tests.support import cri
from tests.support.containerd import Containerd, Mode, serve_containerd
from tests.support.daemon import Daemon
from tests.support.demo import base_layer
from tests.support.images import ImageFolder
from tests.support.mounts import unmount_below
from tests.support.registry import Registry

PAUSE: Final = "test/pause:1"


class Addressed(Protocol):
    """A registry of any kind."""

    @property
    def address(self) -> str: ...


@dataclass(frozen=True)
class Node:
    """Both halves. ``handler`` is what pods of ours ask for: nothing where our snapshotter is the default."""

    daemon: Daemon
    containerd: Containerd
    handler: str

    @asynccontextmanager
    async def cri(self) -> AsyncIterator[cri.Cri]:
        """CRI, for the length of one test."""
        async with cri.connected(self.containerd.socket, self.containerd.directory / "logs") as connection:
            yield connection


def push_pause(registry: Registry, directory: Path) -> str:
    """An image that does nothing; its reference."""
    folder, reference = ImageFolder(directory), registry.reference(PAUSE)
    image = folder.image(
        [base_layer(folder)], {"Entrypoint": ["/usr/bin/sleep", "inf"], "Env": ["PATH=/usr/bin"]}
    )
    folder.push(image, reference)
    return reference


@contextmanager
def serve_node(
    registry: Addressed,
    pause: str,
    mode: Mode,
    programs: Path | None = None,
    /,
    *,
    containerd_first: bool = False,
    images: Mapping[str, Any] | None = None,
    **sections: dict[str, Any],
) -> Iterator[Node]:
    """Run both on empty roots for the length of the block.

    ``containerd_first``: the daemon is not started, only its socket is there. ``images``: more of the CRI
    settings about images that the node has by itself. ``sections``: more of the daemon's configuration.
    """
    folder = Path(tempfile.mkdtemp(prefix="node-")).resolve()
    path = folder / "snapshots.sock"
    settings: dict[str, dict[str, Any]] = {
        "snapshotter": {"socket": str(path)},
        "registry": {"plain_http": [registry.address]},
    }
    for name, keys in sections.items():
        settings[name] = settings.get(name, {}) | keys
    daemon = Daemon(folder, env=None, **settings)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            daemon.hand_over(listener)
            if not containerd_first:
                daemon.start()
            with serve_containerd(
                plain_http=[registry.address],
                programs=programs,
                snapshots=path,
                pause=pause,
                mode=mode,
                root=daemon.root,
                images=images,
            ) as containerd:
                yield Node(daemon, containerd, "imagecached" if mode == "handler" else "")
    finally:
        if daemon.process is not None:
            daemon.stop()
        unmount_below(folder)
        shutil.rmtree(folder)
