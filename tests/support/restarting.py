"""A containerd with CRI that has never heard of us, and that a command can restart, as systemctl does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.containerd import CONTAINERD2, Containerd, serve_containerd
from tests.support.nodes import push_pause
from tests.support.registry import Registry


@dataclass
class Node:
    """The containerd, the command that restarts it, and how often that was done."""

    restart: str
    restarts: int = 0
    containerd: Containerd | None = None

    @property
    def running(self) -> Containerd:
        assert self.containerd is not None
        return self.containerd


@contextmanager
def _restarts(folder: Path) -> Iterator[Node]:
    """A node whose containerd, a child of ours, a command can restart.

    A child ends with the thread that started it, so the thread goes last.
    """
    asked, done = folder / "asked", folder / "done"
    for path in (asked, done):
        os.mkfifo(path)
    node, stop = Node(f"echo >{asked} && cat {done}"), threading.Event()

    def serve() -> None:
        while asked.read_text() and not stop.is_set():
            node.restarts += 1
            node.running.stop()
            node.running.start()
            done.write_text("")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        stop.set()
        asked.write_text("end")
        thread.join(30)


@contextmanager
def restartable(registry: Registry, folder: Path) -> Iterator[Node]:
    """Run a containerd 2 for the length of the block, with a pause image from ``registry``."""
    pause = push_pause(registry, folder / "pause")
    with (
        _restarts(folder) as node,
        serve_containerd(plain_http=[registry.address], programs=CONTAINERD2, pause=pause) as containerd,
    ):
        node.containerd = containerd
        yield node
