"""Which cache a pod gets: one pure function, for the webhook, the daemon and ``imagecachectl match`` alike.

The order is ECI's: match degree (images that match fully, then repositories that agree), then the image size
that is closest, then the newest, then the id, so that the answer never depends on luck.

* A full match of one image: the repository and the tag agree, or the pod names a digest that the cache
  resolved for that repository (Knative turns tags into digests before it makes pods). A pod's digest
  overrules its tag.
* An explicit id overrules automatic matching, and then size and degree do not matter.
* What serves counts, not what is declared: a cache that is being updated matches by its old images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from imagecached.imagecache.automatic import Creation, creation
from imagecached.imagecache.candidates import Candidate, Candidates, pin
from imagecached.imagecache.pods import PodImages
from imagecached.imagecache.references import readable
from imagecached.imagecache.status import ImageStatus
from imagecached.oci.reference import Reference

Outcome: TypeAlias = Literal["explicit", "full", "partial", "none", "not-found", "not-complete", "off"]
REFUSED: Final[tuple[Outcome, ...]] = ("not-found", "not-complete")

_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """``automatic``: whether a cache is made for a pod that found none."""

    automatic: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was thought of one candidate, in a sentence for people."""

    id: str
    name: str
    full: int
    repositories: int
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """``held``: those of the pod's ``total`` images, as written, that match fully in ``chosen``.

    ``pinned``: image as written → ``repo:tag@digest``, where that differs. ``reason`` says why in one
    sentence, also when there is no cache. ``create``: what to make for the next pod.
    """

    outcome: Outcome
    total: int
    reason: str
    chosen: Candidate | None = None
    held: tuple[str, ...] = ()
    pinned: Mapping[str, str] = field(default_factory=dict, hash=False)
    verdicts: tuple[Verdict, ...] = ()
    create: Creation | None = None
    warnings: tuple[str, ...] = ()

    @property
    def full(self) -> int:
        """How many images match fully."""
        return len(self.held)

    @property
    def refused(self) -> bool:
        """The pod asked for a cache by id that it cannot have: it must not start."""
        return self.outcome in REFUSED

    @property
    def degree(self) -> str:
        """``full 2/2``, ``partial 1/2`` or ``none 0/2``."""
        if self.chosen is None:
            return f"none 0/{self.total}"
        return f"{'full' if self.full == self.total else 'partial'} {self.full}/{self.total}"


def match(pod: PodImages, candidates: Sequence[Candidate], limits: Limits | None = None) -> Decision:
    """Which of ``candidates`` the pod gets, and why; every one of them has a verdict."""
    chosen = next((one for one in candidates if pod.explicit in (one.id, one.cache.name)), None)
    return _match(pod, readable(pod.images), chosen, candidates, limits or Limits())


def match_indexed(pod: PodImages, candidates: Candidates, limits: Limits | None = None) -> Decision:
    """The same answer; those that share nothing with the pod are not looked at and have no verdict."""
    references = readable(pod.images)
    chosen = candidates.named(pod.explicit)
    return _match(pod, references, chosen, candidates.sharing(references.values()), limits or Limits())


def _match(
    pod: PodImages,
    references: Mapping[str, Reference],
    named: Candidate | None,
    candidates: Sequence[Candidate],
    limits: Limits,
) -> Decision:
    if pod.explicit:
        decision = _explicit(pod, references, named)
    elif pod.auto:
        decision = _automatic(pod, references, candidates, limits)
    else:
        decision = Decision("off", len(pod.images), "the pod asks for no cache")
    return replace(decision, warnings=pod.warnings)


def _explicit(pod: PodImages, references: Mapping[str, Reference], chosen: Candidate | None) -> Decision:
    total = len(pod.images)
    if chosen is None:
        return Decision("not-found", total, f"ImageCache {pod.explicit} does not exist")
    if not chosen.status.usable:
        reason = f"ImageCache {chosen.cache.name} ({chosen.id}) is {chosen.state}, not Ready"
        return Decision("not-complete", total, reason, chosen)
    hits = chosen.hits(references)
    reason = f"the pod asks for {chosen.cache.name} ({chosen.id}), which holds {_of(len(hits), total)}"
    verdict = Verdict(chosen.id, chosen.cache.name, len(hits), 0, fits=True, reason="asked for by the pod")
    pinned = _pinned(hits, references)
    return Decision("explicit", total, reason, chosen, tuple(hits), pinned, (verdict,))


