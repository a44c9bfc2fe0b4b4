"""Caches as matching sees them: what each serves under which names, worked out once and not for every pod."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from imagecached.imagecache.model import ImageCache
from imagecached.imagecache.references import key
from imagecached.imagecache.status import ImageStatus, Phase, Status
from imagecached.oci.reference import Reference

_BUILDING: Final[tuple[Phase, ...]] = ("Pending", "Creating", "Updating")


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """``serving``: ``name:tag`` and ``name@digest`` of every image that serves → that image.

    ``coming``: the same names of what is being built; empty when nothing is. ``repositories``: of what
    serves; ``declared``: of what is declared.
    """

    cache: ImageCache
    status: Status
    serving: Mapping[str, ImageStatus] = field(repr=False)
    coming: frozenset[str] = field(repr=False)
    repositories: frozenset[str] = field(repr=False)
    declared: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, cache: ImageCache, status: Status) -> Candidate:
        """The candidate for a cache in this status."""
        images = status.serving if status.usable else ()
        declared = tuple(ImageStatus(image) for image in cache.images)
        coming = (
            (*status.images, *declared) if status.phase in _BUILDING or status.build != cache.build else ()
        )
        return cls(
            cache,
            status,
            serving=dict(_keys(images)),
            coming=frozenset(name for name, _ in _keys(coming)),
            repositories=frozenset(Reference.parse(image.image).name for image in images),
            declared=frozenset(Reference.parse(image).name for image in cache.images),
        )

    @property
    def id(self) -> str:
        """``imc-…``."""
        return self.cache.id

    @property
    def state(self) -> str:
        """Its phase for people: with progress while it is built, with the reason when it failed."""
        status = self.status
        if status.phase == "Failed" and status.reason:
            return f"Failed ({status.reason}: {status.message})"
        building = status.phase in ("Creating", "Updating")
        return f"{status.phase} ({status.progress})" if building else status.phase

    def hits(self, references: Mapping[str, Reference]) -> dict[str, ImageStatus]:
        """Those of ``references`` (image as written → reference) that match fully, with what they get."""
        found = ((text, self.serving.get(key(reference))) for text, reference in references.items())
        return {text: image for text, image in found if image is not None}

    def will_hold(self, references: Iterable[Reference]) -> bool:
        """Is it building what would match all of them fully?"""
        return bool(self.coming) and all(key(reference) in self.coming for reference in references)

    def bytes_beside(self, hits: Mapping[str, ImageStatus]) -> int:
        """Unpacked bytes of the images that serve and are not among ``hits``."""
        return sum(image.bytes for image in self.status.serving if image not in hits.values())


def pin(reference: Reference, image: ImageStatus) -> str:
    """The text for the pod: by digest, the tag kept for people's eyes. A digest it has stays as it is."""
    digest = image.digest or next(iter(image.manifest_digests), None)
    return f"{reference}@{digest}" if digest and not reference.digest else str(reference)


class Candidates:
    """All there are, with an index, so that a pod meets only those that share a repository with it."""

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._by_cache_name: dict[str, Candidate] = {}
        self._by_id: dict[str, Candidate] = {}
        self._by_repository: dict[str, dict[str, Candidate]] = {}
        for candidate in candidates:
            self.put(candidate)

    def put(self, candidate: Candidate) -> None:
        """This is what is known of the cache of this name from now on."""
        name = candidate.cache.name
        self.remove(name)
        self._by_cache_name[name] = self._by_id[candidate.id] = candidate
        for repository in candidate.repositories | candidate.declared:
            self._by_repository.setdefault(repository, {})[name] = candidate

    def remove(self, name: str) -> None:
        """There is no cache of this name."""
        candidate = self._by_cache_name.pop(name, None)
        if candidate is None:
            return
        self._by_id.pop(candidate.id, None)
        for repository in candidate.repositories | candidate.declared:
            sharing = self._by_repository[repository]
            sharing.pop(name, None)
            if not sharing:
                del self._by_repository[repository]

    def named(self, name: str) -> Candidate | None:
        """By id or by name."""
        return self._by_id.get(name) or self._by_cache_name.get(name)

    def sharing(self, references: Iterable[Reference]) -> list[Candidate]:
        """Every candidate that serves, or is to serve, a repository of ``references``."""
        found = (self._by_repository.get(reference.name, {}).values() for reference in references)
        return list(dict.fromkeys(chain.from_iterable(found)))

    def __len__(self) -> int:
        return len(self._by_cache_name)


def _keys(images: Iterable[ImageStatus]) -> Iterator[tuple[str, ImageStatus]]:
    for image in images:
        reference = Reference.parse(image.image)
        if reference.tag:
            yield f"{reference.name}:{reference.tag}", image
        for digest in (reference.digest, image.digest, *image.manifest_digests):
            if digest:
                yield f"{reference.name}@{digest}", image
