"""Get, list and watch: pages, resourceVersions, and what history can and cannot answer."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.support.apiserver import refusals
from tests.support.apiserver.requests import Call
from tests.support.apiserver.resources import Resource
from tests.support.apiserver.selectors import Selects, compile_selectors
from tests.support.apiserver.storage import Change, Place, Shelf, Storage, Stored

_DEFAULT_WATCH_SECONDS = 1800


@dataclass(frozen=True)
class Page:
    """One answer of a list; ``token`` continues it."""

    revision: int
    items: list[Stored]
    token: str = ""
    remaining: int | None = None

    def encode(self, resource: Resource) -> bytes:
        """The list as JSON; items of built-in kinds do not repeat their kind."""
        meta: dict[str, Any] = {"resourceVersion": str(self.revision)}
        if self.token:
            meta["continue"] = self.token
        if self.remaining is not None:
            meta["remainingItemCount"] = self.remaining
        items = b",".join([each.json if resource.custom else each.item for each in self.items])
        head = msgspec.json.encode(
            {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta}
        )
        return b'%s,"items":[%s]}' % (head[:-1], items)


class Reads:
    """The reading verbs on a :class:`Storage`; ``bookmark_seconds`` between bookmarks of a quiet watch."""

    def __init__(self, storage: Storage, *, bookmark_seconds: float = 60.0) -> None:
        self._storage = storage
        self.bookmark_seconds = bookmark_seconds
        self.gone_in_stream = False  # say 410 of a watch as an ERROR event instead of as the status

    def get(self, call: Call) -> Stored:
        """The object."""
        return self._storage.get(call.resource, call.namespace, call.name)

    def list(self, call: Call) -> Page:
        """One page."""
        shelf = self._storage.shelf(call.resource)
        selects = _selector(call)
        limit, token = call.number("limit"), call.query.get("continue", "")
        start: Place | None = None
        revision = self._storage.revision
        objects = shelf.objects
        if token:
            if call.query.get("resourceVersionMatch") or call.query.get("resourceVersion", "0") != "0":
                raise refusals.bad_request("resourceVersion and continue cannot be given together")
            revision, start = _opened(token)
            objects = _at(shelf, revision, self._storage.revision)
        elif (asked := self._asked_version(call)) is not None:
            revision, objects = asked, _at(shelf, asked, self._storage.revision)
        places = sorted(place for place in objects if call.namespace in ("", place[0]))
        return _page([(place, objects[place]) for place in places], selects, start, limit, revision)

    def _asked_version(self, call: Call) -> int | None:
        """The exact revision that a list asked for, or None for the newest."""
        match, version = call.query.get("resourceVersionMatch", ""), call.number("resourceVersion")
        if match and version is None:
            raise refusals.bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
        if match not in ("", "Exact", "NotOlderThan"):
            raise refusals.bad_request(f'Unsupported value: "{match}": resourceVersionMatch')
        if version is not None and version > self._storage.revision:
            raise refusals.too_large_version(version, self._storage.revision)
        if match != "Exact":
            return None
        if not version:
            raise refusals.bad_request('resourceVersionMatch "Exact" is forbidden for resourceVersion "0"')
        return version

    async def watch(self, call: Call, stop: asyncio.Event) -> AsyncIterator[bytes]:
        """The lines of a watch, until its time is over, ``stop`` is set or history has moved away.

        The first line, maybe empty, comes at once: a refusal comes before it.
        """
        shelf, selects = self._storage.shelf(call.resource), _selector(call)
        version = call.number("resourceVersion")
        if version is not None and version > self._storage.revision:
            raise refusals.too_large_version(version, self._storage.revision)
        if version and version < shelf.compacted and not self.gone_in_stream:
            raise _too_old(version, shelf)
        yield b""
        if version and version < shelf.compacted:
            yield _error(_too_old(version, shelf))
            return
        position = shelf.after(version or self._storage.revision)
        if not version:
            for place in sorted(shelf.objects):
                stored = shelf.objects[place]
                if call.namespace in ("", place[0]) and (selects is None or selects(stored.document)):
                    yield b'{"type":"ADDED","object":%s}\n' % stored.json
        async for line in self._follow(call, shelf, position, selects, stop):
            yield line

    async def _follow(
        self, call: Call, shelf: Shelf, position: int, selects: Selects | None, stop: asyncio.Event
    ) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        end = loop.time() + (call.number("timeoutSeconds") or _DEFAULT_WATCH_SECONDS)
        bookmarks = call.flag("allowWatchBookmarks")
        while not stop.is_set():
            if position < shelf.dropped:
                yield _error(refusals.expired("The resourceVersion for the provided watch is too old."))
                return
            news = shelf.news
            lines = [
                _line(change, call.namespace, selects) for change in shelf.history[position - shelf.dropped :]
            ]
            position = shelf.dropped + len(shelf.history)
            if any(lines):
                yield b"".join(filter(None, lines))
                continue
            left = end - loop.time()
            if left <= 0:
                break
            quiet = await _quiet(news, stop, min(left, self.bookmark_seconds))
            if quiet and bookmarks and not stop.is_set():
                yield _bookmark(call.resource, self._storage.revision)


async def _quiet(news: asyncio.Event, stop: asyncio.Event, seconds: float) -> bool:
    """Wait for news; True when none came in time. ``stop`` is set together with the news."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return True
    return stop.is_set()


