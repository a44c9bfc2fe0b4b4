"""What is to be done next about one cache: a pure decision over declaration, memory and time.

Level-triggered: it looks at how things are, never at what has just happened, so that a restart, a lost signal
or a second look leads to the same end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from imagecached.caches.declared import Declared
from imagecached.caches.lives import Life, fingerprint
from imagecached.caches.wanted import TooLarge
from imagecached.errors import (
    AccessDenied,
    Corrupt,
    FailedPrecondition,
    ImagecachedError,
    NotFound,
    OutOfSpace,
    Unavailable,
)
from imagecached.imagecache import due, phases

LONGEST_WAIT: Final = 600.0
"""Nobody sleeps longer without a look at the clock: it may have been set, or the machine was asleep."""

MOST_BACKOFF: Final = 600.0

FAILED_AGAIN: Final = 3600.0
"""A cluster's build that failed here is begun anew after this time, unless the controller gives it up."""

Cause: TypeAlias = Literal["Deleted", "Expired", "Failed", "Unused", "Idle", "TooMany", "DiskPressure"]
CAUSES: Final[tuple[Cause, ...]] = get_args(Cause)

YIELDED: Final = "its disk was needed, and it was the automatic cache that was unused for the longest time"


@dataclass(frozen=True, slots=True)
class Begin:
    """A new generation is wanted."""


@dataclass(frozen=True, slots=True)
class Build:
    """Go on with the generation that is being built."""


@dataclass(frozen=True, slots=True)
class Mend:
    """Bring back what should serve and has been lost."""


@dataclass(frozen=True, slots=True)
class Compare:
    """Ask the registry whether the tags still name what serves."""


@dataclass(frozen=True, slots=True)
class Going:
    """Why a cache goes, in one word and in one sentence."""

    cause: Cause
    message: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget the cache; ``going`` None: it is not declared any more."""

    going: Going | None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do for so many seconds."""

    seconds: float = LONGEST_WAIT


Step: TypeAlias = Begin | Build | Mend | Compare | Remove | Wait


def next_step(
    declared: Declared | None, life: Life, now: float, *, compare_seconds: float, intact: bool = True
) -> Step:
    """The one thing to do now. ``compare_seconds``: how often tags are compared; 0: never. ``intact``: what
    should serve is here.
    """
    if declared is None:
        return Remove(None)
    if life.over:
        return Wait() if life.over == fingerprint(declared.cache) else Begin()
    status = life.status
    if status.generation == 0:
        return Begin()  # before anything else: nobody knows since when it is there
    removal = None if declared.managed else due(declared.cache, status, now)
    if removal is not None:
        return Remove(Going(removal.cause, removal.message))
    if wants_build(declared, life):
        return Begin()
    if status.phase in ("Pending", "Creating", "Updating"):
        return _building(declared, life, now)
    if not intact:
        seconds = wait_until(life.retry_at, now, MOST_BACKOFF)
        return Wait(seconds) if seconds > 0 else Mend()
    return _resting(declared, life, now, compare_seconds)


def _resting(declared: Declared, life: Life, now: float, compare_seconds: float) -> Step:
    """Nothing is being built: what is due next."""
    status = life.status
    waits = [LONGEST_WAIT]
    if declared.managed and declared.may_fetch and status.phase in ("Failed", "UpdateFailed"):
        waits.append(wait_until(life.retry_at, now, FAILED_AGAIN))
        if waits[-1] <= 0:
            return Begin()  # others hold it, so the fault is here, and may have gone
    if status.expire_date_time is not None and not declared.managed:
        waits.append(status.expire_date_time - now)
    if compare_seconds and status.phase != "Failed" and has_tags(declared):
        waits.append(wait_until(life.looked + compare_seconds, now, compare_seconds))
        if waits[-1] <= 0:
            return Compare()
    return Wait(max(0.0, min(waits)))


def wants_build(declared: Declared, life: Life) -> bool:
    """Is what is declared another build than the one remembered?"""
    if phases.needs_build(declared.cache, life.status):
        return True
    return declared.generation not in (0, life.status.generation)


def has_tags(declared: Declared) -> bool:
    """Does this node have to find out whether a tag has moved?"""
    return not declared.managed and any(reference.digest is None for reference in declared.cache.references)


def wait_until(moment: float, now: float, most: float) -> float:
    """Seconds until ``moment``; none if it is further away than it can be, as then the clock was set back."""
    seconds = moment - now
    return 0.0 if seconds > most else max(0.0, seconds)


def _building(declared: Declared, life: Life, now: float) -> Step:
    if not declared.may_fetch:
        return Wait()
    if declared.digests is not None and not declared.digests.keys() >= set(declared.cache.images):
        return Wait()  # the controller has not resolved them all
    seconds = wait_until(life.retry_at, now, MOST_BACKOFF)
    return Wait(seconds) if seconds > 0 else Build()


_PATIENCE: Final[dict[type[Exception], int | None]] = {
    Unavailable: None,
    OutOfSpace: 5,
    AccessDenied: 3,
    NotFound: 3,
    Corrupt: 3,
    FailedPrecondition: 3,
    ImagecachedError: 3,
}
"""How often a build is tried before its failure is final; None: for as long as it takes. Others: once."""

_REASONS: Final[dict[type[Exception], str]] = {
    Unavailable: "RegistryUnavailable",
    OutOfSpace: "OutOfSpace",
    AccessDenied: "AccessDenied",
    NotFound: "ImageNotFound",
    Corrupt: "Corrupt",
    TooLarge: "TooLarge",
}


def is_final(error: Exception, failures: int) -> bool:
    """Is this the end of the build, after so many ``failures``, this one included?"""
    patience = _PATIENCE.get(type(error), 1)
    return patience is not None and failures >= patience


def reason_of(error: Exception) -> str:
    """One word for the status."""
    return _REASONS.get(type(error), "BuildFailed")


def pause(error: Exception, drawn: float) -> float:
    """Seconds before the next try: the backoff that was ``drawn``, longer if the registry asks for it."""
    asked = error.retry_after if isinstance(error, Unavailable) else None
    return min(MOST_BACKOFF, max(drawn, asked or 0.0))
