"""What is declared, by whom, and which declaration counts when several name the same cache. Pure.

A source gives its complete set each time. The key of a cache is its id, made from the object's uid: an object
of a cluster and a file may use one name without meeting. Two sources of one machine cannot: both make the uid
from the name, and then the file counts, because it is what the operator finds on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from imagecached.errors import NotFound
from imagecached.imagecache import ImageCache
from imagecached.registry import Access

Source: TypeAlias = Literal["cluster", "files", "api"]
PRECEDENCE: Final[tuple[Source, ...]] = ("cluster", "files", "api")


@dataclass(frozen=True, slots=True)
class Declared:
    """One cache that somebody wants.

    ``digests``: image as written → ``repository@digest``, when a controller has resolved them; None: this
    node resolves, and decides when the cache goes. ``access`` None: the pull secrets are read from this
    node's own files. ``may_fetch``: False while it is not this node's turn. ``generation``: the controller's
    number of this build, 0: counted here. ``origin``: the file that says it, for people.
    """

    cache: ImageCache
    digests: Mapping[str, str] | None = None
    access: Access | None = field(default=None, repr=False)
    may_fetch: bool = True
    generation: int = 0
    origin: str = ""

    @property
    def managed(self) -> bool:
        """Does a controller decide on it? Then it neither expires, drifts nor yields here."""
        return self.digests is not None


class Declarations:
    """The sets of all sources."""

    def __init__(self) -> None:
        self._sets: dict[Source, dict[str, Declared]] = {}
        self._unclear: dict[Source, frozenset[str]] = {}

    def put(
        self, source: Source, declared: Mapping[str, Declared], unclear: frozenset[str] = frozenset()
    ) -> frozenset[str] | None:
        """Take the complete set of ``source``, by name; the ids of what has changed, None if that may be all.

        ``unclear``: origins that could not be read wholly, so what they declared before still stands.
        """
        fresh = {one.cache.id: one for one in declared.values()}
        before, same = self._sets.get(source, {}), self._unclear.get(source) == unclear
        self._sets[source] = fresh
        self._unclear[source] = unclear
        changed = {each for each in before.keys() | fresh.keys() if before.get(each) != fresh.get(each)}
        return frozenset(changed) if same else None

    def of(self, source: Source) -> Mapping[str, Declared]:
        """The set of ``source``, by id."""
        return self._sets.get(source, {})

    def withdrawn(self, source: Source, origin: str) -> bool:
        """Is what ``source`` once declared, and declares no more, really gone? Not before it has spoken."""
        return source in self._sets and origin not in self._unclear[source]

    def find(self, cache_id: str) -> tuple[Source, Declared] | None:
        """What counts for this id, and who says it."""
        for source in PRECEDENCE:
            declared = self._sets.get(source, {}).get(cache_id)
            if declared is not None:
                return source, declared
        return None

    def ids(self) -> frozenset[str]:
        """Every id that is declared."""
        return frozenset(cache_id for declared in self._sets.values() for cache_id in declared)

    def overruled(self, source: Source) -> Iterator[ImageCache]:
        """Caches of ``source`` that another source declares as well, and which do not count therefore."""
        for cache_id, declared in self._sets.get(source, {}).items():
            found = self.find(cache_id)
            if found is not None and found[0] != source:
                yield declared.cache


def id_of(names: Mapping[str, str], text: str) -> str:
    """The id that a person means by an id or a name; ``names``: id → name. NotFound."""
    if text in names:
        return text
    named = [cache_id for cache_id, name in names.items() if name == text]
    if not named:
        raise NotFound(f"no ImageCache {text}")
    return named[0]
