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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from imagecached.imagecache.automatic import Creation, creation
from imagecached.imagecache.candidates import Candidate, Candidates, pin
from imagecached.imagecache.pods import PodImages
from imagecached.imagecache.references import key, readable
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
    return _match(_Asked.by(pod), chosen, candidates, [candidates], limits or Limits(), explain=True)


def match_indexed(pod: PodImages, candidates: Candidates, limits: Limits | None = None) -> Decision:
    """The same answer without verdicts; those that share nothing with the pod are not looked at."""
    asked = _Asked.by(pod)
    if pod.explicit:
        return _match(asked, candidates.named(pod.explicit), (), (), limits or Limits())
    sharing = candidates.sharing(asked.references.values())
    groups = candidates.by_degree(asked.keys.values(), sharing)
    return _match(asked, None, sharing, groups, limits or Limits())


@dataclass(frozen=True, slots=True)
class _Asked:
    """A pod, with its images parsed: image as written → its reference, and → what must agree."""

    pod: PodImages
    references: Mapping[str, Reference]
    keys: Mapping[str, str]

    @classmethod
    def by(cls, pod: PodImages) -> _Asked:
        references = readable(pod.images)
        return cls(pod, references, {text: key(reference) for text, reference in references.items()})

    @property
    def total(self) -> int:
        return len(self.pod.images)


def _match(
    asked: _Asked,
    named: Candidate | None,
    candidates: Sequence[Candidate],
    groups: Iterable[Sequence[Candidate]],
    limits: Limits,
    *,
    explain: bool = False,
) -> Decision:
    """``groups``: the candidates, those that may rank higher first."""
    if asked.pod.explicit:
        decision = _explicit(asked, named)
    elif asked.pod.auto:
        decision = _automatic(asked, candidates, groups, limits, explain=explain)
    else:
        decision = Decision("off", asked.total, "the pod asks for no cache")
    return replace(decision, warnings=asked.pod.warnings)


def _explicit(asked: _Asked, chosen: Candidate | None) -> Decision:
    total = asked.total
    if chosen is None:
        return Decision("not-found", total, f"ImageCache {asked.pod.explicit} does not exist")
    if not chosen.status.usable:
        reason = f"ImageCache {chosen.cache.name} ({chosen.id}) is {chosen.state}, not Ready"
        return Decision("not-complete", total, reason, chosen)
    hits = chosen.hits(asked.keys)
    reason = f"the pod asks for {chosen.cache.name} ({chosen.id}), which holds {_of(len(hits), total)}"
    verdict = Verdict(chosen.id, chosen.cache.name, len(hits), 0, fits=True, reason="asked for by the pod")
    pinned = _pinned(hits, asked.references)
    return Decision("explicit", total, reason, chosen, tuple(hits), pinned, (verdict,))


@dataclass(frozen=True, slots=True)
class _Look:
    """One candidate as this pod sees it. ``rank``, the greater the better: hits, repositories, waste, age."""

    candidate: Candidate
    hits: Mapping[str, ImageStatus]
    rank: tuple[int, int, int, float]

    @property
    def full(self) -> int:
        return self.rank[0]

    @property
    def repositories(self) -> int:
        return self.rank[1]

    @property
    def waste(self) -> int:
        return -self.rank[2]


def _automatic(
    asked: _Asked,
    candidates: Sequence[Candidate],
    groups: Iterable[Sequence[Candidate]],
    limits: Limits,
    *,
    explain: bool,
) -> Decision:
    looks: list[_Look] = []
    best: _Look | None = None
    for group in groups:
        looks = [_look(asked, candidate) for candidate in group]
        best = _best(asked, looks)
        if best is not None:
            break
    verdicts = tuple(_verdict(asked, look, best) for look in looks) if explain else ()
    total = asked.total
    if best is not None and best.full == total:
        return _chosen("full", best, asked, verdicts)
    made, why = creation(asked.pod, asked.references, candidates, allowed=limits.automatic)
    if best is None:
        return Decision("none", total, f"no cache fits the pod; {why}", verdicts=verdicts, create=made)
    decision = _chosen("partial", best, asked, verdicts)
    return replace(decision, reason=f"{decision.reason}; {why}", create=made)


def _best(asked: _Asked, looks: Sequence[_Look]) -> _Look | None:
    """The one of the highest rank that nothing rules out; of equals the one with the lowest id."""
    best: _Look | None = None
    for look in looks:
        behind = best is not None and (look.rank, best.candidate.id) < (best.rank, look.candidate.id)
        if not behind and not _why_not(asked, look):
            best = look
    return best


def _chosen(outcome: Outcome, best: _Look, asked: _Asked, verdicts: tuple[Verdict, ...]) -> Decision:
    reason = f"{best.candidate.cache.name} ({best.candidate.id}) holds {_of(best.full, asked.total)}"
    pinned = _pinned(best.hits, asked.references)
    return Decision(outcome, asked.total, reason, best.candidate, tuple(best.hits), pinned, verdicts)


def _pinned(hits: Mapping[str, ImageStatus], references: Mapping[str, Reference]) -> dict[str, str]:
    """Only what changes: an image that the pod names by digest already is not in it."""
    return {text: pin(references[text], image) for text, image in hits.items() if not references[text].digest}


def _look(asked: _Asked, candidate: Candidate) -> _Look:
    hits = candidate.hits(asked.keys)
    repositories = 0
    if len(hits) < len(asked.references):
        others = (reference for text, reference in asked.references.items() if text not in hits)
        repositories = sum(reference.name in candidate.repositories for reference in others)
    rank = (len(hits), repositories, -candidate.bytes_beside(hits), candidate.cache.created)
    return _Look(candidate, hits, rank)


def _why_not(asked: _Asked, look: _Look) -> str:
    """What rules the candidate out, or nothing."""
    pod, candidate, total = asked.pod, look.candidate, asked.total
    if not candidate.status.usable:
        return f"is {candidate.state}, and serves nothing yet"
    if look.full + look.repositories == 0:
        return "holds none of the pod's images"
    if candidate.cache.size_gib > pod.ephemeral_gib:
        return (
            f"is a cache of {candidate.cache.size_gib} GiB, more than the pod's {pod.ephemeral_gib:g} GiB of "
            "ephemeral storage (eci-extra-ephemeral-storage adds to it)"
        )
    if pod.perfect and look.full < total:
        return f"holds {_of(look.full, total)}, and the pod wants all in one cache (imc-perfect-match)"
    if not pod.perfect and look.full < pod.count:
        return f"holds {_of(look.full, total)}, and the pod wants {pod.count} (imc-match-count-request)"
    return ""


def _verdict(asked: _Asked, look: _Look, best: _Look | None) -> Verdict:
    why_not = _why_not(asked, look)
    held = f"holds {_of(look.full, asked.total)}"
    if look.repositories:
        held += f" and other versions of {look.repositories}"
    if why_not or best is None:
        reason = why_not
    elif look is best:
        reason = f"chosen: {held}"
    else:
        reason = f"{held}, but {_behind(look, best)}"
    candidate = look.candidate
    return Verdict(candidate.id, candidate.cache.name, look.full, look.repositories, not why_not, reason)


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
