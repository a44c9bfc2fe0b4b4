"""The phase machine: the only place where a status changes its phase.

    Pending → Creating → Ready | Failed              Ready | UpdateFailed → Updating → Ready | UpdateFailed

Each function is one act. What an act does in which phase is one table; an act that the table does not allow
raises FailedPrecondition and changes nothing, so no sequence of calls can make an illegal transition.
While something serves, a failed build ends in UpdateFailed and the old generation serves on. A new build of a
cache that never served begins at Pending again, also after Failed: that is how an edit mends it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, TypeAlias

from imagecached.errors import FailedPrecondition
from imagecached.imagecache.conditions import conditions_of
from imagecached.imagecache.history import note
from imagecached.imagecache.model import ImageCache
from imagecached.imagecache.retention import expiry
from imagecached.imagecache.status import Bytes, EventType, ImageStatus, Phase, Status

Act: TypeAlias = Literal["begin", "resolve", "advance", "finish", "fail", "refuse"]

LEGAL: Final[Mapping[Act, Mapping[Phase, Phase]]] = {
    "begin": {
        "Pending": "Pending",
        "Creating": "Pending",
        "Failed": "Pending",
        "Ready": "Updating",
        "Updating": "Updating",
        "UpdateFailed": "Updating",
    },
    "resolve": {"Pending": "Creating", "Updating": "Updating"},
    "advance": {"Creating": "Creating", "Updating": "Updating"},
    "finish": {"Creating": "Ready", "Updating": "Ready"},
    "fail": {"Pending": "Failed", "Creating": "Failed", "Updating": "UpdateFailed"},
    "refuse": {
        "Pending": "Failed",
        "Creating": "Failed",
        "Failed": "Failed",
        "Ready": "UpdateFailed",
        "Updating": "UpdateFailed",
        "UpdateFailed": "UpdateFailed",
    },
}
"""Act → phase before → phase after. What is not here cannot happen."""

INVALID_SPEC: Final = "InvalidSpec"
_MOST_UNFINISHED: Final = 99
_MOST_IGNORED: Final = 10


def needs_build(cache: ImageCache, status: Status) -> bool:
    """Was the cache declared, or its images edited, or a refresh asked for, since the last :func:`begin`?"""
    return status.generation == 0 or status.build != cache.build


def begin(cache: ImageCache, status: Status, now: float) -> Status:
    """A new generation is wanted: also the first act on a cache that nobody has looked at (``Status()``)."""
    phase = _after("begin", status)
    begun = replace(
        status,
        phase=phase,
        progress="0%",
        image_cache_id=cache.id,
        start_time=_second(now) if status.start_time is None else status.start_time,
        reason="",
        message="",
        generation=status.generation + 1,
        build=cache.build,
        images=tuple(ImageStatus(image) for image in cache.images),
        bytes=Bytes(),
        nodes_ready=0,
        rollout_window=0,
        drifted_images=(),
    )
    for text in cache.ignored[:_MOST_IGNORED]:
        begun = note(begun, now, "Ignored", text, "Warning")
    if status.generation == 0:
        begun = note(begun, now, "Declared", f"{_images(len(cache.images))}, at most {cache.size_gib} GiB")
    elif phase == "Updating":
        begun = note(begun, now, "Updating", f"building generation {begun.generation}; the old one serves on")
    else:
        begun = note(begun, now, "Restarted", f"building generation {begun.generation} instead")
    return _settled(cache, status, begun, now)


def resolve(cache: ImageCache, status: Status, images: Sequence[ImageStatus], now: float) -> Status:
    """The references were resolved: from here on the build brings exactly ``images``."""
    resolved = replace(status, phase=_after("resolve", status), images=tuple(images), reason="", message="")
    return _settled(cache, status, note(resolved, now, "Resolved", _resolved_text(images)), now)


def advance(
    cache: ImageCache, status: Status, now: float, *, moved: Bytes, reason: str = "", message: str = ""
) -> Status:
    """The build goes on. ``reason`` and ``message``: what holds it up, as a registry that does not answer.

    Progress never goes back within a generation, though totals may turn out greater than was known before.
    """
    phase = _after("advance", status)
    percent = max(percent_of(status.progress), min(_MOST_UNFINISHED, _percent(moved)))
    after = replace(status, phase=phase, bytes=moved, progress=f"{percent}%", reason=reason, message=message)
    if reason and reason != status.reason:
        after = note(after, now, reason, message, "Warning")
    return _settled(cache, status, after, now)


def finish(
    cache: ImageCache, status: Status, now: float, *, moved: Bytes | None = None, message: str = ""
) -> Status:
    """The build is done: its generation serves from now on."""
    done = replace(
        status,
        phase=_after("finish", status),
        progress="100%",
        bytes=moved or status.bytes,
        serving=status.images,
        serving_generation=status.generation,
        reason="",
        message=message,
    )
    text = f"generation {done.generation}: {done.bytes.fetched} bytes fetched, {done.bytes.reused} reused"
    return _settled(cache, status, note(done, now, "Ready", text), now)


def fail(cache: ImageCache, status: Status, now: float, *, reason: str, message: str) -> Status:
    """The build cannot succeed: ``reason`` is one CamelCase word, ``message`` says what and where."""
    failed = replace(status, phase=_after("fail", status), reason=reason, message=message)
    return _settled(cache, status, note(failed, now, reason, message, "Warning"), now)


def refuse(status: Status, now: float, *, cache_id: str, message: str) -> Status:
    """The object makes no sense, so there is nothing to build; what serves, serves on. ``message`` says why.

    Whatever makes sense again is another build.
    """
    phase = _after("refuse", status)
    if (status.phase, status.reason, status.message) == (phase, INVALID_SPEC, message):
        return status
    refused = replace(
        status,
        phase=phase,
        progress="0%",
        image_cache_id=cache_id,
        reason=INVALID_SPEC,
        message=message,
        build="",
    )
    refused = note(refused, now, INVALID_SPEC, message, "Warning")
    return replace(refused, conditions=conditions_of(refused, now), last_updated_time=_second(now))


def looked_at(cache: ImageCache, status: Status, now: float) -> Status:
    """Edits that need no build (size, retention, labels) take effect here; nothing else changes."""
    return _settled(cache, status, status, now)


def matched(cache: ImageCache, status: Status, now: float) -> Status:
    """A pod was given this cache. No event: that would push the history of builds out."""
    if not status.usable:
        raise FailedPrecondition(f"{cache.name} is {status.phase} and serves nothing")
    return _settled(cache, status, replace(status, last_matched_time=_second(now)), now)


def drifted(cache: ImageCache, status: Status, images: Sequence[str], now: float) -> Status:
    """The registry's tags of ``images`` (as written) name something else by now. Serving goes on."""
    if tuple(images) == status.drifted_images:
        return status
    moved = replace(status, drifted_images=tuple(images))
    for image in images:
        if image not in status.drifted_images:
            moved = note(moved, now, "Drifted", f"{image} names another digest now; refresh to follow it")
    return _settled(cache, status, moved, now)


