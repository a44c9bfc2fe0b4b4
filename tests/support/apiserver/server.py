"""The door: HTTP or HTTPS on loopback, discovery, authentication, and the way from a path to a verb."""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
import weakref
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

import msgspec
import yaml
from aiohttp import web

from tests.support.apiserver import discovery, refusals, resources, rules, tables
from tests.support.apiserver.admission import Admission
from tests.support.apiserver.collect import Collector
from tests.support.apiserver.faults import Faults, Traffic, label_of
from tests.support.apiserver.rbac import MASTERS, Authorizer, User
from tests.support.apiserver.reads import Page, Reads
from tests.support.apiserver.refusals import Refused
from tests.support.apiserver.requests import Call, Paths, verb_of
from tests.support.apiserver.resources import Resource
from tests.support.apiserver.storage import Document, Storage, Stored
from tests.support.apiserver.writes import Writes

MOST_BODY_BYTES = 3 << 20
_TOKEN_REQUEST = re.compile(r"/api/v1/namespaces/([^/]+)/serviceaccounts/([^/]+)/token")
_ESTABLISHED_AFTER_SECONDS = 0.02
_CRDS = ("apiextensions.k8s.io", "customresourcedefinitions")
ADMIN = User("admin", (MASTERS, "system:authenticated"))


