"""The door of this package: :class:`Containerd` and one :class:`Namespace` of it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from imagecached.containerd import methods
from imagecached.containerd._proto import containerd_pb2 as pb
from imagecached.containerd.content import ContentStore
from imagecached.containerd.images import ImageRecords
from imagecached.containerd.leases import Leases
from imagecached.containerd.nouns import Container, CriImage, Event, Plugin, Server, Version
from imagecached.containerd.snapshots import Snapshots
from imagecached.containerd.wire import Scope, Wire

_SANDBOX_SECONDS: Final = 30.0  # a network to take down
_NUMBERS: Final = re.compile(r"v?(\d{1,6}(?:\.\d{1,6}){0,3})")


class Namespace:
    """What containerd keeps apart for one of its users; calls with a lease keep what they make."""

    def __init__(self, wire: Wire, name: str, lease: str = "") -> None:
        self._wire = wire
        self._scope = Scope(name, lease)
        self.name = name
        self.lease = lease
        self.leases = Leases(wire, self._scope)
        self.content = ContentStore(wire, self._scope)
        self.images = ImageRecords(wire, self._scope)

    def snapshots(self, snapshotter: str) -> Snapshots:
        """Those of one snapshotter."""
        return Snapshots(self._wire, self._scope, snapshotter)

    def leased(self, lease: str) -> Namespace:
        """The same, with a lease on all that is made."""
        return Namespace(self._wire, self.name, lease)

    async def containers(self, filters: Sequence[str] = ()) -> list[Container]:
        """All containers that one of the filters holds for; all if there is none."""
        answer = await self._wire.ask(methods.CONTAINER_LIST, pb.Filters(filters=filters), self._scope)
        return [
            Container(each.id, each.image, each.snapshotter, each.snapshot_key, dict(each.labels))
            for each in answer.containers
        ]

    async def sandboxes(self) -> list[Container]:
        """The containers that are sandboxes of pods."""
        return await self.containers(['labels."io.cri-containerd.kind"==sandbox'])


class Containerd:
    """The containerd behind the unix socket at ``path``, connected when first needed.

    Made inside a running event loop; closed by :meth:`close`. Every method raises Unavailable while
    containerd is away; the next call connects anew.
    """

    def __init__(self, path: Path) -> None:
        self._wire = Wire(path)
        self.path = path

    async def close(self) -> None:
        """End the connection; calls under way fail."""
        self._wire.close()

    def namespace(self, name: str) -> Namespace:
        """One namespace; it need not exist yet."""
        return Namespace(self._wire, name)

    async def namespaces(self) -> tuple[str, ...]:
        """The names of all that exist."""
        answer = await self._wire.ask(methods.NAMESPACES, Empty())
        return tuple(each.name for each in answer.namespaces)

    async def server(self) -> Server:
        """Which installation this is."""
        answer = await self._wire.ask(methods.SERVER, Empty())
        return Server(answer.uuid)

    async def version(self) -> Version:
        """Of the running containerd."""
        number = (await self._wire.ask(methods.VERSION, Empty())).version
        found = _NUMBERS.match(number)
        return Version(number, tuple(map(int, found[1].split("."))) if found else ())

    async def plugins(self, filters: Sequence[str] = ()) -> tuple[Plugin, ...]:
        """Those that one of the filters holds for, loaded or not; all if there is none."""
        answer = await self._wire.ask(methods.PLUGINS, pb.Filters(filters=filters))
        return tuple(
            Plugin(
                each.type,
                each.id,
                dict(each.exports),
                tuple(each.capabilities),
                (each.init_err.message or "failed") if each.HasField("init_err") else "",
            )
            for each in answer.plugins
        )

    async def cri_status(self) -> Mapping[str, str]:
        """What the CRI plugin says of itself: name → JSON. Unsupported if there is none."""
        answer = await self._wire.ask(methods.CRI_STATUS, pb.CriStatusAsk(verbose=True))
        return dict(answer.info)

    async def cri_image(self, name: str) -> CriImage | None:
        """What the kubelet is told of an image, or None. Unsupported if there is no CRI plugin."""
        request = pb.CriImageAsk(image=pb.CriImageSpec(image=name))
        answer = await self._wire.ask(methods.CRI_IMAGE, request)
        if not answer.HasField("image"):
            return None
        return CriImage(answer.image.id, answer.image.pinned)

    async def container_disks(self) -> Mapping[str, str]:
        """The mount point that each container's statistics name for its writable layer, by its id."""
        answer = await self._wire.ask(methods.CRI_STATS, Empty())
        return {each.attributes.id: each.writable_layer.fs_id.mountpoint for each in answer.stats}

    async def image_disks(self) -> tuple[str, ...]:
        """The mount points that statistics of images name; the kubelet looks at the first."""
        answer = await self._wire.ask(methods.CRI_IMAGE_DISKS, Empty())
        return tuple(each.fs_id.mountpoint for each in answer.image_filesystems)

    async def ended_sandboxes(self) -> tuple[str, ...]:
        """Ids of the pods' sandboxes that run no more and were not removed. Unsupported without CRI."""
        state = pb.CriSandboxStateValue(state=pb.NOT_READY)
        request = pb.CriSandboxesAsk(filter=pb.CriSandboxFilter(state=state))
        return tuple(each.id for each in (await self._wire.ask(methods.CRI_SANDBOXES, request)).items)

    async def remove_sandbox(self, sandbox: str) -> None:
        """Remove an ended sandbox and its containers, as the kubelet does; nothing if it is gone."""
        request = pb.CriSandboxName(id=sandbox)
        await self._wire.ask(methods.CRI_STOP_SANDBOX, request, seconds=_SANDBOX_SECONDS)
        await self._wire.ask(methods.CRI_REMOVE_SANDBOX, request, seconds=_SANDBOX_SECONDS)

    async def events(self, filters: Sequence[str] = ()) -> AsyncGenerator[Event, None]:
        """What happens from now on, for ever; Unavailable when containerd goes away.

        Use it inside ``contextlib.aclosing``.
        """
        request = pb.Filters(filters=filters)
        async with aclosing(self._wire.hear(methods.SUBSCRIBE, request, seconds=None)) as envelopes:
            async for envelope in envelopes:
                yield _event(envelope)


def _event(envelope: pb.Envelope) -> Event:
    """The parts of the payload that we look at; one that cannot be read is an event without a name."""
    message: pb.Name | pb.SnapshotPrepared
    try:
        if envelope.topic.startswith("/images/"):
            message = pb.Name.FromString(envelope.event.value)
            return Event(envelope.namespace, envelope.topic, message.name)
        if envelope.topic.startswith("/snapshot/"):
            message = pb.SnapshotPrepared.FromString(envelope.event.value)
            return Event(envelope.namespace, envelope.topic, message.key, message.snapshotter)
    except DecodeError:
        pass
    return Event(envelope.namespace, envelope.topic)