def nodes(cache: ImageCache, status: Status, now: float, *, ready: int, total: int) -> Status:
    """How many of the target nodes hold the generation that is built, or was built last."""
    return _settled(cache, status, replace(status, nodes_ready=ready, nodes_total=total), now)


def event(status: Status, now: float, name: str, message: str, kind: EventType = "Normal") -> Status:
    """Note something that happened and is no transition."""
    return replace(note(status, now, name, message, kind), last_updated_time=_second(now))


def percent_of(progress: str) -> int:
    """``"42%"`` → 42."""
    return int(progress.removesuffix("%"))


def _after(act: Act, status: Status) -> Phase:
    try:
        return LEGAL[act][status.phase]
    except KeyError:
        allowed = ", ".join(LEGAL[act])
        raise FailedPrecondition(f"cannot {act} a cache that is {status.phase}, only {allowed}") from None


def _settled(cache: ImageCache, before: Status, after: Status, now: float) -> Status:
    """What follows from the rest: observed generation, when it goes, conditions; the time, if any changed."""
    settled = replace(
        after,
        observed_generation=max(cache.generation, after.observed_generation),
        expire_date_time=_maybe(expiry(cache, after, now)),
    )
    settled = replace(settled, conditions=conditions_of(settled, now))
    return before if settled == before else replace(settled, last_updated_time=_second(now))


def _resolved_text(images: Sequence[ImageStatus]) -> str:
    size = sum(image.bytes for image in images)
    return _images(len(images)) + (f", {size} bytes unpacked" if size else "")


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _percent(moved: Bytes) -> int:
    return moved.done * 100 // moved.total if moved.total else 0


def _second(now: float) -> float:
    return float(int(now))


def _maybe(moment: float | None) -> float | None:
    return None if moment is None else _second(moment)