class ApiServer:
    """An emulated Kubernetes API server; serves while its block lasts.

    ``tokens`` maps bearer tokens to users; None lets everybody in as an administrator. With ``rbac`` the
    Roles and bindings in the storage decide; else every known user may do everything. ``tracks_fields``:
    managedFields are kept, as server-side apply needs; a simulation of many nodes may go without.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        tokens: Mapping[str, User] | None = None,
        rbac: bool = False,
        tracks_fields: bool = True,
        bookmark_seconds: float = 60.0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._tls, self._host, self._port = tls, host, port
        self.tokens = None if tokens is None else dict(tokens)
        self.storage = Storage()
        self.faults, self.traffic = Faults(), Traffic()
        self.paths = Paths()
        self.admission = Admission(self.storage)
        self.reads = Reads(self.storage, bookmark_seconds=bookmark_seconds)
        self.writes = Writes(self.storage, self.admission, tracks_fields=tracks_fields)
        self.collector = Collector(self.storage, self.paths)
        self._authorizer = Authorizer(self.storage) if rbac else None
        self._stops: set[asyncio.Event] = set()
        self._transports: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()
        self.ready = True
        self.url = ""
        for resource in resources.BUILT_IN:
            self.paths.add(resource)
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def __aenter__(self) -> Self:
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls, backlog=4096)
        await site.start()
        self.url = f"http{'s' if self._tls else ''}://{self._host}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop_watches()
        await self._runner.cleanup()
        await self.admission.close()

    # What tests do to it.

    def put(self, document: Mapping[str, Any]) -> Document:
        """Store an object as it is, past admission and validation; a new version if it exists."""
        copied: Document = msgspec.json.decode(msgspec.json.encode(document))
        resource = self.paths.of_kind(copied["apiVersion"], copied["kind"])
        assert resource is not None, f"no such kind: {copied['apiVersion']} {copied['kind']}"
        meta = copied["metadata"]
        if resource.plural == "namespaces":
            rules.name_namespace(copied)
            copied.setdefault("status", {"phase": "Active"})
        if resource.namespaced:
            meta.setdefault("namespace", "default")
        previous = self.storage.find(resource, meta.get("namespace", ""), meta["name"])
        born = {"uid": f"uid-{self.storage.revision}", "creationTimestamp": rules.now()}
        if resource.counted:
            born["generation"] = 1  # type: ignore[assignment]
        kept = {key: previous.meta[key] for key in born} if previous else born
        copied["metadata"] = {**kept, **meta}
        if previous is not None:
            copied["metadata"]["resourceVersion"] = previous.meta["resourceVersion"]
        stored = self.storage.write(resource, copied, previous=previous)
        self._defined(resource, stored)
        return stored.document

    def install(self, *paths: Path) -> None:
        """Store every object of these YAML files, or of the folders' ``*.yaml``; CRDs are served at once."""
        for path in paths:
            for file in sorted(path.rglob("*.yaml")) if path.is_dir() else [path]:
                for document in yaml.safe_load_all(file.read_text()):
                    if document and self.paths.of_kind(
                        document.get("apiVersion", ""), document.get("kind", "")
                    ):
                        self.put(document)

    def get(self, plural: str, name: str, namespace: str = "") -> Document:
        """An object, or AssertionError; ``plural`` with its group: ``imagecaches.eci.alibabacloud.com``."""
        bare, _, group = plural.partition(".")
        stored = self.storage.shelf_of(group, bare).objects.get((namespace, name))
        assert stored is not None, f"{plural} {namespace}/{name} is not there"
        return stored.document

    def all(self, plural: str) -> list[Document]:
        """Every object of a resource."""
        bare, _, group = plural.partition(".")
        return [stored.document for stored in self.storage.shelf_of(group, bare).objects.values()]

    def remove(self, plural: str, name: str, namespace: str = "") -> None:
        """Delete an object at once, finalizers or not, and what it owned."""
        bare, _, group = plural.partition(".")
        resource = self.paths.find(group, bare)
        assert resource is not None
        self.storage.remove(resource, self.storage.get(resource, namespace, name))
        self.collector.collect()

    def drop_watches(self) -> None:
        """End every watch, as a server that restarts does."""
        for stop in self._stops:
            stop.set()
        for _, shelf in self.storage.shelves():
            shelf.tell()

    def partition(self) -> None:
        """Cut all connections, and every new one."""
        self.faults.partitioned = True
        for transport in list(self._transports):
            transport.abort()

    def heal(self) -> None:
        """Be reachable again."""
        self.faults.partitioned = False

    def watches(self) -> int:
        """Watches under way."""
        return len(self._stops)

    def kubeconfig(self, file: Path, *, token: str = "", authority: Path | None = None) -> Path:
        """Write a kubeconfig that leads here; gives ``file``."""
        cluster: Document = {"server": self.url}
        if authority is not None:
            cluster["certificate-authority"] = str(authority)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "emulated", "cluster": cluster}],
            "users": [{"name": "tester", "user": {"token": token} if token else {}}],
            "contexts": [{"name": "emulated", "context": {"cluster": "emulated", "user": "tester"}}],
            "current-context": "emulated",
        }
        file.write_text(yaml.safe_dump(document))
        return file

    # How it answers.

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is not None:
            self._transports.add(transport)
        if self.faults.partitioned:
            if transport is not None:
                transport.abort()
            return web.Response(status=500)
        try:
            user = self._authenticate(request)
            found = discovery.answer(self.paths, request, ready=self.ready)
            if found is not None:
                return found
            if asked := _TOKEN_REQUEST.fullmatch(request.path):
                return await self._issue(request, *asked.groups())
            return await self._call(request, await self._parse(request, user), user)
        except Refused as refused:
            return self._refuse(refused)

    def _refuse(self, refused: Refused, warnings: Iterable[str] = ()) -> web.Response:
        self.traffic.refused[refused.code] += 1
        return _answer(refused.code, msgspec.json.encode(refused.document()), refused.headers, warnings)

    def _authenticate(self, request: web.BaseRequest) -> User:
        if self.tokens is None:
            return ADMIN
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        user = self.tokens.get(token.strip())
        if scheme.lower() != "bearer" or user is None:
            raise refusals.unauthorized()
        return user

    async def _issue(self, request: web.BaseRequest, namespace: str, name: str) -> web.Response:
        """A TokenRequest: a token for a ServiceAccount, good until the server ends."""
        place = namespace, name
        if request.method != "POST" or place not in self.storage.shelf_of("", "serviceaccounts").objects:
            raise refusals.not_found("", "serviceaccounts", name)
        token = secrets.token_urlsafe(16)
        if self.tokens is not None:
            self.tokens[token] = User.service_account(namespace, name)
        answer: Document = msgspec.json.decode(await _body(request))
        answer["status"] = {"token": token, "expirationTimestamp": rules.now()}
        return _answer(201, msgspec.json.encode(answer), {}, ())

    async def _parse(self, request: web.BaseRequest, user: User) -> Call:
        resource, namespace, name, subresource = self.paths.parse(request.path)
        if (request.content_length or 0) > MOST_BODY_BYTES:
            raise refusals.too_large_body(MOST_BODY_BYTES)
        query = dict(request.query)
        return Call(
            verb=verb_of(request.method, name, query),
            resource=resource,
            namespace=namespace,
            name=name,
            subresource=subresource,
            query=query,
            content_type=request.headers.get("Content-Type", "application/json"),
            body=await _body(request),
            user=user.name,
            accept=request.headers.get("Accept", ""),
            agent=request.headers.get("User-Agent", ""),
        )

    async def _call(self, request: web.BaseRequest, call: Call, user: User) -> web.StreamResponse:
        label = label_of(call)
        self.traffic.requests[label] += 1
        self.traffic.received[label] += len(call.body)
        try:
            await self.faults.meet(call)
            if self._authorizer is not None:
                self._authorizer.check(user, call)
            if call.verb == "watch":
                return await self._watch(request, call)
            code, body = await self._carry_out(call)
        except Refused as refused:
            return self._refuse(refused, call.warnings)
        self.traffic.sent[label] += len(body)
        return _answer(code, body, {}, call.warnings)

    async def _carry_out(self, call: Call) -> tuple[int, bytes]:
        match call.verb:
            case "list":
                page = self.reads.list(call)
                if tables.wants_table(call.accept):
                    shown = tables.table(
                        call.resource, page, include=call.query.get("includeObject", "Metadata")
                    )
                    return 200, msgspec.json.encode(shown)
                return 200, page.encode(call.resource)
            case "get":
                stored = self.reads.get(call)
                if tables.wants_table(call.accept):
                    return 200, msgspec.json.encode(tables.table(call.resource, [stored]))
                return 200, stored.json
            case "deletecollection":
                return 200, await self._delete_all(call)
            case "delete":
                code, result = await self.writes.delete(call)
                self._undefined(call)
                if call.resource.key == ("", "namespaces") and not call.dry_run:
                    self.collector.empty(call.name)
                self._settle(call)
                return code, result.json if isinstance(result, Stored) else msgspec.json.encode(result)
        verbs: Mapping[str, Callable[[Call], Any]] = {
            "create": self.writes.create,
            "update": self.writes.update,
            "patch": self.writes.patch,
        }
        code, stored = await verbs[call.verb](call)
        if code == HTTPStatus.CREATED and call.resource.key == _CRDS and not call.dry_run:
            stored = self._accepted(call.resource, stored)
        else:
            self._defined(call.resource, stored)
        self._settle(call)
        return code, stored.json

    async def _delete_all(self, call: Call) -> bytes:
        page: Page = self.reads.list(call)
        for stored in page.items:
            if not call.dry_run:
                self.writes.remove(call, stored)
        self._settle(call)
        return page.encode(call.resource)

    def _settle(self, call: Call) -> None:
        """What controllers of a real cluster do after a change: garbage collection, empty namespaces."""
        if call.verb in ("delete", "deletecollection", "update", "patch"):
            self.collector.collect()

    def _accepted(self, resource: Resource, stored: Stored) -> Stored:
        """A definition that has just been made: served a moment later, and until then of null conditions."""
        status = {
            "acceptedNames": {"kind": "", "plural": ""},
            "conditions": None,
            "storedVersions": ["v1"],
        }
        document = {**stored.document, "metadata": {**stored.meta}, "status": status}
        stored = self.storage.write(resource, document, previous=stored)

        def establish() -> None:
            found = self.storage.find(resource, "", stored.meta["name"])
            if found is not None:
                self._defined(resource, found)

        asyncio.get_running_loop().call_later(_ESTABLISHED_AFTER_SECONDS, establish)
        return stored

    def _defined(self, resource: Resource, stored: Stored) -> None:
        """Serve what a definition defines."""
        if resource.key != _CRDS or stored.meta.get("deletionTimestamp"):
            return
        names = stored.document["spec"]["names"]
        conditions = [{"type": kind, "status": "True"} for kind in ("NamesAccepted", "Established")]
        status = {"acceptedNames": names, "conditions": conditions, "storedVersions": ["v1"]}
        if stored.document.get("status") != status:
            self.storage.write(resource, {**stored.document, "metadata": {**stored.meta}, "status": status},
                               previous=stored)  # fmt: skip
        for made in resources.of_definition(stored.document):
            self.paths.add(made)

    def _undefined(self, call: Call) -> None:
        """What a definition that is gone defined goes, too."""
        if call.resource.key != _CRDS:
            return
        plural, _, group = call.name.partition(".")
        shelf = self.storage.shelf_of(group, plural)
        resource = self.paths.find(group, plural)
        for stored in list(shelf.objects.values()) if resource else ():
            assert resource is not None
            self.storage.remove(resource, stored)
        self.paths.drop(group, plural)

    async def _watch(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        stop = asyncio.Event()
        lines = self.reads.watch(call, stop)
        first = await anext(lines)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        label = label_of(call)
        self._stops.add(stop)
        try:
            await response.write(first)
            async for line in lines:
                self.traffic.sent[label] += len(line)
                await response.write(line)
        except ConnectionError:
            return response
        finally:
            self._stops.discard(stop)
            await lines.aclose()  # type: ignore[attr-defined]  # it is an async generator
        return response


async def _body(request: web.BaseRequest) -> bytes:
    """All of it; a large one comes in pieces."""
    pieces: list[bytes] = []
    async for piece in request.content.iter_chunked(64 << 10):
        pieces.append(piece)
        if sum(map(len, pieces)) > MOST_BODY_BYTES:
            raise refusals.too_large_body(MOST_BODY_BYTES)
    return b"".join(pieces)


def _answer(code: int, body: bytes, headers: Mapping[str, str], warnings: Iterable[str]) -> web.Response:
    response = web.Response(status=code, body=body, headers={"Content-Type": "application/json", **headers})
    for text in warnings:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response
