"""The operations that answer line by line: pull, fetch_blobs, fsck, events.

Each checks its request before the first line, so that a wrong one gets a status of its own. Progress is
told on change only and at most every :data:`TICK_SECONDS`. Closing a stream ends what was begun for it
alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, TypeVar

from imagecached.api import convert, documents, requests
from imagecached.api.failures import detail_of
from imagecached.api.operation import Call, Lines
from imagecached.api.ports import Pull
from imagecached.errors import FailedPrecondition
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference

TICK_SECONDS: Final = 0.1

T = TypeVar("T")


async def pull(call: Call[requests.PullRequest]) -> Lines:
    """Make images ready. Closing the connection cancels what nobody else wants."""
    names = dict.fromkeys(str(Reference.parse(name)) for name in call.request.images)
    platform = str(Platform.parse(call.request.platform)) if call.request.platform else None
    return _pulling(call.group, (call.ports.images.pull(name, platform) for name in names))


async def fetch_blobs(call: Call[requests.BlobsRequest]) -> Lines:
    """Bring layers into containerd as the registry has them.

    Closing the connection cancels what nobody else wants; the next time it goes on where it stopped.
    """
    names = dict.fromkeys(str(Reference.parse(name)) for name in call.request.images)
    registration = call.ports.registration
    if registration is None:
        raise FailedPrecondition("no containerd is told of images: set containerd.socket")
    return _pulling(call.group, (registration.fetch_blobs(name) for name in names))


async def _pulling(group: asyncio.TaskGroup, begun: Iterable[Pull]) -> Lines:
    pulls: list[Pull] = []
    told: dict[str, documents.PullProgress] = {}
    try:
        pulls.extend(begun)
        async with _owned(group, [_end(one) for one in pulls]) as ends:
            pending = set(ends)
            while True:
                for progress in [convert.pull_progress(one.progress()) for one in pulls]:
                    if told.get(progress.image) != progress:
                        yield progress
                        told[progress.image] = progress
                if not pending:
                    break
                pending = (await asyncio.wait(ends, timeout=TICK_SECONDS))[1]
            yield documents.PullDone(images=[end.result() for end in ends])
    finally:
        for one in pulls:
            one.leave()


async def _end(one: Pull) -> documents.ReadyImage | documents.FailedImage:
    try:
        result = await one.wait()
    except Exception as error:  # noqa: BLE001  one image that fails in whatever way is no reason to end the others
        return documents.FailedImage(image=one.progress().image, error=detail_of(error))
    return convert.ready_image(one.progress(), result)


@asynccontextmanager
async def _owned(
    group: asyncio.TaskGroup, coroutines: Iterable[Coroutine[Any, Any, T]]
) -> AsyncIterator[list[asyncio.Task[T]]]:
    """Tasks that have ended when the body has; they must not raise."""
    tasks = [group.create_task(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def fsck(call: Call[requests.FsckRequest]) -> Lines:
    """Verify every file against its digest."""
    return _checking(call)


async def _checking(call: Call[requests.FsckRequest]) -> Lines:
    told, now = None, documents.FsckProgress(bytes_done=0, bytes_total=0)

    def on_progress(done: int, total: int) -> None:
        nonlocal now
        now = documents.FsckProgress(bytes_done=done, bytes_total=total)

    async def check() -> documents.FsckDone | Exception:
        try:
            report = await call.ports.store.fsck(repair=call.request.repair, on_progress=on_progress)
            return convert.fsck_done(report)
        except Exception as error:  # noqa: BLE001  raised below, where the client hears of it
            return error

    async with _owned(call.group, [check()]) as [checking]:
        while (await asyncio.wait([checking], timeout=TICK_SECONDS))[1]:
            if now != told:
                yield now
                told = now
        end = checking.result()
        if isinstance(end, Exception):
            raise end
        yield end


async def watch_caches(call: Call[requests.WatchRequest]) -> Lines:
    """ImageCaches as they are, then each whenever it changes, and when it has gone."""
    if call.request.name:
        call.ports.caches.view(call.request.name)
    return _watching(call)


async def _watching(call: Call[requests.WatchRequest]) -> Lines:
    wanted = call.request
    end = asyncio.get_running_loop().time() + wanted.timeout_seconds if wanted.timeout_seconds else None
    async with aclosing(call.ports.caches.watch(wanted.name or None)) as changes:
        while True:
            scope = asyncio.timeout_at(end)
            try:
                async with scope:
                    change = await anext(changes)
            except TimeoutError:
                if not scope.expired():
                    raise
                return
            if isinstance(change, str):
                yield documents.ImageCacheGone(id=change)
            else:
                yield convert.cache_summary(change)


async def events(call: Call[requests.EventsRequest]) -> Lines:
    """What happened, oldest first."""
    return _events(call)


async def _events(call: Call[requests.EventsRequest]) -> Lines:
    log, wanted = call.ports.events, call.request
    if not wanted.follow:
        for event in log.recent(wanted.since, wanted.subject or None):
            yield convert.event_line(event)
        return
    async with aclosing(log.subscribe(wanted.since)) as following:
        async for event in following:
            if wanted.subject in ("", event.subject):
                yield convert.event_line(event)
