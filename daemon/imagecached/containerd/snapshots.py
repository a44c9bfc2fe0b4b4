"""containerd's own snapshots service, for one snapshotter in one namespace: what its unpackers talk to.

It is not the service that a proxy plugin offers: names are the client's, labels are containerd's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Final

from imagecached.containerd import methods
from imagecached.containerd._proto import containerd_pb2 as pb
from imagecached.containerd.nouns import SnapshotInfo, SnapshotKind
from imagecached.containerd.wire import Scope, Wire
from imagecached.errors import AlreadyExists, NotFound

_PREPARE_SECONDS: Final = 60.0  # the snapshotter behind it may have to fetch
_KINDS: Final[tuple[SnapshotKind, ...]] = ("unknown", "view", "active", "committed")


class Snapshots:
    """The snapshots of one snapshotter in one namespace."""

    def __init__(self, wire: Wire, scope: Scope, snapshotter: str) -> None:
        self._wire = wire
        self._scope = scope
        self.snapshotter = snapshotter

    async def prepare(self, key: str, parent: str, labels: Mapping[str, str]) -> bool:
        """Ask for a new active snapshot; False if containerd says that what is asked for exists already."""
        request = pb.SnapshotPrepare(
            snapshotter=self.snapshotter, key=key, parent=parent, labels=dict(labels)
        )
        try:
            await self._wire.ask(methods.SNAPSHOT_PREPARE, request, self._scope, seconds=_PREPARE_SECONDS)
        except AlreadyExists:
            return False
        return True

    async def stat(self, key: str) -> SnapshotInfo | None:
        """The snapshot, or None; also None where the backend lost it."""
        request = pb.SnapshotKey(snapshotter=self.snapshotter, key=key)
        try:
            return _info((await self._wire.ask(methods.SNAPSHOT_STAT, request, self._scope)).info)
        except NotFound:
            return None

    async def remove(self, key: str) -> None:
        """Remove a snapshot if it is there. FailedPrecondition: it has children."""
        request = pb.SnapshotKey(snapshotter=self.snapshotter, key=key)
        try:
            await self._wire.ask(methods.SNAPSHOT_REMOVE, request, self._scope)
        except NotFound:
            return

    async def listed(self, filters: Sequence[str] = ()) -> list[SnapshotInfo]:
        """All snapshots that one of the filters holds for; all if there is none."""
        request, found = pb.SnapshotFilters(snapshotter=self.snapshotter, filters=filters), []
        async with aclosing(self._wire.hear(methods.SNAPSHOT_LIST, request, self._scope)) as blocks:
            async for block in blocks:
                found += [_info(info) for info in block.info]
        return found


def _info(info: pb.SnapshotInfo) -> SnapshotInfo:
    kind = _KINDS[info.kind] if info.kind < len(_KINDS) else "unknown"
    return SnapshotInfo(info.name, info.parent, kind, dict(info.labels))
