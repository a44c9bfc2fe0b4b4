"""The suite's own few lines of HTTP, so that neither server nor client under test can hide a mistake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

Document = dict[str, Any]
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_PATIENCE_SECONDS = 90.0  # a real garbage collector learns of a new kind within a minute


@dataclass(frozen=True)
class Answer:
    """What came back; ``body`` is the document."""

    code: int
    body: Document
    headers: httpx.Headers

    @property
    def version(self) -> str:
        """The resourceVersion."""
        return str(self.body["metadata"]["resourceVersion"])

    def causes(self) -> dict[str, str]:
        """Field → reason of a 422 or of a conflict of apply."""
        return {cause["field"]: cause["reason"] for cause in self.body["details"]["causes"]}


@dataclass
class Api:
    """A server under test; ``name`` is throw-away: the namespace, and part of all cluster-wide names."""

    http: httpx.AsyncClient
    name: str
    real: bool = False
    group: str = field(init=False)

    def __post_init__(self) -> None:
        self.group = f"{self.name}.imagecached.dev"

    def deployments(self, name: str = "") -> str:
        """The path of Deployments of our namespace."""
        return f"/apis/apps/v1/namespaces/{self.name}/deployments/{name}".rstrip("/")

    @property
    def discovery(self) -> str:
        """The path of what our group serves."""
        return f"/apis/{self.group}/v1"

    def configs(self, name: str = "") -> str:
        """The path of ConfigMaps of our namespace."""
        return f"/api/v1/namespaces/{self.name}/configmaps/{name}".rstrip("/")

    def samples(self, name: str = "") -> str:
        """The path of our own custom resource."""
        return f"/apis/{self.group}/v1/samples/{name}".rstrip("/")

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        kind: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> Answer:
        """One request; 200 to 599 are answers."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind, "Accept": accept, "User-Agent": "suite/1"}
        response = await self.http.request(method, path, content=content, headers=headers, params=query)
        try:
            document = response.json()
        except ValueError:
            document = {"text": response.text}
        return Answer(response.status_code, document, response.headers)

    async def made(self, path: str, document: Document) -> Answer:
        """Create what must be possible to create."""
        answer = await self("POST", path, document)
        assert answer.code == 201, answer.body
        return answer

    @asynccontextmanager
    async def watching(self, path: str, **query: str) -> AsyncIterator[Watch]:
        """A watch under way."""
        params = {"watch": "true", **query}
        timeout = httpx.Timeout(_PATIENCE_SECONDS)
        async with self.http.stream("GET", path, params=params, timeout=timeout) as response:
            yield Watch(response.status_code, response.aiter_lines())

    def config(self, name: str, **data: str) -> Document:
        """A ConfigMap of our namespace."""
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}

    def sample(self, name: str, spec: Mapping[str, Any] | None = None, **rest: Any) -> Document:
        """An object of our custom resource."""
        spec = {"images": ["nginx"]} if spec is None else dict(spec)
        return {
            "apiVersion": f"{self.group}/v1",
            "kind": "Sample",
            "metadata": {"name": name},
            "spec": spec,
            **rest,
        }


class Watch:
    """The events of a watch, in order."""

    def __init__(self, code: int, lines: AsyncIterator[str]) -> None:
        self.code = code
        self._lines = lines

    async def next(self) -> Document:
        """The next event; TimeoutError when it does not come, StopAsyncIteration at the end."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            async for line in self._lines:
                if line:
                    event: Document = json.loads(line)
                    return event
        raise StopAsyncIteration

    async def names(self, count: int) -> list[tuple[str, str]]:
        """(type, name) of the next events that are no bookmarks."""
        found: list[tuple[str, str]] = []
        while len(found) < count:
            event = await self.next()
            if event["type"] != "BOOKMARK":
                found.append((event["type"], event["object"]["metadata"]["name"]))
        return found

    async def rest(self) -> list[Document]:
        """Every event until the server ends the watch."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return [json.loads(line) async for line in self._lines if line]
