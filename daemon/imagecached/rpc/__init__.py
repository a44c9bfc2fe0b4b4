"""containerd's snapshots service on a unix socket: protobuf ↔ nouns, error → code.

``_proto`` holds the contract and what scripts/proto makes of it, ``service`` the ten methods, ``convert`` and
``status`` the translation. Invariant: a handler decides nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from grpclib.protocol import H2Protocol
from grpclib.server import Server

from imagecached.rpc.service import OnEnd, Service
from imagecached.snapshotter import Snapshotter
from imagecached.sockets import listening

__all__ = ["serve"]

_GRACE_SECONDS: Final = 5.0


class _Server(Server):
    """Tells of every connection, before its first call."""

    def __init__(self, services: Collection[Service], on_connect: Callable[[], None]) -> None:
        super().__init__(services)
        self._on_connect = on_connect

    def _protocol_factory(self) -> H2Protocol:
        self._on_connect()
        return super()._protocol_factory()


@asynccontextmanager
async def serve(
    snapshotter: Snapshotter, tasks: asyncio.TaskGroup, *, path: Path, on_end: OnEnd
) -> AsyncIterator[None]:
    """Answer on the unix socket at ``path`` (root only, or as systemd made it) for the length of the body.

    Calls under way at the end get a few seconds; what they began ends with ``tasks``. ``on_end`` is told of
    every call: method, code, seconds. FailedPrecondition: somebody else listens there.
    """
    server = _Server([Service(snapshotter, tasks, on_end)], snapshotter.connected)
    with listening(path) as listener:
        await server.start(sock=listener)
        try:
            yield
        finally:
            server.close()
            with suppress(TimeoutError):
                await asyncio.wait_for(server.wait_closed(), _GRACE_SECONDS)
