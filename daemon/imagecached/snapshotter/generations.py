"""Which records come from a containerd whose database is lost: its names come again, with other content.

containerd names its snapshots by numbers that begin anew with its database, and an id of the installation
begins anew with them. So the id is asked for whenever somebody has connected, and the highest number of a
record at that time is remembered if it is another one: what is not above it is *stale*. Without a way to ask,
names decide (``rules.named_anew``). Invariants: what was made since the connection is never stale; as long as
the answer is not known, no name that is taken is given away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from imagecached.errors import ImagecachedError, Unavailable
from imagecached.snapshotter import rules
from imagecached.snapshotter.rules import Caller
from imagecached.store import Record, Shelf

log = logging.getLogger(__name__)

Identify = Callable[[], Awaitable[str]]
"""The id of the installation of containerd. Unavailable, and other errors of ours."""

_KIND: Final = "snapshotter"
_KEY: Final = "containerd"
_ASK_SECONDS: Final = 2.0
_REST_SECONDS: Final = 5.0  # before a containerd that did not answer is asked again


class _Known(msgspec.Struct, frozen=True):
    """``last``: the highest number from before the installation ``id``; ``mark``: the same for one that has
    connected and is not identified yet.
    """

    id: str = ""
    last: int = 0
    mark: int | None = None


class Generations:
    """What is known of the one containerd that uses us. ``highest`` gives the highest number ever given."""

    def __init__(
        self,
        shelf: Shelf,
        identify: Identify | None,
        highest: Callable[[], int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf = shelf
        self._identify = identify
        self._highest = highest
        self._clock = clock
        self._known = _read(shelf)
        self._settled = False
        self._ask_at = 0.0
        self._asking = asyncio.Lock()

    def connected(self) -> None:
        """Somebody has connected: perhaps a containerd that began anew."""
        if self._identify is None:
            return
        self._settled, self._ask_at = False, 0.0
        if self._known.mark is None:
            self._known = msgspec.structs.replace(self._known, mark=self._highest())

    async def settle(self) -> None:
        """See who has connected, if that is not known yet; to be awaited before names are taken."""
        if self._identify is None or self._settled:
            return
        async with self._asking:
            if not self._is_settled() and self._clock() >= self._ask_at:
                await self._ask(self._identify)

    def is_stale(self, caller: Caller, existing: Record) -> bool:
        """Whether ``existing`` is left from a lost database. Unavailable: not known now."""
        if self._identify is None:
            return rules.named_anew(caller, existing)
        if existing.number <= self._known.last:
            return True
        mark = self._known.mark
        if mark is not None and existing.number <= mark:
            raise Unavailable(f"snapshot {existing.name}: containerd does not say which one it is; ask again")
        return False

    def _is_settled(self) -> bool:
        return self._settled

    async def _ask(self, identify: Identify) -> None:
        self._settled = True  # unless somebody connects meanwhile
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                found = await identify()
            await self._note(self._known, found)
        except (ImagecachedError, TimeoutError) as error:
            self._settled, self._ask_at = False, self._clock() + _REST_SECONDS
            log.warning("containerd not identified", extra={"reason": str(error) or "no answer"})
            await self._remember(self._known)

    async def _note(self, before: _Known, found: str) -> None:
        """It is ``found`` that has connected."""
        mark = None if self._settled else before.mark
        if found == before.id or not before.id:
            known = _Known(found, before.last, mark)
        else:
            known = _Known(found, max(before.last, before.mark or 0), mark)
            log.warning("containerd began anew", extra={"records_up_to": known.last})
        await self._remember(known)

    async def _remember(self, known: _Known) -> None:
        """Durably, before anything is made that depends on it."""
        if known != _read(self._shelf):
            await self._shelf.put(_KIND, _KEY, msgspec.json.encode(known))
        self._known = known


def highest_noted(shelf: Shelf) -> int:
    """A number that no new record may fall below."""
    known = _read(shelf)
    return max(known.last, known.mark or 0)


def _read(shelf: Shelf) -> _Known:
    document = shelf.find(_KIND, _KEY)
    try:
        return msgspec.json.decode(document, type=_Known) if document else _Known()
    except msgspec.MsgspecError:
        log.warning("what was known of containerd is not understood")
        return _Known()
