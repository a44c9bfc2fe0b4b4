"""The status as the mapping that API objects, the daemon's API and its store hold (camelCase, RFC 3339).

Invariant: ``parse_status(status_document(status)) == status``. What comes in is checked and bounded;
fields we do not know are ignored: a newer version may have written them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec

from imagecached.errors import InvalidInput
from imagecached.imagecache.status import (
    MAX_EVENTS,
    Bytes,
    CacheEvent,
    Condition,
    ConditionStatus,
    EventType,
    ImageStatus,
    Phase,
    Status,
)
from imagecached.oci.digest import Digest

_MAX_LIST: Final = 100
_MAX_NUMBER: Final = (1 << 63) - 1

_Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_NUMBER)]
_Text = Annotated[str, msgspec.Meta(max_length=1 << 16)]


class _Image(msgspec.Struct, rename="camel", omit_defaults=True):
    image: _Text
    digest: str | None = None
    manifest_digests: Annotated[list[str], msgspec.Meta(max_length=_MAX_LIST)] = []
    bytes: _Count = 0


class _Condition(msgspec.Struct, rename="camel"):
    type: _Text
    status: ConditionStatus
    reason: _Text = ""
    message: _Text = ""
    last_transition_time: datetime | None = None
    observed_generation: _Count = 0


class _Event(msgspec.Struct, rename="camel"):
    name: _Text
    message: _Text = ""
    type: EventType = "Normal"
    timestamp: datetime | None = None
    count: _Count = 1


class _Status(msgspec.Struct, rename="camel"):
    phase: Phase = "Pending"
    progress: Annotated[str, msgspec.Meta(pattern=r"^(100|[1-9]?[0-9])%$")] = "0%"
    image_cache_id: _Text = ""
    start_time: datetime | None = None
    last_updated_time: datetime | None = None
    expire_date_time: datetime | None = None
    reason: _Text = ""
    message: _Text = ""
    events: Annotated[list[_Event], msgspec.Meta(max_length=_MAX_LIST)] | None = None
    conditions: Annotated[list[_Condition], msgspec.Meta(max_length=_MAX_LIST)] = []
    observed_generation: _Count = 0
    generation: _Count = 0
    build: _Text = ""
    images: Annotated[list[_Image], msgspec.Meta(max_length=_MAX_LIST)] = []
    serving_generation: _Count = 0
    serving: Annotated[list[_Image], msgspec.Meta(max_length=_MAX_LIST)] = []
    bytes_total: _Count = 0
    bytes_done: _Count = 0
    bytes_reused: _Count = 0
    bytes_fetched: _Count = 0
    nodes_ready: _Count = 0
    nodes_total: _Count = 0
    rollout_window: _Count = 0
    last_matched_time: datetime | None = None
    drifted_images: Annotated[list[_Text], msgspec.Meta(max_length=_MAX_LIST)] = []


def status_document(status: Status) -> dict[str, Any]:
    """The mapping to write. Times that are unknown are left out; everything else is always there."""
    wire = _Status(
        phase=status.phase,
        progress=status.progress,
        image_cache_id=status.image_cache_id,
        start_time=_moment(status.start_time),
        last_updated_time=_moment(status.last_updated_time),
        expire_date_time=_moment(status.expire_date_time),
        reason=status.reason,
        message=status.message,
        events=[_event_out(event) for event in status.events],
        conditions=[_condition_out(condition) for condition in status.conditions],
        observed_generation=status.observed_generation,
        generation=status.generation,
        build=status.build,
        images=[_image_out(image) for image in status.images],
        serving_generation=status.serving_generation,
        serving=[_image_out(image) for image in status.serving],
        bytes_total=status.bytes.total,
        bytes_done=status.bytes.done,
        bytes_reused=status.bytes.reused,
        bytes_fetched=status.bytes.fetched,
        nodes_ready=status.nodes_ready,
        nodes_total=status.nodes_total,
        rollout_window=status.rollout_window,
        last_matched_time=_moment(status.last_matched_time),
        drifted_images=list(status.drifted_images),
    )
    return {name: value for name, value in msgspec.to_builtins(wire).items() if value is not None}


def parse_status(document: Mapping[str, Any] | None) -> Status:
    """The status in an object; none or an empty one: nobody has looked at it yet. InvalidInput."""
    try:
        return _status_in(msgspec.convert(document or {}, _Status))
    except msgspec.ValidationError as error:
        raise InvalidInput(f"status: {error}") from error


def _status_in(wire: _Status) -> Status:
    return Status(
        phase=wire.phase,
        progress=wire.progress,
        image_cache_id=wire.image_cache_id,
        start_time=_seconds(wire.start_time),
        last_updated_time=_seconds(wire.last_updated_time),
        expire_date_time=_seconds(wire.expire_date_time),
        reason=wire.reason,
        message=wire.message,
        events=tuple(_event_in(event) for event in (wire.events or [])[-MAX_EVENTS:]),
        conditions=tuple(_condition_in(condition) for condition in wire.conditions),
        observed_generation=wire.observed_generation,
        generation=wire.generation,
        build=wire.build,
        images=tuple(_image_in(image) for image in wire.images),
        serving_generation=wire.serving_generation,
        serving=tuple(_image_in(image) for image in wire.serving),
        bytes=Bytes(wire.bytes_total, wire.bytes_done, wire.bytes_reused, wire.bytes_fetched),
        nodes_ready=wire.nodes_ready,
        nodes_total=wire.nodes_total,
        rollout_window=wire.rollout_window,
        last_matched_time=_seconds(wire.last_matched_time),
        drifted_images=tuple(wire.drifted_images),
    )


def _image_out(image: ImageStatus) -> _Image:
    digests = [str(digest) for digest in image.manifest_digests]
    return _Image(image.image, str(image.digest) if image.digest else None, digests, image.bytes)


def _image_in(wire: _Image) -> ImageStatus:
    digests = tuple(Digest.parse(digest) for digest in wire.manifest_digests)
    return ImageStatus(wire.image, Digest.parse(wire.digest) if wire.digest else None, digests, wire.bytes)


def _condition_out(condition: Condition) -> _Condition:
    moment = _moment(condition.last_transition_time)
    return _Condition(
        condition.type,
        condition.status,
        condition.reason,
        condition.message,
        moment,
        condition.observed_generation,
    )


def _condition_in(wire: _Condition) -> Condition:
    seconds = _seconds(wire.last_transition_time) or 0.0
    return Condition(wire.type, wire.status, wire.reason, wire.message, seconds, wire.observed_generation)


def _event_out(event: CacheEvent) -> _Event:
    return _Event(event.name, event.message, event.type, _moment(event.timestamp), event.count)


def _event_in(wire: _Event) -> CacheEvent:
    return CacheEvent(wire.name, wire.message, wire.type, _seconds(wire.timestamp) or 0.0, wire.count)


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the second, as Kubernetes writes it."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC)


def _seconds(moment: datetime | None) -> float | None:
    """A time without zone is refused, not guessed."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidInput(f"status: a time without zone: {moment.isoformat()}")
    return float(int(moment.timestamp()))
