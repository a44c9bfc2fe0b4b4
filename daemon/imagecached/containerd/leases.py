"""containerd's leases in one namespace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from imagecached.containerd import methods
from imagecached.containerd._proto import containerd_pb2 as pb
from imagecached.containerd.nouns import Lease
from imagecached.containerd.wire import Scope, Wire
from imagecached.errors import NotFound

_SYNC_SECONDS: Final = 20.0  # a whole round of garbage collection


class Leases:
    """The leases of one namespace."""

    def __init__(self, wire: Wire, scope: Scope) -> None:
        self._wire = wire
        self._scope = scope

    async def create(self, lease_id: str, labels: Mapping[str, str]) -> None:
        """A new lease. AlreadyExists."""
        request = pb.LeaseCreate(id=lease_id, labels=dict(labels))
        await self._wire.ask(methods.LEASE_CREATE, request, self._scope)

    async def delete(self, lease_id: str, *, sync: bool = False) -> None:
        """End a lease if it is there; with ``sync`` wait until what it kept has been collected."""
        try:
            request = pb.LeaseDelete(id=lease_id, sync=sync)
            await self._wire.ask(methods.LEASE_DELETE, request, self._scope, seconds=_SYNC_SECONDS)
        except NotFound:
            return

    async def listed(self, filters: Sequence[str] = ()) -> list[Lease]:
        """All leases that one of the filters holds for; all if there is none."""
        answer = await self._wire.ask(methods.LEASE_LIST, pb.Filters(filters=filters), self._scope)
        return [
            Lease(lease.id, lease.created_at.seconds + lease.created_at.nanos / 1e9, dict(lease.labels))
            for lease in answer.leases
        ]
