"""containerd's content store in one namespace: blobs by digest, their labels, and unfinished ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from imagecached.aio import backoff
from imagecached.containerd import methods
from imagecached.containerd._proto import containerd_pb2 as pb
from imagecached.containerd.nouns import Content, Ingest
from imagecached.containerd.wire import Scope, Talk, Wire
from imagecached.errors import (
    AlreadyExists,
    Corrupt,
    FailedPrecondition,
    ImagecachedError,
    NotFound,
    Unavailable,
)

PIECE_BYTES: Final = 1 << 20
COMMIT_SECONDS: Final = 120.0  # containerd makes the blob durable before it answers
_LOCKED: Final = " locked for "  # containerd's words for a ref that another writer has
_LOCK_TRIES: Final = 8

_DOCUMENT_BYTES: Final = 4 << 20

Chunks = Callable[[int], AbstractAsyncContextManager[AsyncGenerator[bytes, None]]]
"""The bytes of a blob from an offset on."""


class ContentStore:
    """The blobs of one namespace."""

    def __init__(self, wire: Wire, scope: Scope) -> None:
        self._wire = wire
        self._scope = scope

    async def info(self, digest: str) -> Content | None:
        """The blob, or None."""
        request = pb.ContentDigest(digest=digest)
        try:
            answer = await self._wire.ask(methods.CONTENT_INFO, request, self._scope)
        except NotFound:
            return None
        return _content(answer.info)

    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        """Set these labels of a blob and leave the others; an empty value removes one. NotFound."""
        mask = FieldMask(paths=[f"labels.{name}" for name in labels])
        info = pb.ContentInfo(digest=digest, labels=dict(labels))
        await self._wire.ask(
            methods.CONTENT_UPDATE, pb.ContentUpdate(info=info, update_mask=mask), self._scope
        )

    async def listed(self, filters: Sequence[str] = ()) -> list[Content]:
        """All blobs that one of the filters holds for; all if there is none."""
        request, found = pb.Filters(filters=filters), []
        async with aclosing(self._wire.hear(methods.CONTENT_LIST, request, self._scope)) as blocks:
            async for block in blocks:
                found += [_content(info) for info in block.info]
        return found

    async def read(self, digest: str) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob. NotFound. Use it inside ``contextlib.aclosing``."""
        request = pb.ContentRead(digest=digest)
        async with aclosing(self._wire.hear(methods.CONTENT_READ, request, self._scope)) as pieces:
            async for piece in pieces:
                yield piece.data

    async def document(self, digest: str) -> bytes:
        """The bytes of a manifest or config. NotFound; Corrupt: over 4 MiB, so it is none."""
        data = bytearray()
        async with aclosing(self.read(digest)) as pieces:
            async for piece in pieces:
                data += piece
                if len(data) > _DOCUMENT_BYTES:
                    raise Corrupt(f"blob {digest}: over {_DOCUMENT_BYTES >> 20} MiB, so no document")
        return bytes(data)

    async def delete(self, digest: str) -> None:
        """Remove a blob from the namespace, if it is there."""
        try:
            await self._wire.ask(methods.CONTENT_DELETE, pb.ContentDigest(digest=digest), self._scope)
        except NotFound:
            return

    async def ingests(self) -> list[Ingest]:
        """Blobs that are being written, or whose writer ended too early."""
        answer = await self._wire.ask(methods.CONTENT_STATUSES, pb.Filters(), self._scope)
        return [_ingest(status) for status in answer.statuses]

    async def abort(self, ref: str) -> None:
        """Forget an unfinished blob, if there is one. Its writer may still be about to end: that is waited
        for.
        """
        for attempt in range(_LOCK_TRIES):
            try:
                await self._wire.ask(methods.CONTENT_ABORT, pb.ContentRef(ref=ref), self._scope)
            except NotFound:
                return
            except ImagecachedError:
                if attempt == _LOCK_TRIES - 1:
                    raise
                await asyncio.sleep(backoff(attempt, first=0.02, most=1.0))
            else:
                return

    async def put(self, ref: str, digest: str, data: bytes, labels: Mapping[str, str]) -> None:
        """Make a small blob present with at least these labels.

        Corrupt if the bytes are not those of the digest.
        """
        whole = pb.ContentWrite(
            action=pb.COMMIT, ref=ref, total=len(data), expected=digest, data=data, labels=dict(labels)
        )
        try:
            async with self._wire.talk(methods.CONTENT_WRITE, self._scope) as talk:
                await talk.say(whole, end=True, seconds=COMMIT_SECONDS)
        except AlreadyExists:
            await self.label(digest, labels)
        except FailedPrecondition as error:
            raise Corrupt(f"containerd refuses the bytes of {digest}: {error}") from error

    async def write(
        self,
        ref: str,
        digest: str,
        size: int,
        chunks: Chunks,
        *,
        labels: Mapping[str, str],
        on_offset: Callable[[int], None],
    ) -> int:
        """Stream a blob of ``size`` bytes in, from where an earlier writer of ``ref`` stopped; that offset,
        which is ``size`` if the blob was there.

        ``on_offset`` hears how much is there. Unavailable: another writer has the ref. Corrupt: the bytes are
        not those of the digest, and nothing of them is kept.
        """
        first = pb.ContentWrite(ref=ref, total=size, expected=digest)
        end = pb.ContentWrite(action=pb.COMMIT, offset=size, total=size, expected=digest, labels=dict(labels))
        try:
            return await self._written(first, chunks, end, on_offset)
        except AlreadyExists:
            on_offset(size)
            await self.label(digest, labels)
            return size
        except FailedPrecondition as error:
            await self.abort(ref)
            raise Corrupt(f"blob {digest}: {error}") from error

    async def _written(
        self, first: pb.ContentWrite, chunks: Chunks, end: pb.ContentWrite, on_offset: Callable[[int], None]
    ) -> int:
        """containerd notices late that an earlier writer has ended: that is waited for."""
        for attempt in range(_LOCK_TRIES):
            try:
                async with self._wire.talk(methods.CONTENT_WRITE, self._scope) as talk:
                    begun = (await talk.say(first)).offset
                    await _fill(talk, begun, end.offset, chunks, on_offset)
                    await talk.say(end, end=True, seconds=COMMIT_SECONDS)
                    return begun
            except Unavailable as error:
                if _LOCKED not in str(error) or attempt == _LOCK_TRIES - 1:
                    raise
            await asyncio.sleep(backoff(attempt, first=0.02, most=1.0))
        raise AssertionError("unreachable")


async def _fill(
    talk: Talk[pb.ContentWrite, pb.ContentWritten],
    offset: int,
    size: int,
    chunks: Chunks,
    on_offset: Callable[[int], None],
) -> None:
    on_offset(offset)
    if offset == size:
        return
    async with chunks(offset) as stream:
        async for data in stream:
            for start in range(0, len(data), PIECE_BYTES):
                piece = bytes(data[start : start + PIECE_BYTES])
                await talk.say(pb.ContentWrite(action=pb.WRITE, offset=offset, data=piece))
                offset += len(piece)
                on_offset(offset)


def _content(info: pb.ContentInfo) -> Content:
    return Content(info.digest, info.size, dict(info.labels))


def _ingest(status: pb.Ingest) -> Ingest:
    updated = status.updated_at.seconds + status.updated_at.nanos / 1e9
    return Ingest(status.ref, status.offset, status.total, updated)
