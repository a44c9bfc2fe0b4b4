"""The ten methods: message → noun → one call of the snapshotter → message. No decisions.

Every call has an end of its own: a hung call would block a pod for as long as kubelet waits. What it began in
a thread cannot be abandoned half done, so it goes on in a task of the server's, and only the answer is given
up: the client hears UNAVAILABLE and may ask again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from grpclib.server import Stream

from imagecached.errors import Unavailable
from imagecached.rpc import convert
from imagecached.rpc._proto import snapshots_pb2 as pb
from imagecached.rpc._proto.snapshots_grpc import SnapshotsBase
from imagecached.rpc.status import translated
from imagecached.snapshotter import Caller, Snapshotter

T = TypeVar("T")
OnEnd = Callable[[str, str, float], None]
"""Told of every call: method, code, seconds; those that an image took to come do not count."""

log = logging.getLogger(__name__)

_CLEANUP_SECONDS: Final = 20.0
_NAMESPACE: Final = "containerd-namespace"

Call = Stream[Any, Any]


class _Watch:
    """How long a call takes; may be started anew."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._begun = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._begun


class Service(SnapshotsBase):
    """containerd's snapshots service over ``snapshotter``. Tasks that outlive their answer belong to
    ``tasks``.
    """

    deadline_seconds = 60.0

    def __init__(self, snapshotter: Snapshotter, tasks: asyncio.TaskGroup, on_end: OnEnd) -> None:
        self._snapshotter = snapshotter
        self._tasks = tasks
        self._on_end = on_end

    async def Prepare(self, stream: Call) -> None:  # noqa: N802  the contract's name, as all below
        await self._answer("Prepare", stream, self._prepare, first=self._fill)

    async def View(self, stream: Call) -> None:  # noqa: N802
        await self._answer("View", stream, self._view, first=self._fill)

    async def Mounts(self, stream: Call) -> None:  # noqa: N802
        await self._answer("Mounts", stream, self._mounts, first=self._refill)

    async def Commit(self, stream: Call) -> None:  # noqa: N802
        await self._answer("Commit", stream, self._commit)

    async def Remove(self, stream: Call) -> None:  # noqa: N802
        await self._answer("Remove", stream, self._remove)

    async def Stat(self, stream: Call) -> None:  # noqa: N802
        await self._answer("Stat", stream, self._stat)

    async def Update(self, stream: Call) -> None:  # noqa: N802
        await self._answer("Update", stream, self._update)

    async def Usage(self, stream: Call) -> None:  # noqa: N802
        await self._answer("Usage", stream, self._usage)

    async def Cleanup(self, stream: Call) -> None:  # noqa: N802
        await self._answer("Cleanup", stream, self._cleanup)

    async def List(self, stream: Call) -> None:  # noqa: N802
        """Stream blocks as they are read; other calls are answered in between."""

        async def send(caller: Caller, request: pb.ListRequest, _watch: _Watch) -> None:
            try:
                async with asyncio.timeout(self.deadline_seconds):
                    for block in self._snapshotter.walk(caller, request.filters):
                        await stream.send_message(pb.ListAnswer(info=map(convert.info, block)))
            except TimeoutError as error:
                raise Unavailable("List: the client takes too long to read") from error

        await self._translate("List", stream, send)

    async def _fill(self, caller: Caller, request: pb.PrepareRequest) -> None:
        await self._snapshotter.fill(caller, request.parent, dict(request.labels))

    async def _refill(self, caller: Caller, request: pb.KeyRequest) -> None:
        await self._snapshotter.refill(caller, request.key)

    async def _prepare(self, caller: Caller, request: pb.PrepareRequest) -> pb.MountsAnswer:
        mounts = await self._snapshotter.prepare(caller, request.key, request.parent, dict(request.labels))
        return convert.mounts_answer(mounts)

    async def _view(self, caller: Caller, request: pb.PrepareRequest) -> pb.MountsAnswer:
        mounts = await self._snapshotter.view(caller, request.key, request.parent, dict(request.labels))
        return convert.mounts_answer(mounts)

    async def _mounts(self, caller: Caller, request: pb.KeyRequest) -> pb.MountsAnswer:
        return convert.mounts_answer(await self._snapshotter.mounts(caller, request.key))

    async def _commit(self, caller: Caller, request: pb.CommitRequest) -> Empty:
        labels = dict(request.labels)
        await self._snapshotter.commit(caller, request.name, request.key, labels, parent=request.parent)
        return Empty()

    async def _remove(self, caller: Caller, request: pb.KeyRequest) -> Empty:
        await self._snapshotter.remove(caller, request.key)
        return Empty()

    async def _stat(self, caller: Caller, request: pb.KeyRequest) -> pb.InfoAnswer:
        return pb.InfoAnswer(info=convert.info(self._snapshotter.stat(caller, request.key)))

    async def _update(self, caller: Caller, request: pb.UpdateRequest) -> pb.InfoAnswer:
        asked, mask = request.info, tuple(request.update_mask.paths)
        record = await self._snapshotter.update(caller, asked.name, dict(asked.labels), mask)
        return pb.InfoAnswer(info=convert.info(record))

    async def _usage(self, caller: Caller, request: pb.KeyRequest) -> pb.UsageAnswer:
        usage = await self._snapshotter.usage(caller, request.key)
        return pb.UsageAnswer(size=usage.size, inodes=usage.inodes)

    async def _cleanup(self, _caller: Caller, _request: pb.CleanupRequest) -> Empty:
        """Any error, and UNAVAILABLE is one, would end containerd's round of garbage collection: what takes
        longer goes on without an answer.
        """
        task = self._begin("Cleanup", self._snapshotter.cleanup)
        await asyncio.wait([task], timeout=min(_CLEANUP_SECONDS, self.deadline_seconds / 2))
        if task.done() and isinstance(error := task.result(), Exception):
            log.warning("cleanup failed", extra={"reason": str(error)})
        return Empty()

    async def _answer(
        self,
        method: str,
        stream: Call,
        act: Callable[[Caller, Any], Awaitable[object]],
        first: Callable[[Caller, Any], Awaitable[None]] | None = None,
    ) -> None:
        async def within_deadline(caller: Caller, request: object, watch: _Watch) -> None:
            if first is not None:
                await first(caller, request)
                watch.start()  # an image takes what it takes; how quick this service is, is another question
            task = self._begin(method, partial(act, caller, request))
            await asyncio.wait([task], timeout=self.deadline_seconds)
            if not task.done():
                raise Unavailable(f"{method} takes longer than {self.deadline_seconds:g} s; ask again")
            outcome = task.result()
            if isinstance(outcome, Exception):
                raise outcome
            await stream.send_message(outcome)

        await self._translate(method, stream, within_deadline)

    def _begin(self, method: str, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T | Exception]:
        """A task that goes on when nobody waits for it any more. Its error is its result: it must reach the
        client, not the group.
        """

        async def outcome() -> T | Exception:
            try:
                return await work()
            except Exception as error:  # noqa: BLE001  raised again by who waits
                return error

        running = outcome()
        try:
            return self._tasks.create_task(running, name=f"rpc {method}")
        except RuntimeError as error:
            running.close()
            raise Unavailable("the daemon is stopping") from error

    async def _translate(
        self, method: str, stream: Call, act: Callable[[Caller, Any, _Watch], Awaitable[None]]
    ) -> None:
        """The one wrapper: receive, act, give errors their code, count."""
        watch, status = _Watch(), Status.CANCELLED
        try:
            request = await stream.recv_message()
            if request is None:
                raise GRPCError(Status.INVALID_ARGUMENT, f"{method}: no message")
            namespace = str(stream.metadata.get(_NAMESPACE, "")) if stream.metadata else ""
            await act(Caller(request.snapshotter, namespace), request, watch)
            status = Status.OK
        except Exception as error:
            refusal = translated(error, method)
            status = refusal.status
            raise refusal from error
        finally:
            self._on_end(method, status.name, watch.seconds())
