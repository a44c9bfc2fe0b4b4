"""The verbs of the API on documents: one request each, but for :meth:`Cluster.list` of many pages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx2 as httpx
import msgspec

from imagecached import __version__, aio
from imagecached.errors import Corrupt, Unavailable
from imagecached.kube.client import access, answers
from imagecached.kube.client.answers import Gone
from imagecached.kube.client.kinds import Kind, Object
from imagecached.kube.client.pace import Pace
from imagecached.kube.client.watching import Event, Expired, events_of, lines_of

Subresource = Literal["", "status"]
Keep = Callable[[Object], Object]
OnRequest = Callable[[str, str], None]
"""Told verb (``get``, ``watch``, …) and code (``200``, ``429``, … or ``none``: no answer) of each request."""

_PAGE: Final = 250
_SLICE: Final = 25  # objects that are taken in at a time: one may hold hundreds of things
_MOST_ITEMS: Final = 200_000
_RESTARTS: Final = 3
_MERGE: Final = "application/merge-patch+json"
_APPLY: Final = "application/apply-patch+yaml"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects as of ``version``, from which a watch may go on."""

    items: list[Object]
    version: str


class Cluster:
    """A session with one API server. ``manager`` is the name under which we own fields."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        manager: str,
        pace: Pace | None = None,
        on_request: OnRequest = lambda _verb, _code: None,
    ) -> None:
        self._http = http
        self._manager = manager
        self._on_request = on_request
        self.pace = pace or Pace()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        kubeconfig: Path | None = None,
        *,
        manager: str,
        pace: Pace | None = None,
        on_request: OnRequest = lambda _verb, _code: None,
    ) -> AsyncIterator[Cluster]:
        """A session while the block lasts. Nothing is asked of the server yet.

        NotFound, InvalidInput: no configuration, or one that cannot be used.
        """
        http = await aio.finish(access.open_http, kubeconfig, agent=f"{manager}/{__version__}")
        async with http:
            yield cls(http, manager=manager, pace=pace, on_request=on_request)

    # Reading.

    async def get(self, kind: Kind, name: str, *, namespace: str = "") -> Object:
        """One object. NotFound when it is not there."""
        return await self._document("get", kind.path(name, namespace=namespace))

    async def list(
        self, kind: Kind, *, namespace: str = "", labels: str = "", fields: str = "", keep: Keep | None = None
    ) -> Listed:
        """Every object that is selected, page by page; ``keep`` says what of each stays in memory.

        When the server's history overtakes us between pages, it begins again; Unavailable after a few times.
        """
        for _ in range(_RESTARTS):
            try:
                return await self._pages(kind.path(namespace=namespace), _selection(labels, fields), keep)
            except Gone:
                continue
        raise Unavailable(f"GET {kind.path(namespace=namespace)}: changes faster than it can be listed")

    async def _pages(self, path: str, query: dict[str, str], keep: Keep | None) -> Listed:
        items: list[Object] = []
        token, what = "", f"GET {path}"
        while True:
            page = await self._document("list", path, query={**query, "limit": str(_PAGE), "continue": token})
            metadata, found = page.get("metadata"), page.get("items")
            if not isinstance(metadata, dict) or not isinstance(found, list):
                raise Corrupt(f"{what}: the answer is no list")
            await _take(items, found, keep)
            if len(items) > _MOST_ITEMS:
                raise Unavailable(f"{what}: more than {_MOST_ITEMS} objects")
            token = metadata.get("continue") or ""
            if not token:
                return Listed(items, str(metadata.get("resourceVersion", "")))

    async def watch(
        self, kind: Kind, version: str, *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Event, None]:
        """What happens after ``version``, bookmarks included, until the server ends it in its own time.

        Expired: the server does not know ``version`` any more; list again. Close the generator when done.
        """
        path, seconds = kind.path(namespace=namespace), self.pace.drawn(self.pace.watch)
        query = {
            **_selection(labels, fields),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        what = f"WATCH {path}"
        with answers.network_errors(what):
            async with self._stream(path, query) as response:
                async for event in events_of(what, lines_of(what, response.aiter_bytes())):
                    yield event

    @asynccontextmanager
    async def _stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[httpx.Response]:
        patience = httpx.Timeout(self.pace.request, read=self.pace.silence)
        request = self._http.build_request("GET", path, params=query, timeout=patience)
        response = await self._send("watch", request)
        try:
            if response.status_code != 200:
                body = await _read(f"WATCH {path}", response, answers.MOST_REFUSAL_BYTES)
                error = answers.refusal(f"WATCH {path}", response.status_code, body, response.headers)
                raise Expired(str(error)) if isinstance(error, Gone) else error
            yield response
        finally:
            await response.aclose()

    # Writing.

    async def create(self, kind: Kind, document: Object, *, namespace: str = "") -> Object:
        """A new object. AlreadyExists; InvalidInput when the server does not take it."""
        return await self._document("create", kind.path(namespace=namespace), "POST", document)

    async def replace(
        self, kind: Kind, document: Object, *, namespace: str = "", subresource: Subresource = ""
    ) -> Object:
        """The whole object anew. FailedPrecondition when its resourceVersion is not the present one."""
        path = kind.path(document["metadata"]["name"], namespace=namespace, subresource=subresource)
        return await self._document("update", path, "PUT", document)

    async def patch(
        self, kind: Kind, name: str, change: Object, *, namespace: str = "", subresource: Subresource = ""
    ) -> Object:
        """Merge patch (RFC 7396): null removes. With metadata.resourceVersion in it: FailedPrecondition
        when the object has changed."""
        path = kind.path(name, namespace=namespace, subresource=subresource)
        return await self._document("patch", path, "PATCH", change, media_type=_MERGE)

    async def patch_status(self, kind: Kind, name: str, status: Object, *, namespace: str = "") -> Object:
        """Merge patch of the status."""
        return await self.patch(kind, name, {"status": status}, namespace=namespace, subresource="status")

    async def apply(
        self,
        kind: Kind,
        document: Object,
        *,
        namespace: str = "",
        subresource: Subresource = "",
        force: bool = True,
    ) -> Object:
        """Server-side apply: made if it is not there; what we no longer say is removed.

        Without ``force``: FailedPrecondition when others own what we would change.
        """
        path = kind.path(document["metadata"]["name"], namespace=namespace, subresource=subresource)
        query = {"force": "true" if force else "false"}
        return await self._document("apply", path, "PATCH", document, media_type=_APPLY, query=query)

    async def delete(
        self, kind: Kind, name: str, *, namespace: str = "", uid: str = "", version: str = ""
    ) -> None:
        """Delete in the background. NotFound; FailedPrecondition: it is not the object ``uid`` any more, or
        has changed since ``version``.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        conditions = {"uid": uid, "resourceVersion": version}
        if uid or version:
            options["preconditions"] = {key: value for key, value in conditions.items() if value}
        await self._document("delete", kind.path(name, namespace=namespace), "DELETE", options)

    # One request.

    async def _document(
        self,
        verb: str,
        path: str,
        method: str = "GET",
        body: Object | None = None,
        *,
        media_type: str = _JSON,
        query: Mapping[str, str] | None = None,
    ) -> Object:
        what = f"{method} {path}"
        params = {name: value for name, value in (query or {}).items() if value}
        if method in ("POST", "PUT", "PATCH"):
            params["fieldManager"] = self._manager
        headers = {"Accept": _JSON} if body is None else {"Accept": _JSON, "Content-Type": media_type}
        content = None if body is None else msgspec.json.encode(body)
        with answers.network_errors(what):
            async with asyncio.timeout(self.pace.request):
                request = self._http.build_request(
                    method, path, params=params, headers=headers, content=content
                )
                response = await self._send(verb, request)
                try:
                    return await _success(what, response)
                finally:
                    await response.aclose()

    async def _send(self, verb: str, request: httpx.Request) -> httpx.Response:
        code = "none"
        try:
            response = await self._http.send(request, stream=True)
            code = str(response.status_code)
            return response
        finally:
            self._on_request(verb, code)


async def _success(what: str, response: httpx.Response) -> Object:
    if 200 <= response.status_code < 300:
        return answers.document(what, await _read(what, response, answers.MOST_ANSWER_BYTES))
    body = await _read(what, response, answers.MOST_REFUSAL_BYTES)
    raise answers.refusal(what, response.status_code, body, response.headers)


async def _read(what: str, response: httpx.Response, most: int) -> bytes:
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > most:
            if response.status_code >= 300:
                return bytes(body[:most])
            raise Unavailable(f"{what}: the answer is longer than {most} bytes")
    return bytes(body)


async def _take(items: list[Object], found: list[Object], keep: Keep | None) -> None:
    """Add what is kept of a page; a long one lets others work in between."""
    for number, item in enumerate(found, 1):
        items.append(item if keep is None else keep(item))
        if number % _SLICE == 0:
            await asyncio.sleep(0)


def _selection(labels: str, fields: str) -> dict[str, str]:
    chosen: dict[str, Any] = {"labelSelector": labels, "fieldSelector": fields}
    return {name: value for name, value in chosen.items() if value}
