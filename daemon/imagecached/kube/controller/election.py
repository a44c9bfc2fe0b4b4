"""Leads while a Lease says so: takes it, renews it, stops in time, gives it back.

Owns the requests about the Lease; the reading of it is in :mod:`lease`. Invariants: the work is cancelled,
and has ended, before the lease can be believed to be anyone else's; whoever stops in order releases the
lease, so that the next one need not wait.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from imagecached.aio import leaves
from imagecached.errors import AlreadyExists, FailedPrecondition, ImagecachedError, NotFound
from imagecached.kube.client import Cluster, Object, kinds
from imagecached.kube.controller.lease import Record, Seen, Terms, may_take, observe, released, taken

log = logging.getLogger(__name__)

_MORE_PATIENCE: Final = 0.2  # followers spread their looks by this share

Work = Callable[[], Coroutine[Any, Any, None]]


class _Lost(Exception):
    """The lease could not be renewed in time. Never leaves this module."""


class Election:
    """One candidate, ``us``, for the Lease ``name`` in ``namespace``."""

    def __init__(
        self,
        cluster: Cluster,
        us: str,
        *,
        name: str,
        namespace: str,
        terms: Terms,
        wall: Callable[[], float] = time.time,
        jitter: random.Random | None = None,
    ) -> None:
        self._cluster, self._us, self._terms, self._wall = cluster, us, terms, wall
        self._name, self._namespace = name, namespace
        self._jitter = jitter or random.Random()  # noqa: S311  spreads load, guards nothing
        self._seen: Seen | None = None
        self._lease: Object | None = None
        self._held = 0.0  # when the last successful attempt began: others count from later than this
        self.leading = False

    @property
    def leader(self) -> str:
        """Who leads as far as we know; "" nobody."""
        return self._seen.record.holder if self._seen else ""

    async def run(self, work: Work) -> None:
        """Do ``work`` whenever we lead, for ever. ``work`` runs until it is cancelled."""
        while True:
            await self._become_leader()
            log.info("leading", extra={"identity": self._us})
            try:
                await self._lead(work)
            finally:
                self.leading = False
            log.warning("not leading any more", extra={"identity": self._us})

    async def _become_leader(self) -> None:
        while not await self._try():  # noqa: ASYNC110  nobody tells: the lease is in the cluster
            await asyncio.sleep(self._terms.retry * (1 + self._jitter.uniform(0, _MORE_PATIENCE)))

    async def _lead(self, work: Work) -> None:
        """Work and renew until renewing fails for too long; release the lease when we are told to stop."""
        self.leading, faults = True, list[Exception]()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(work(), name="leader's work")
                group.create_task(self._renew(), name="renew the lease")
        except asyncio.CancelledError:
            await self._release()
            raise
        except ExceptionGroup as errors:
            faults = [error for error in leaves(errors) if not isinstance(error, _Lost)]
        if faults:
            await self._release()
            raise faults[0]

    async def _renew(self) -> None:
        """Renew for ever. A write that hangs is given up when the term for renewing ends."""
        while True:
            await asyncio.sleep(self._terms.retry)
            try:
                async with asyncio.timeout_at(self._held + self._terms.renew):
                    while not await self._try():  # noqa: ASYNC110  nobody tells
                        await asyncio.sleep(self._terms.retry)
            except TimeoutError:
                raise _Lost from None
            if self.leader != self._us:
                raise _Lost

    async def _try(self) -> bool:
        """One attempt to take or renew the lease; errors of the API server are failures."""
        try:
            return await self._attempt()
        except (AlreadyExists, FailedPrecondition):
            self._lease = None  # somebody else was quicker
            return False
        except ImagecachedError as error:
            log.warning("lease not reached", extra={"error": str(error)})
            self._lease = None
            return False

    async def _attempt(self) -> bool:
        now = asyncio.get_running_loop().time()
        lease = self._lease if self.leading and self._lease else await self._read()
        if lease is None:
            record = taken(None, self._us, self._terms, self._wall())
            written = await self._cluster.create(kinds.LEASES, self._new(record), namespace=self._namespace)
        else:
            record = Record.of(lease)
            self._seen = observe(self._seen, record, now)
            if not may_take(self._seen, self._us, now):
                return self.leading  # somebody else's: the renewing ends with this
            record = taken(record, self._us, self._terms, self._wall())
            written = await self._put(lease, record)
        self._lease, self._held = written, now
        self._seen = observe(self._seen, Record.of(written), now)
        return True

    async def _read(self) -> Object | None:
        with suppress(NotFound):
            return await self._cluster.get(kinds.LEASES, self._name, namespace=self._namespace)
        return None

    def _new(self, record: Record) -> Object:
        return {**kinds.LEASES.named(self._name, self._namespace), "spec": record.spec()}

    async def _put(self, lease: Object, record: Record) -> Object:
        """Over the very version that was read, or not at all."""
        changed = {**lease, "spec": record.spec()}
        return await self._cluster.replace(kinds.LEASES, changed, namespace=self._namespace)

    async def _release(self) -> None:
        """Let another begin at once. What fails here costs the others some seconds, no more."""
        lease = self._lease
        if lease is None:
            return
        with suppress(ImagecachedError, TimeoutError):
            async with asyncio.timeout(self._terms.retry):
                await self._put(lease, released(Record.of(lease), self._wall()))
