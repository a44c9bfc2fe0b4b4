"""What goes wrong on purpose: switches that tests turn, and the count of what was asked.

A fault sees the call before it is carried out. Scripts are used up one request after the other.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.apiserver import refusals
from tests.support.apiserver.refusals import Refused
from tests.support.apiserver.requests import Call

Matches = Callable[[Call], bool]


def calls(verb: str = "", plural: str = "", name: str = "") -> Matches:
    """Calls of this verb, resource (``pods`` or ``pods/status``) and name; an empty word fits all."""

    def fits(call: Call) -> bool:
        full = f"{call.resource.plural}/{call.subresource}" if call.subresource else call.resource.plural
        return verb in ("", call.verb) and plural in ("", full) and name in ("", call.name)

    return fits


@dataclass
class Script:
    """Refusals for the calls that match, one each."""

    matches: Matches
    left: deque[Refused]


@dataclass
class Faults:
    """``partitioned``: connections are cut before anything is read, and watches with them.

    ``reachable`` is set while they are not. ``delay_seconds`` comes before every answer. ``before`` is
    awaited at each call that goes through: a test may change the world there, or wait.
    """

    delay_seconds: float = 0.0
    partitioned: bool = False
    before: Callable[[Call], object] | None = None
    scripts: list[Script] = field(default_factory=list)

    def refuse(self, refused: Refused, *, times: int = 1, matches: Matches | None = None) -> None:
        """The next ``times`` calls that match are refused in this way."""
        self.scripts.append(Script(matches or calls(), deque([refused] * times)))

    def too_many(self, *, retry_after: int = 1, times: int = 1, matches: Matches | None = None) -> None:
        """429 with Retry-After."""
        self.refuse(refusals.too_many_requests(retry_after), times=times, matches=matches)

    def break_down(self, *, times: int = 1, matches: Matches | None = None) -> None:
        """500."""
        self.refuse(refusals.broken(), times=times, matches=matches)

    def conflict(self, plural: str, *, times: int = 1, matches: Matches | None = None) -> None:
        """409, as if another writer had been quicker."""
        self.refuse(
            refusals.conflict("", plural, "scripted"), times=times, matches=matches or calls(plural=plural)
        )

    def forbid(self, *, times: int = 1, matches: Matches | None = None) -> None:
        """403."""
        self.refuse(refusals.forbidden("forbidden by the test"), times=times, matches=matches)

    async def meet(self, call: Call) -> None:
        """Raise what stands in the way of ``call``."""
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.before is not None:
            waiting = self.before(call)
            if asyncio.iscoroutine(waiting):
                await waiting
        for script in self.scripts:
            if script.left and script.matches(call):
                refused = script.left.popleft()
                if not script.left:
                    self.scripts.remove(script)
                raise refused


@dataclass
class Traffic:
    """Requests, and bytes in both directions, by ``verb resource`` (``watch imagecaches``)."""

    requests: Counter[str] = field(default_factory=Counter)
    received: Counter[str] = field(default_factory=Counter)
    sent: Counter[str] = field(default_factory=Counter)
    refused: Counter[int] = field(default_factory=Counter)

    def reset(self) -> None:
        """Begin at nothing."""
        for counter in (self.requests, self.received, self.sent, self.refused):
            counter.clear()

    def writes(self) -> int:
        """Requests that were meant to change something."""
        verbs = ("create", "update", "patch", "delete")
        return sum(count for name, count in self.requests.items() if name.startswith(verbs))


def label_of(call: Call) -> str:
    """The name under which a call is counted."""
    suffix = f"/{call.subresource}" if call.subresource else ""
    return f"{call.verb} {call.resource.plural}{suffix}"
