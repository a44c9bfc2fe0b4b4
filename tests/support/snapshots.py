"""containerd's half of the snapshots service: a client over the socket, and mounts as containerd makes them.

:func:`served` runs the real service in this process: a real store, real mounts, a real socket. Needs root.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel

from imagecached import rpc
from imagecached.events import EventLog
from imagecached.images import Images, PullSettings
from imagecached.layers.limits import Limits
from imagecached.mounts import Mounter, syscalls
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.platform import Platform
from imagecached.registry import Patience, Ranged, Registry, RegistryConfig
from imagecached.rpc._proto import snapshots_pb2 as pb
from imagecached.rpc._proto.snapshots_grpc import SnapshotsStub
from imagecached.snapshotter import Misses, Snapshotter
from imagecached.snapshotter.generations import Identify
from imagecached.store import ImageRecord, Store, StorePolicy
from imagecached.telemetry import Metrics
from tests.support.mounts import unmount_below
from tests.unit.store.building import Built, pulled

REF: Final = "containerd.io/snapshot.ref"
NAME: Final = "imagecached"

_NO_BOUNDS: Final = StorePolicy(free_bytes=0)
_IMPATIENT: Final = RegistryConfig(
    patience=Patience(attempts=1, read_seconds=5), ranged=Ranged(connections=1)
)
_PULLS: Final = PullSettings(4, 4, Platform("linux", "amd64"), Limits())

_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MS_REC: Final = 16384


class Snapshots:
    """The ten methods as containerd's metadata layer calls them, for one snapshotter name and namespace."""

    def __init__(
        self, channel: Channel, snapshotter: str = NAME, namespace: str = "default", lease: str = ""
    ) -> None:
        self._channel = channel
        self._stub = SnapshotsStub(channel)
        self._snapshotter = snapshotter
        given = {"containerd-namespace": namespace, "containerd-lease": lease}
        self._metadata = {name: value for name, value in given.items() if value}

    def of(self, *, snapshotter: str = NAME, namespace: str = "default") -> Snapshots:
        """The same server seen by another."""
        return Snapshots(self._channel, snapshotter, namespace)

    async def prepare(
        self, key: str, parent: str = "", labels: Mapping[str, str] | None = None, *, timeout: float = 30
    ) -> list[pb.Mount]:
        """Mounts of a new active snapshot."""
        request = pb.PrepareRequest(
            snapshotter=self._snapshotter, key=key, parent=parent, labels=dict(labels or {})
        )
        answer = await self._stub.Prepare(request, metadata=self._metadata, timeout=timeout)
        return list(answer.mounts)

    async def view(
        self, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> list[pb.Mount]:
        """Mounts of a new view."""
        request = pb.PrepareRequest(
            snapshotter=self._snapshotter, key=key, parent=parent, labels=dict(labels or {})
        )
        return list((await self._stub.View(request, metadata=self._metadata)).mounts)

    async def mounts(self, key: str) -> list[pb.Mount]:
        """Mounts of an active snapshot or a view."""
        return list((await self._stub.Mounts(self._key(key), metadata=self._metadata)).mounts)

    async def commit(
        self, name: str, key: str, labels: Mapping[str, str] | None = None, *, parent: str = ""
    ) -> None:
        """The active ``key`` becomes ``name``."""
        request = pb.CommitRequest(
            snapshotter=self._snapshotter, name=name, key=key, labels=dict(labels or {}), parent=parent
        )
        await self._stub.Commit(request, metadata=self._metadata)

    async def remove(self, key: str) -> None:
        """Forget a snapshot."""
        await self._stub.Remove(self._key(key), metadata=self._metadata)

    async def stat(self, key: str) -> pb.Info:
        """What is known of one."""
        return (await self._stub.Stat(self._key(key), metadata=self._metadata)).info

    async def update(self, info: pb.Info, *mask: str) -> pb.Info:
        """Change labels."""
        request = pb.UpdateRequest(snapshotter=self._snapshotter, info=info)
        request.update_mask.paths.extend(mask)
        return (await self._stub.Update(request, metadata=self._metadata)).info

    async def walk(self, *filters: str) -> list[pb.Info]:
        """What is known of all that a filter holds for."""
        request = pb.ListRequest(snapshotter=self._snapshotter, filters=filters)
        blocks = await self._stub.List(request, metadata=self._metadata)
        return [info for block in blocks for info in block.info]

    async def blocks(self, *filters: str) -> AsyncIterator[list[pb.Info]]:
        """The same as it arrives; the stream is open while the caller has a block."""
        request = pb.ListRequest(snapshotter=self._snapshotter, filters=filters)
        async with self._stub.List.open(metadata=self._metadata) as stream:
            await stream.send_message(request, end=True)
            async for block in stream:
                yield list(block.info)

    async def names(self, *filters: str) -> set[str]:
        """Their names."""
        return {info.name for info in await self.walk(*filters)}

    async def usage(self, key: str) -> tuple[int, int]:
        """Bytes and inodes."""
        answer = await self._stub.Usage(self._key(key), metadata=self._metadata)
        return answer.size, answer.inodes

    async def cleanup(self) -> None:
        """What containerd calls after each round of garbage collection."""
        request = pb.CleanupRequest(snapshotter=self._snapshotter)
        await self._stub.Cleanup(request, metadata=self._metadata)

    async def register(self, chain_id: str, parent: str = "", key: str = "extract-1") -> None:
        """Prepare as an unpacker does it, where the chain is expected to be there."""
        async with refused(Status.ALREADY_EXISTS):
            await self.prepare(f"{key} {chain_id}", parent, {REF: chain_id})

    async def adopt(self, chain_id: str, parent: str = "", key: str = "extract-1") -> pb.Info:
        """The handshake as containerd makes it: Prepare, ALREADY_EXISTS, then List and its own checks."""
        await self.register(chain_id, parent, f"default/1/{key}")
        found = await self.walk(f'labels."{REF}"=={chain_id},parent=="{parent}"')
        good = [
            info
            for info in found
            if info.kind == pb.COMMITTED and info.labels[REF] == chain_id and info.parent == parent
        ]
        assert good, "containerd would fail the pull"
        return good[0]

    async def adopt_image(self, image: ImageRecord) -> list[pb.Info]:
        """The handshake for every layer of a prepared image, lowest first."""
        infos: list[pb.Info] = []
        for chain_id in chain_ids(image.diff_ids):
            infos.append(await self.adopt(chain_id, infos[-1].name if infos else ""))
        return infos

    def _key(self, key: str) -> pb.KeyRequest:
        return pb.KeyRequest(snapshotter=self._snapshotter, key=key)


@asynccontextmanager
async def refused(status: Status, text: str = "") -> AsyncIterator[None]:
    """The body must fail with this code, and with ``text`` in its message."""
    with pytest.raises(GRPCError) as caught:
        yield
    assert caught.value.status is status, caught.value
    assert text in (caught.value.message or "")


@contextmanager
def mounted(mounts: Sequence[pb.Mount], target: Path) -> Iterator[Path]:
    """Mount what the service answered, with mount(2) as containerd does it, for the length of the body."""
    target.mkdir(exist_ok=True)
    for mount in mounts:
        _mount(mount, target)
    try:
        yield target
    finally:
        for _ in mounts:
            syscalls.umount(target)


def _mount(mount: pb.Mount, target: Path) -> None:
    if mount.type == "bind":
        recursive = _MS_REC if "rbind" in mount.options else 0
        syscalls.mount(mount.source, target, "", _MS_BIND | recursive)
        if "ro" in mount.options:
            syscalls.mount("", target, "", _MS_BIND | _MS_REMOUNT | syscalls.MS_RDONLY)
        return
    flags = syscalls.MS_RDONLY if "ro" in mount.options else 0
    options = ",".join(option for option in mount.options if option != "ro")
    assert len(options) < 4096, "the kernel cuts what exceeds a page"
    syscalls.mount(mount.source, target, mount.type, flags, options)


@dataclass
class World:
    """A served root."""

    root: Path
    store: Store
    mounter: Mounter
    snapshotter: Snapshotter
    snapshots: Snapshots
    calls: list[tuple[str, str]]
    seconds: list[float]
    events: EventLog
    metrics: Metrics

    def hold_image(self, name: str, *layers: Built) -> ImageRecord:
        """Make an image present in the store, as a pull does."""
        return pulled(self.store._state, name, *layers)

    def layer_mounts(self) -> frozenset[Digest]:
        """DiffIDs (and ChainIDs of seams) that are mounted."""
        return self.store.layout.digests_of(self.mounter.mounted())

    @contextmanager
    def connected(self) -> Iterator[Snapshots]:
        """Another client, with a connection of its own."""
        channel = Channel(path=str(self.root.with_suffix(".sock")))
        try:
            yield Snapshots(channel)
        finally:
            channel.close()

    def reboot(self) -> None:
        """Every mount of ours is gone."""
        unmount_below(self.root)


@dataclass(frozen=True)
class Missing:
    """How images that are not here are pulled; a linger of 0: as soon as nobody waits, never mind."""

    wait_seconds: float = 20
    linger_seconds: float = 20
    policy: StorePolicy = _NO_BOUNDS


@asynccontextmanager
async def served(
    root: Path,
    *,
    settle_seconds: float = 60,
    missing: Missing | None = None,
    identify: Identify | None = None,
) -> AsyncIterator[World]:
    """Open the store at ``root`` and serve it on a socket beside it for the length of the body."""
    calls: list[tuple[str, str]] = []
    seconds: list[float] = []

    def ended(method: str, code: str, took: float) -> None:
        calls.append((method, code))
        seconds.append(took)

    events, metrics = EventLog(), Metrics()
    async with AsyncExitStack() as stack:
        store = await Store.open(root, missing.policy if missing else _NO_BOUNDS)
        stack.push_async_callback(store.close)
        mounter = Mounter.probe(root)
        store.protect(lambda: store.layout.digests_of(mounter.mounted()))
        snapshotter = await Snapshotter.open(store, mounter, identify)
        registry = Registry(_IMPATIENT, environment={})
        if missing is not None:
            await stack.enter_async_context(registry)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        if missing is not None:
            images = Images(registry, store, _PULLS, tasks, metrics=metrics, events=events)
            snapshotter.pull_on_miss(
                Misses(
                    images,
                    store,
                    wait_seconds=missing.wait_seconds,
                    linger_seconds=missing.linger_seconds,
                    metrics=metrics,
                    events=events,
                )
            )
        tending = tasks.create_task(snapshotter.tend(settle_seconds))
        stack.callback(tending.cancel)
        socket = root.with_suffix(".sock")
        await stack.enter_async_context(rpc.serve(snapshotter, tasks, path=socket, on_end=ended))
        channel = Channel(path=str(socket))
        stack.callback(channel.close)
        yield World(root, store, mounter, snapshotter, Snapshots(channel), calls, seconds, events, metrics)


def run_in(root: Path, command: str) -> None:
    """A shell command in a mounted tree."""
    subprocess.run(["sh", "-ec", command], cwd=root, check=True)


def names(directory: Path) -> list[str]:
    """What lies in a directory, sorted."""
    return sorted(entry.name for entry in directory.iterdir())
