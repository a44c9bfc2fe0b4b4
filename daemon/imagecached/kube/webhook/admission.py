"""One review in, one answer out; the rules for when we ourselves fail.

Automatic matching fails open: whatever goes wrong here, the pod starts as it came. A pod that names a cache
never starts without an answer: it is refused, in a way that its owner tries again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, Literal, Protocol

from imagecached.imagecache import Candidates
from imagecached.kube.webhook.decide import (
    UNTOUCHED,
    Admitted,
    Rules,
    Seen,
    Told,
    decide,
    is_explicit,
    observe,
)
from imagecached.kube.webhook.review import Answer, Request

log = logging.getLogger(__name__)

Door = Literal["mutate", "observe"]
Count = Callable[[str, float], None]
"""Told the outcome's word and the seconds it took."""

_NOT_YET: Final = "the image caches of the cluster are not known yet: try again in a moment"
_FAILED: Final = "the image caches could not be looked up because of an error of imagecached: see its log"


class Aftermath(Protocol):
    """Takes what follows, without waiting."""

    def look_at(self, seen: Seen) -> None:
        """Look at this pod once it is stored."""

    def tell(self, *told: Told) -> None:
        """Have these events written."""


class Admission:
    """``candidates`` returns None while the caches are not known."""

    def __init__(
        self,
        candidates: Callable[[], Candidates | None],
        aftermath: Aftermath,
        rules: Rules,
        count: Count = lambda _outcome, _seconds: None,
    ) -> None:
        self._candidates, self._aftermath, self._rules, self._count = candidates, aftermath, rules, count

    def mutate(self, request: Request) -> Answer:
        """The answer to a pod that is about to be stored. Never raises."""
        started = time.perf_counter()
        admitted = self._admitted(request)
        self._count(admitted.outcome, time.perf_counter() - started)
        return admitted.answer

    def observe(self, request: Request) -> Answer:
        """Tell what became of the pod, which has its uid by now. Always allowed; never raises."""
        try:
            observed = observe(request)
            self._aftermath.tell(*observed.tell)
            if observed.seen is not None:
                self._aftermath.look_at(observed.seen)
        except Exception:
            log.exception("pod not observed", extra={"namespace": request.namespace})
        return Answer()

    def _admitted(self, request: Request) -> Admitted:
        candidates = self._candidates()
        if candidates is None:
            return _refused(_NOT_YET) if is_explicit(request) else UNTOUCHED
        try:
            admitted = decide(request, candidates, self._rules)
            self._aftermath.tell(*admitted.tell)
        except Exception:
            log.exception("admission failed", extra={"namespace": request.namespace})
            return _refused(_FAILED) if is_explicit(request) else Admitted(Answer(), "error")
        return admitted


def _refused(message: str) -> Admitted:
    answer = Answer(allowed=False, code=503, reason="ServiceUnavailable", message=message)
    return Admitted(answer, "error")
