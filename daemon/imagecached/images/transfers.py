"""What a pull is while it lasts and when it has ended: its layers, its progress, its result.

A :class:`Transfer` is written by its pull alone and read by anyone at any time. Whoever needs the lower part
of an image before the rest is there *follows* it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from imagecached.aio import Bell
from imagecached.errors import NotFound
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.registry import Resolved
from imagecached.store import Hold

PullState = Literal["resolving", "fetching", "preparing", "ready", "failed"]
LayerSource = Literal["present", "fetched", "shared"]
PHASES: Final = ("resolve", "fetch", "prepare", "total")


@dataclass(slots=True)
class LayerTransfer:
    """One layer of one pull. ``size`` and ``done`` count bytes of the blob.

    ``source``: here before the pull, fetched by it, or by another pull that it shared a flight with; None
    while not known. ``here``: the store has it.
    """

    blob: Descriptor
    diff_id: Digest
    source: LayerSource | None = None
    done: int = 0
    here: bool = False

    @property
    def digest(self) -> Digest:
        return self.blob.digest

    @property
    def size(self) -> int:
        return self.blob.size

    def was_present(self) -> None:
        """The store had it before the pull."""
        self.source, self.done, self.here = "present", self.size, True


@dataclass(slots=True)
class Transfer:
    """How far a pull is; read at any time, written by the pull alone. ``seconds``: by phase.

    ``holds``: of those it is lent to.

    ``diff_ids`` and ``chain_ids``: of all layers, lowest first, once they are known. ``working``: parts of it
    that have their turn, while others wait. ``followed``: somebody wants each chain as soon as it can be, and
    ``recorded`` says how many layers the highest one has; ``bell`` tells of news to these.
    """

    image: str
    state: PullState = "resolving"
    layers: list[LayerTransfer] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    diff_ids: tuple[Digest, ...] = ()
    chain_ids: tuple[Digest, ...] = ()
    working: int = 0
    followed: bool = False
    recorded: int = 0
    holds: list[Hold] = field(default_factory=list, repr=False)
    bell: Bell = field(default_factory=Bell, repr=False, compare=False)

    def begin(self) -> None:
        """Forget an earlier try that was cancelled."""
        self.state, self.layers, self.seconds = "resolving", [], dict.fromkeys(PHASES, 0.0)
        self.diff_ids, self.chain_ids, self.recorded = (), (), 0

    def plan(self, blobs: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> None:
        """Now it is known what the image is made of: one transfer per distinct diffID, lowest first."""
        transfers: dict[Digest, LayerTransfer] = {}
        for blob, diff_id in zip(blobs, diff_ids, strict=True):
            transfers.setdefault(diff_id, LayerTransfer(blob, diff_id))
        self.layers = list(transfers.values())
        self.diff_ids, self.chain_ids = tuple(diff_ids), chain_ids(diff_ids)
        for hold in self.holds:
            hold.add((*self.diff_ids, *self.chain_ids))

    def lend(self, hold: Hold) -> None:
        """Let ``hold`` keep what the image is made of, from when that is known."""
        self.holds.append(hold)
        hold.add((*self.diff_ids, *self.chain_ids))

    def arrived(self, layer: LayerTransfer) -> None:
        """The store has this layer now."""
        layer.done, layer.here = layer.size, True
        self.bell.ring()

    def lowest(self) -> int:
        """How many layers are here, from the lowest to the first that is missing."""
        here = {layer.diff_id for layer in self.layers if layer.here}
        missing = (depth for depth, diff_id in enumerate(self.diff_ids) if diff_id not in here)
        return next(missing, len(self.diff_ids))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A part of it works during the body."""
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the body to ``seconds[name]``."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - began

    def bytes_from(self, *sources: LayerSource) -> int:
        """Bytes of the blobs that came from ``sources``."""
        return sum(layer.size for layer in self.layers if layer.source in sources)


@dataclass(frozen=True, slots=True)
class PullResult:
    """The image that is now present."""

    manifest_digest: Digest
    chain_id: Digest


@dataclass(frozen=True, slots=True)
class Outlook:
    """An image that was looked at and not fetched: what it is, and what it would take.

    ``name`` is its reference by digest; ``named``: what the reference asked for names, the index if there is
    one. ``layers``: DiffID → bytes of its blob.
    """

    name: str
    named: Digest
    resolved: Resolved
    layers: Mapping[Digest, int]


class Pull:
    """One caller's part in a pull."""

    def __init__(
        self,
        transfer: Transfer,
        task: asyncio.Task[PullResult | Exception],
        moved: Callable[[], int] = lambda: 0,
    ) -> None:
        self._transfer = transfer
        self._task = task
        self._moved = moved
        task.add_done_callback(lambda _: transfer.bell.ring())

    def progress(self) -> Transfer:
        """How far it is, at any time, after the end as well."""
        return self._transfer

    async def wait(self) -> PullResult:
        """The result, or the error of the pull. Cancelling the wait alone does not leave."""
        await asyncio.wait([self._task])
        outcome = self._task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def chain(self, chain_id: Digest) -> None:
        """Wait until the store holds this chain of the image, which may be long before it has the whole.

        NotFound: the image has no such chain; the error of the pull.
        """
        transfer = self._transfer
        transfer.followed = True
        transfer.bell.ring()
        while chain_id not in transfer.chain_ids[: transfer.recorded]:
            if transfer.chain_ids and chain_id not in transfer.chain_ids:
                raise NotFound(f"{transfer.image} has no chain {chain_id}")
            if self._task.done():
                await self.wait()
                return
            await transfer.bell.wait()

    def pace(self) -> object:
        """A value that changes as long as this pull gets on, or waits for others that do."""
        transfer = self._transfer
        own = transfer.state, transfer.recorded, sum(layer.done for layer in transfer.layers)
        return own if transfer.working else (own, self._moved())

    def leave(self) -> None:
        """This caller wants it no more; nobody else wanting it either cancels it. Harmless after the end."""
        self._task.cancel()
