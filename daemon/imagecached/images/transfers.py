"""What a pull is while it lasts and when it has ended: its layers, its progress, its result.

A :class:`Transfer` is written by its pull alone and read by anyone at any time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor

PullState = Literal["resolving", "fetching", "preparing", "ready", "failed"]
LayerSource = Literal["present", "fetched", "shared"]
PHASES: Final = ("resolve", "fetch", "prepare", "total")


@dataclass(slots=True)
class LayerTransfer:
    """One layer of one pull. ``size`` and ``done`` count bytes of the blob.

    ``source``: here before the pull, fetched by it, or by another pull that it shared a flight with; None
    while not known.
    """

    blob: Descriptor
    diff_id: Digest
    source: LayerSource | None = None
    done: int = 0

    @property
    def digest(self) -> Digest:
        return self.blob.digest

    @property
    def size(self) -> int:
        return self.blob.size

    def was_present(self) -> None:
        """The store had it before the pull."""
        self.source, self.done = "present", self.size


@dataclass(slots=True)
class Transfer:
    """How far a pull is; read at any time, written by the pull alone. ``seconds``: by phase."""

    image: str
    state: PullState = "resolving"
    layers: list[LayerTransfer] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def begin(self) -> None:
        """Forget an earlier try that was cancelled."""
        self.state, self.layers, self.seconds = "resolving", [], dict.fromkeys(PHASES, 0.0)

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


class Pull:
    """One caller's part in a pull."""

    def __init__(self, transfer: Transfer, task: asyncio.Task[PullResult | Exception]) -> None:
        self._transfer = transfer
        self._task = task

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

    def leave(self) -> None:
        """This caller wants it no more; nobody else wanting it either cancels it. Harmless after the end."""
        self._task.cancel()


def plan(blobs: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> list[LayerTransfer]:
    """One transfer per distinct diffID, lowest first."""
    transfers: dict[Digest, LayerTransfer] = {}
    for blob, diff_id in zip(blobs, diff_ids, strict=True):
        transfers.setdefault(diff_id, LayerTransfer(blob, diff_id))
    return list(transfers.values())