def _line(change: Change, namespace: str, selects: Selects | None) -> bytes | None:
    if namespace and change.stored.meta.get("namespace") != namespace:
        return None
    if selects is None:
        return change.frame(change.kind)
    before = change.previous is not None and selects(change.previous.document)
    after = change.kind != "DELETED" and selects(change.stored.document)
    match before, after:
        case True, True:
            return change.frame("MODIFIED")
        case False, True:
            return change.frame("ADDED")
        case True, False:
            return change.frame("DELETED")
    return None


def _bookmark(resource: Resource, revision: int) -> bytes:
    bare = {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": {"resourceVersion": str(revision)},
    }
    return msgspec.json.encode({"type": "BOOKMARK", "object": bare}) + b"\n"


def _error(refused: refusals.Refused) -> bytes:
    return msgspec.json.encode({"type": "ERROR", "object": refused.document()}) + b"\n"


def _too_old(version: int, shelf: Shelf) -> refusals.Refused:
    return refusals.expired(f"too old resource version: {version} ({shelf.compacted})")


def _selector(call: Call) -> Selects | None:
    labels, fields = call.query.get("labelSelector", ""), call.query.get("fieldSelector", "")
    if call.name:
        fields = ",".join(filter(None, [fields, f"metadata.name={call.name}"]))
    return compile_selectors(call.resource, labels, fields)


def _at(shelf: Shelf, revision: int, now: int) -> dict[Place, Stored]:
    if revision < shelf.compacted:
        raise refusals.expired(
            "The provided continue parameter is too old to display a consistent list result, or the "
            "resourceVersion has been compacted"
        )
    return shelf.objects if revision == now else shelf.at(revision)


def _page(
    found: list[tuple[Place, Stored]],
    selects: Selects | None,
    start: Place | None,
    limit: int | None,
    revision: int,
) -> Page:
    rest = [pair for pair in found if start is None or pair[0] > start]
    if selects is not None:
        rest = [pair for pair in rest if selects(pair[1].document)]
    if not limit or len(rest) <= limit:
        return Page(revision, [stored for _, stored in rest])
    taken = rest[:limit]
    remaining = len(rest) - limit if selects is None else None
    return Page(revision, [stored for _, stored in taken], _token(revision, taken[-1][0]), remaining)


def _token(revision: int, place: Place) -> str:
    document = {"v": "meta.k8s.io/v1", "rv": revision, "start": "/".join(place)}
    return base64.urlsafe_b64encode(msgspec.json.encode(document)).decode()


def _opened(token: str) -> tuple[int, Place]:
    try:
        document = msgspec.json.decode(base64.urlsafe_b64decode(token))
        namespace, name = document["start"].split("/")
        return int(document["rv"]), (namespace, name)
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise refusals.bad_request(f"continue key is not valid: {error}") from None
