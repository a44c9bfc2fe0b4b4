"""containerd's content store in one namespace: blobs by digest, their labels, and unfinished ones."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from imagecached.containerd import methods
from imagecached.containerd._proto import containerd_pb2 as pb
from imagecached.containerd.nouns import Content, Ingest
from imagecached.containerd.wire import Scope, Talk, Wire
from imagecached.errors import AlreadyExists, Corrupt, FailedPrecondition, NotFound

PIECE_BYTES: Final = 1 << 20
COMMIT_SECONDS: Final = 120.0  # containerd makes the blob durable before it answers

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
        """Forget an unfinished blob, if there is one."""
        try:
            await self._wire.ask(methods.CONTENT_ABORT, pb.ContentRef(ref=ref), self._scope)
        except NotFound:
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
    ) -> bool:
        """Stream a blob of ``size`` bytes in, from where an earlier writer of ``ref`` stopped; whether any
        byte of it was written by this call.

        ``on_offset`` hears how much is there. Unavailable: another writer has the ref. Corrupt: the bytes are
        not those of the digest, and nothing of them is kept.
        """
        try:
            async with self._wire.talk(methods.CONTENT_WRITE, self._scope) as talk:
                begun = await talk.say(pb.ContentWrite(ref=ref, total=size, expected=digest))
                begun_at = await self._fill(talk, begun.offset, size, chunks, on_offset)
                end = pb.ContentWrite(
                    action=pb.COMMIT, offset=size, total=size, expected=digest, labels=dict(labels)
                )
                await talk.say(end, end=True, seconds=COMMIT_SECONDS)
        except AlreadyExists:
            on_offset(size)
            await self.label(digest, labels)
            return False
        except FailedPrecondition as error:
            await self.abort(ref)
            raise Corrupt(f"blob {digest}: {error}") from error
        return begun_at < size

    async def _fill(
        self,
        talk: Talk[pb.ContentWrite, pb.ContentWritten],
        offset: int,
        size: int,
        chunks: Chunks,
        on_offset: Callable[[int], None],
    ) -> int:
        begun_at = offset
        on_offset(offset)
        if offset < size:
            async with chunks(offset) as stream:
                async for data in stream:
                    for start in range(0, len(data), PIECE_BYTES):
                        piece = data[start : start + PIECE_BYTES]
                        await talk.say(pb.ContentWrite(action=pb.WRITE, offset=offset, data=piece))
                        offset += len(piece)
                        on_offset(offset)
        return begun_at


def _content(info: pb.ContentInfo) -> Content:
    return Content(info.digest, info.size, dict(info.labels))


def _ingest(status: pb.Ingest) -> Ingest:
    updated = status.updated_at.seconds + status.updated_at.nanos / 1e9
    return Ingest(status.ref, status.offset, status.total, updated)
