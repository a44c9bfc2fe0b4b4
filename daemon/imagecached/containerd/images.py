"""containerd's image records in one namespace: names, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from imagecached.containerd import methods
from imagecached.containerd._proto import containerd_pb2 as pb
from imagecached.containerd.nouns import ImageRecord, Target
from imagecached.containerd.wire import Scope, Wire
from imagecached.errors import NotFound


class ImageRecords:
    """The image records of one namespace."""

    def __init__(self, wire: Wire, scope: Scope) -> None:
        self._wire = wire
        self._scope = scope

    async def get(self, name: str) -> ImageRecord | None:
        """The record, or None."""
        try:
            answer = await self._wire.ask(methods.IMAGE_GET, pb.Name(name=name), self._scope)
        except NotFound:
            return None
        return _record(answer.image)

    async def listed(self, filters: Sequence[str] = ()) -> list[ImageRecord]:
        """All records that one of the filters holds for; all if there is none."""
        answer = await self._wire.ask(methods.IMAGE_LIST, pb.Filters(filters=filters), self._scope)
        return [_record(image) for image in answer.images]

    async def create(self, record: ImageRecord) -> None:
        """A new record. AlreadyExists."""
        await self._wire.ask(methods.IMAGE_CREATE, pb.ImageAnswer(image=_message(record)), self._scope)

    async def retarget(self, record: ImageRecord) -> None:
        """Give the record of this name this target and these labels; its other labels stay. NotFound."""
        await self._update(record, "target", *(f"labels.{name}" for name in record.labels))

    async def label(self, record: ImageRecord, labels: Mapping[str, str]) -> None:
        """Set these labels of a record and leave the others; an empty value removes one. NotFound."""
        changed = ImageRecord(record.name, record.target, labels)
        await self._update(changed, *(f"labels.{name}" for name in labels))

    async def delete(self, name: str, *, sync: bool = False) -> None:
        """Remove a record if it is there; with ``sync`` wait until what it kept has been collected."""
        try:
            await self._wire.ask(
                methods.IMAGE_DELETE, pb.ImageDelete(name=name, sync=sync), self._scope, seconds=60
            )
        except NotFound:
            return

    async def _update(self, record: ImageRecord, *paths: str) -> None:
        request = pb.ImageUpdate(image=_message(record), update_mask=FieldMask(paths=paths))
        await self._wire.ask(methods.IMAGE_UPDATE, request, self._scope)


def _record(image: pb.Image) -> ImageRecord:
    target = image.target
    return ImageRecord(
        image.name,
        Target(target.media_type, target.digest, target.size, dict(target.annotations)),
        dict(image.labels),
    )


def _message(record: ImageRecord) -> pb.Image:
    target = record.target
    return pb.Image(
        name=record.name,
        labels=dict(record.labels),
        target=pb.Descriptor(
            media_type=target.media_type,
            digest=target.digest,
            size=target.size,
            annotations=dict(target.annotations),
        ),
    )
