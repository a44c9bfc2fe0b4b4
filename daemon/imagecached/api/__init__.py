"""The HTTP API on the unix socket: requests ↔ nouns, error → status, and the document that describes it.

``ports`` names what it needs; ``requests`` and ``documents`` are what goes over the wire; ``routes``
lists what can be asked; ``handlers`` and ``streams`` answer; ``protocol`` alone speaks HTTP; ``peers``
decides who may connect; ``openapi.json`` is printed by ``openapi``. Invariants: a handler decides
nothing; a client never sees a traceback.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from aiohttp import web

from imagecached.api.peers import Gate
from imagecached.api.ports import Ports
from imagecached.api.protocol import Protocol
from imagecached.sockets import listening

__all__ = ["Ports", "serve"]

_GRACE_SECONDS: Final = 5.0


@asynccontextmanager
async def serve(ports: Ports, tasks: asyncio.TaskGroup, *, path: Path, group: str) -> AsyncIterator[None]:
    """Answer on the unix socket at ``path`` for the length of the body, to root and the members of ``group``.

    ``tasks`` owns what requests start; all of it has ended when this has. At the end streams are told
    that the daemon stops, other requests get a few seconds. FailedPrecondition: somebody else listens
    there.
    """
    gate = Gate.of(group)
    runner = web.AppRunner(
        Protocol(ports, gate, tasks).application,
        access_log=None,
        handler_cancellation=True,  # a client that goes away leaves its pulls
        shutdown_timeout=_GRACE_SECONDS,
    )
    with listening(path, gate.gid) as listener:
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            yield
        finally:
            await runner.cleanup()
