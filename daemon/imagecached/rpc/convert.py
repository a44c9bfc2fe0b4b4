"""Nouns ↔ messages. Pure. Times are nanoseconds as integers: a float or a datetime would cut them."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from imagecached.rpc._proto import snapshots_pb2 as pb
from imagecached.snapshotter import Mount, Record
from imagecached.store import Kind

KINDS: Final[dict[Kind, pb.Kind]] = {"view": pb.VIEW, "active": pb.ACTIVE, "committed": pb.COMMITTED}
_SECOND: Final = 10**9


def mounts_answer(mounts: tuple[Mount, ...]) -> pb.MountsAnswer:
    """What Prepare, View and Mounts answer."""
    made = [pb.Mount(type=mount.type, source=mount.source, options=mount.options) for mount in mounts]
    return pb.MountsAnswer(mounts=made)


def info(record: Record) -> pb.Info:
    """What Stat, Update and List say of a snapshot."""
    return pb.Info(
        name=record.name,
        parent=record.parent,
        kind=KINDS[record.kind],
        created_at=_timestamp(record.created),
        updated_at=_timestamp(record.updated),
        labels=dict(record.labels),
    )


def _timestamp(nanoseconds: int) -> Timestamp:
    seconds, nanos = divmod(nanoseconds, _SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)
