"""A daemon's half of registration in a process that kills itself before a step, as SIGKILL may at any time.

    python -m tests.integration.registering ROOT SNAPSHOTS CONTAINERD STEP NAMESPACE…

ROOT is a store that holds images, SNAPSHOTS where containerd looks for them, STEP how many steps to take. The
socket of the snapshots is inherited, as from systemd. Prints the name of the step it died before; ends with 0
when there was no such step.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from imagecached import rpc
from imagecached.containerd import Containerd
from imagecached.events import EventLog
from imagecached.mounts import Mounter
from imagecached.registration import Registration, RegistrationSettings
from imagecached.registry import Registry, RegistryConfig
from imagecached.snapshotter import Snapshotter
from imagecached.store import Store, StorePolicy
from imagecached.telemetry import Metrics


class Death:
    """Kills the process before step number ``steps``."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def __call__(self, step: str) -> None:
        if self._left == 0:
            print(step, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


async def main(root: Path, snapshots: Path, socket: Path, steps: int, namespaces: Sequence[str]) -> None:
    """Register all images of the store."""
    async with AsyncExitStack() as stack:
        store = await Store.open(root, StorePolicy(free_bytes=0))
        stack.push_async_callback(store.close)
        snapshotter = await Snapshotter.open(store, Mounter.probe(root))
        registry = await stack.enter_async_context(Registry(RegistryConfig()))
        containerd = Containerd(socket)
        stack.push_async_callback(containerd.close)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        await stack.enter_async_context(rpc.serve(snapshotter, group, path=snapshots, on_end=lambda *_: None))
        registration = Registration(
            containerd,
            store,
            registry,
            RegistrationSettings(tuple(namespaces), "imagecached", "default"),
            group,
            metrics=Metrics(),
            events=EventLog(),
            on_step=Death(steps),
        )
        running = group.create_task(registration.run())
        stack.callback(running.cancel)
        async with asyncio.timeout(20):
            while registration.counts().get("registered") != len(store.images()):
                await asyncio.sleep(0.02)


if __name__ == "__main__":
    _, base, offered, asked, count, *spaces = sys.argv
    asyncio.run(main(Path(base), Path(offered), Path(asked), int(count), spaces))
