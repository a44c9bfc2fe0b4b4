"""Who leads: the record of a Lease (coordination.k8s.io/v1), read as client-go reads it. Pure.

A record is believed for as long as it says, counted from when *we* saw it change, on our monotonic clock: the
times written in it come from other machines' clocks and are never compared with ours. Invariant: a record is
replaced only when it is ours, released, or was seen unchanged for its whole duration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

_LONGEST_SECONDS: Final = 3600.0  # a record that claims to be valid longer is not believed that long
_RELEASED_SECONDS: Final = 1


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a leader is believed, how long it tries to renew before it gives up, and how often.

    ``believed`` > ``renew``: a leader stops before anyone else may begin.
    """

    believed: float = 15.0
    renew: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """``holder`` is "" when released. ``acquired`` and ``renewed`` are texts of other clocks, only copied."""

    holder: str
    seconds: float
    acquired: str = ""
    renewed: str = ""
    transitions: int = 0

    @classmethod
    def of(cls, lease: Mapping[str, Any]) -> Record:
        """What ``lease`` says; fields that are missing or of a wrong type count as not written."""
        found = lease.get("spec")
        spec: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
        seconds = _number(spec.get("leaseDurationSeconds"))
        return cls(
            _text(spec.get("holderIdentity")),
            min(max(seconds, 0), _LONGEST_SECONDS),
            _text(spec.get("acquireTime")),
            _text(spec.get("renewTime")),
            max(0, _number(spec.get("leaseTransitions"))),
        )

    def spec(self) -> dict[str, Any]:
        """The Lease's ``spec``."""
        return {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": max(_RELEASED_SECONDS, int(self.seconds)),
            "acquireTime": self.acquired or None,
            "renewTime": self.renewed or None,
            "leaseTransitions": self.transitions,
        }


@dataclass(frozen=True, slots=True)
class Seen:
    """A record, and when on our monotonic clock it was first seen like this."""

    record: Record
    at: float


def observe(before: Seen | None, record: Record, now: float) -> Seen:
    """What is known after looking at ``record``: an unchanged one keeps its time."""
    return before if before is not None and before.record == record else Seen(record, now)


def may_take(seen: Seen, us: str, now: float) -> bool:
    """May we write ourselves into the record?"""
    holder = seen.record.holder
    return holder in ("", us) or now >= seen.at + seen.record.seconds


def taken(record: Record | None, us: str, terms: Terms, wall: float) -> Record:
    """The record that says that we lead from now on, or still do."""
    now = micro_time(wall)
    if record is not None and record.holder == us:
        return replace(record, seconds=terms.believed, renewed=now)
    transitions = 0 if record is None else record.transitions + 1
    return Record(us, terms.believed, now, now, transitions)


def released(record: Record, wall: float) -> Record:
    """The record that lets another begin at once."""
    now = micro_time(wall)
    return replace(record, holder="", seconds=_RELEASED_SECONDS, acquired=now, renewed=now)


def micro_time(wall: float) -> str:
    """A time as ``metav1.MicroTime`` is written."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
