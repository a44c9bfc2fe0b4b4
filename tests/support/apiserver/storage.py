"""What etcd and the watch cache are to the real server: objects, revisions, a bounded history.

Owns the revision counter and the history; knows nothing of HTTP or of schemas. Invariants: objects are never
changed in place; a write that changes nothing makes no revision; history before ``compacted`` is gone.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import msgspec

from tests.support.apiserver import refusals
from tests.support.apiserver.resources import Resource

Document = dict[str, Any]
Place = tuple[str, str]  # namespace (empty: none), name
_HISTORY = 100_000  # changes of one resource; the older half goes when they are more


class Stored:
    """One version of one object, and its JSON, made once however many readers there are."""

    def __init__(self, document: Document) -> None:
        self.document = document

    @cached_property
    def json(self) -> bytes:
        """With apiVersion and kind."""
        return msgspec.json.encode(self.document)

    @cached_property
    def item(self) -> bytes:
        """As a list of a built-in kind holds it: without apiVersion and kind."""
        bare = {key: value for key, value in self.document.items() if key not in ("apiVersion", "kind")}
        return msgspec.json.encode(bare)

    @property
    def meta(self) -> Document:
        """Its metadata."""
        meta: Document = self.document["metadata"]
        return meta

    @property
    def revision(self) -> int:
        """Its resourceVersion."""
        return int(self.meta["resourceVersion"])


@dataclass(frozen=True)
class Change:
    """What one revision did; ``stored`` of a deletion is the last state with the revision of the deletion."""

    revision: int
    kind: Literal["ADDED", "MODIFIED", "DELETED"]
    stored: Stored
    previous: Stored | None

    @cached_property
    def frames(self) -> dict[str, bytes]:
        """The lines of a watch, by type, made once for all watchers."""
        return {}

    def frame(self, kind: str) -> bytes:
        """One line of a watch."""
        if kind not in self.frames:
            shown = self.previous if kind == "DELETED" and self.kind != "DELETED" else self.stored
            assert shown is not None
            if shown is not self.stored:  # left the selection: the old state with the new revision
                shown = Stored(
                    {**shown.document, "metadata": {**shown.meta, "resourceVersion": str(self.revision)}}
                )
            self.frames[kind] = b'{"type":"%s","object":%s}\n' % (kind.encode(), shown.json)
        return self.frames[kind]


class Shelf:
    """All objects of one resource, and what happened to them."""

    def __init__(self) -> None:
        self.objects: dict[Place, Stored] = {}
        self.history: list[Change] = []
        self.dropped = 0  # changes that have left the history: the number of its first
        self.compacted = 0
        self.news = asyncio.Event()

    def after(self, revision: int) -> int:
        """The number of the first change after ``revision``."""
        return self.dropped + bisect_right(self.history, revision, key=lambda change: change.revision)

    def forget(self, count: int) -> None:
        """Drop the oldest changes."""
        self.compacted = self.history[count - 1].revision if count else self.compacted
        self.dropped += count
        del self.history[:count]

    def tell(self) -> None:
        """Wake everyone who watches."""
        self.news.set()
        self.news = asyncio.Event()

    def at(self, revision: int) -> dict[Place, Stored]:
        """The objects as they were at ``revision``."""
        objects = dict(self.objects)
        for change in reversed(self.history):
            if change.revision <= revision:
                break
            place = place_of(change.stored.document)
            if change.previous is None:
                objects.pop(place, None)
            else:
                objects[place] = change.previous
        return objects


class Storage:
    """Every shelf, and the one counter."""

    def __init__(self) -> None:
        self.revision = 1000
        self._shelves: dict[tuple[str, str], Shelf] = {}

    def shelf(self, resource: Resource) -> Shelf:
        """The shelf of a resource; all versions of a group share it."""
        return self.shelf_of(*resource.key)

    def shelf_of(self, group: str, plural: str) -> Shelf:
        """The same by names."""
        shelf = self._shelves.get((group, plural))
        if shelf is None:
            shelf = self._shelves[group, plural] = Shelf()
        return shelf

    def shelves(self) -> Iterator[tuple[tuple[str, str], Shelf]]:
        """Every shelf with its (group, plural)."""
        yield from list(self._shelves.items())

    def get(self, resource: Resource, namespace: str, name: str) -> Stored:
        """The object, or a refusal."""
        stored = self.find(resource, namespace, name)
        if stored is None:
            raise refusals.not_found(resource.group, resource.plural, name)
        return stored

    def find(self, resource: Resource, namespace: str, name: str) -> Stored | None:
        """The object, or None."""
        return self.shelf(resource).objects.get((namespace, name))

    def write(self, resource: Resource, document: Document, *, previous: Stored | None) -> Stored:
        """Store a new object, or a new version; the stored version itself when nothing differs."""
        if previous is not None and document == previous.document:
            return previous
        self.revision += 1
        document["metadata"]["resourceVersion"] = str(self.revision)
        stored = Stored(document)
        shelf = self.shelf(resource)
        shelf.objects[place_of(document)] = stored
        self._record(shelf, Change(self.revision, "MODIFIED" if previous else "ADDED", stored, previous))
        return stored

    def remove(self, resource: Resource, stored: Stored) -> Stored:
        """Delete an object; its last state, with the revision of the deletion."""
        self.revision += 1
        meta = {**stored.meta, "resourceVersion": str(self.revision)}
        last = Stored({**stored.document, "metadata": meta})
        shelf = self.shelf(resource)
        del shelf.objects[place_of(stored.document)]
        self._record(shelf, Change(self.revision, "DELETED", last, stored))
        return last

    def _record(self, shelf: Shelf, change: Change) -> None:
        shelf.history.append(change)
        if len(shelf.history) > _HISTORY:
            shelf.forget(_HISTORY // 2)
        shelf.tell()

    def compact(self) -> None:
        """Forget all history: older resourceVersions are gone from now on."""
        for shelf in self._shelves.values():
            shelf.forget(len(shelf.history))
            shelf.compacted = self.revision
            shelf.tell()


def place_of(document: Document) -> Place:
    """Where an object lies on its shelf."""
    meta = document["metadata"]
    return meta.get("namespace", ""), meta["name"]