@dataclass(frozen=True, slots=True)
class _Look:
    """One candidate as this pod sees it. ``why_not``: what rules it out, or nothing."""

    candidate: Candidate
    hits: Mapping[str, ImageStatus]
    repositories: int
    waste: int
    why_not: str

    @property
    def full(self) -> int:
        return len(self.hits)

    @property
    def rank(self) -> tuple[int, int, int, float]:
        """Greater is better."""
        return self.full, self.repositories, -self.waste, self.candidate.cache.created


def _automatic(
    pod: PodImages, references: Mapping[str, Reference], candidates: Sequence[Candidate], limits: Limits
) -> Decision:
    looks = [_look(pod, references, candidate) for candidate in candidates]
    fitting = sorted((look for look in looks if not look.why_not), key=lambda look: look.candidate.id)
    best = max(fitting, key=lambda look: look.rank, default=None)  # of equals the first: the lowest id
    verdicts = tuple(_verdict(pod, look, best) for look in looks)
    total = len(pod.images)
    if best is not None and best.full == total:
        return _chosen("full", best, references, total, verdicts)
    made, why = creation(pod, references, candidates, allowed=limits.automatic)
    if best is None:
        return Decision("none", total, f"no cache fits the pod; {why}", verdicts=verdicts, create=made)
    decision = _chosen("partial", best, references, total, verdicts)
    return replace(decision, reason=f"{decision.reason}; {why}", create=made)


def _chosen(
    outcome: Outcome,
    best: _Look,
    references: Mapping[str, Reference],
    total: int,
    verdicts: tuple[Verdict, ...],
) -> Decision:
    reason = f"{best.candidate.cache.name} ({best.candidate.id}) holds {_of(best.full, total)}"
    pinned = _pinned(best.hits, references)
    return Decision(outcome, total, reason, best.candidate, tuple(best.hits), pinned, verdicts)


def _pinned(hits: Mapping[str, ImageStatus], references: Mapping[str, Reference]) -> dict[str, str]:
    """Only what changes: an image that the pod names by digest already is not in it."""
    return {text: pin(references[text], image) for text, image in hits.items() if not references[text].digest}


def _look(pod: PodImages, references: Mapping[str, Reference], candidate: Candidate) -> _Look:
    hits = candidate.hits(references)
    others = (reference for text, reference in references.items() if text not in hits)
    repositories = sum(reference.name in candidate.repositories for reference in others)
    why_not = _why_not(pod, candidate, len(hits), repositories)
    return _Look(candidate, hits, repositories, candidate.bytes_beside(hits), why_not)


def _why_not(pod: PodImages, candidate: Candidate, full: int, repositories: int) -> str:
    total = len(pod.images)
    if not candidate.status.usable:
        return f"is {candidate.state}, and serves nothing yet"
    if full + repositories == 0:
        return "holds none of the pod's images"
    if candidate.cache.size_gib > pod.ephemeral_gib:
        return (
            f"is a cache of {candidate.cache.size_gib} GiB, more than the pod's {pod.ephemeral_gib:g} GiB of "
            "ephemeral storage (eci-extra-ephemeral-storage adds to it)"
        )
    if pod.perfect and full < total:
        return f"holds {_of(full, total)}, and the pod wants all in one cache (imc-perfect-match)"
    if not pod.perfect and full < pod.count:
        return f"holds {_of(full, total)}, and the pod wants {pod.count} (imc-match-count-request)"
    return ""


def _verdict(pod: PodImages, look: _Look, best: _Look | None) -> Verdict:
    held = f"holds {_of(look.full, len(pod.images))}"
    if look.repositories:
        held += f" and other versions of {look.repositories}"
    if look.why_not or best is None:
        reason = look.why_not
    elif look is best:
        reason = f"chosen: {held}"
    else:
        reason = f"{held}, but {_behind(look, best)}"
    candidate = look.candidate
    return Verdict(candidate.id, candidate.cache.name, look.full, look.repositories, not look.why_not, reason)


def _behind(look: _Look, best: _Look) -> str:
    """In which point ``best`` is better."""
    name = best.candidate.cache.name
    if look.full != best.full:
        return f"{name} holds {best.full}"
    if look.repositories != best.repositories:
        return f"{name} has other versions of {best.repositories}"
    if look.waste != best.waste:
        return f"{name} holds less beside them ({_gib(best.waste)} instead of {_gib(look.waste)})"
    if look.candidate.cache.created != best.candidate.cache.created:
        return f"{name} is newer"
    return f"{name} is just as good, and its id comes first"


def _of(full: int, total: int) -> str:
    return f"{full} of {total} image{'' if total == 1 else 's'}"


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"
