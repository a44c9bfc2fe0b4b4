"""Caches as matching sees them: what each serves under which names, worked out once and not for every pod."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, TypeAlias

from imagecached.imagecache.model import ImageCache
from imagecached.imagecache.status import ImageStatus, Phase, Status
from imagecached.oci.reference import Reference

_BUILDING: Final[tuple[Phase, ...]] = ("Pending", "Creating", "Updating")


_Index: TypeAlias = "dict[str, dict[str, Candidate]]"  # word → name of a cache → the cache


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """``serving``: ``name:tag`` and ``name@digest`` of every image that serves → that image.

    ``coming``: the same names of what is being built; empty when nothing is. ``repositories``: of what
    serves; ``declared``: of what is declared.
    """

    id: str
    cache: ImageCache
    status: Status
    serving: Mapping[str, ImageStatus] = field(repr=False)
    coming: frozenset[str] = field(repr=False)
    repositories: frozenset[str] = field(repr=False)
    declared: frozenset[str] = field(repr=False)
    serving_bytes: int

    @classmethod
    def of(cls, cache: ImageCache, status: Status) -> Candidate:
        """The candidate for a cache in this status."""
        images = status.serving if status.usable else ()
        declared = tuple(ImageStatus(image) for image in cache.images)
        coming = (
            (*status.images, *declared) if status.phase in _BUILDING or status.build != cache.build else ()
        )
        return cls(
            cache.id,
            cache,
            status,
            serving=dict(_keys(images)),
            coming=frozenset(name for name, _ in _keys(coming)),
            repositories=frozenset(Reference.parse(image.image).name for image in images),
            declared=frozenset(Reference.parse(image).name for image in cache.images),
            serving_bytes=sum(image.bytes for image in images),
        )

    @property
    def state(self) -> str:
        """Its phase for people: with progress while it is built, with the reason when it failed."""
        status = self.status
        if status.phase == "Failed" and status.reason:
            return f"Failed ({status.reason}: {status.message})"
        building = status.phase in ("Creating", "Updating")
        return f"{status.phase} ({status.progress})" if building else status.phase

    def hits(self, keys: Mapping[str, str]) -> dict[str, ImageStatus]:
        """Those of ``keys`` (image as written → :func:`key`) that match fully, with what they get."""
        return {text: self.serving[name] for text, name in keys.items() if name in self.serving}

    def will_hold(self, keys: Iterable[str]) -> bool:
        """Is it building what would match all of them fully?"""
        return bool(self.coming) and self.coming.issuperset(keys)

    def bytes_beside(self, hits: Mapping[str, ImageStatus]) -> int:
        """Unpacked bytes of the images that serve and are not among ``hits``."""
        return self.serving_bytes - sum({image.image: image.bytes for image in hits.values()}.values())


def pin(reference: Reference, image: ImageStatus) -> str:
    """The text for the pod: by digest, the tag kept for people's eyes. A digest it has stays as it is."""
    digest = image.digest or next(iter(image.manifest_digests), None)
    return f"{reference}@{digest}" if digest and not reference.digest else str(reference)


class Candidates:
    """All there are, with an index, so that a pod meets only those that share a repository with it."""

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._by_cache_name: dict[str, Candidate] = {}
        self._by_id: dict[str, Candidate] = {}
        self._by_repository: _Index = {}
        self._by_key: _Index = {}
        for candidate in candidates:
            self.put(candidate)

    def put(self, candidate: Candidate) -> None:
        """This is what is known of the cache of this name from now on."""
        name = candidate.cache.name
        self.remove(name)
        self._by_cache_name[name] = self._by_id[candidate.id] = candidate
        for index, words in self._indexes(candidate):
            for word in words:
                index.setdefault(word, {})[name] = candidate

    def remove(self, name: str) -> None:
        """There is no cache of this name."""
        candidate = self._by_cache_name.pop(name, None)
        if candidate is None:
            return
        self._by_id.pop(candidate.id, None)
        for index, words in self._indexes(candidate):
            for word in words:
                del index[word][name]
                if not index[word]:
                    del index[word]

    def _indexes(
        self, candidate: Candidate
    ) -> Iterator[tuple[dict[str, dict[str, Candidate]], Iterable[str]]]:
        yield self._by_repository, candidate.repositories | candidate.declared
        yield self._by_key, candidate.serving

    def named(self, name: str) -> Candidate | None:
        """By id or by name."""
        return self._by_id.get(name) or self._by_cache_name.get(name)

    def sharing(self, references: Iterable[Reference]) -> list[Candidate]:
        """Every candidate that serves, or is to serve, a repository of ``references``."""
        found = (self._by_repository.get(reference.name, {}).values() for reference in references)
        return list(dict.fromkeys(chain.from_iterable(found)))

    def by_degree(self, keys: Iterable[str], sharing: Iterable[Candidate]) -> Iterator[list[Candidate]]:
        """``sharing``, in groups by how many of ``keys`` match fully: the best group first."""
        counts = dict.fromkeys(sharing, 0)
        for name in keys:
            for candidate in self._by_key.get(name, {}).values():
                counts[candidate] += 1
        groups: dict[int, list[Candidate]] = {}
        for candidate, count in counts.items():
            groups.setdefault(count, []).append(candidate)
        for count in sorted(groups, reverse=True):
            yield groups[count]

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
