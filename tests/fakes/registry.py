"""An OCI registry inside the test's own process: strict to the specification, wrong only on demand.

    async with FakeRegistry() as registry:
        digest = registry.put_image("demo/app", "1", [b"layer"])
        registry.script(f"/v2/demo/app/blobs/{digest}", faults.broken(after=100), faults.status(503))

The contract suite runs against it and against a real registry, so that it cannot drift. ``requests``
remembers everything it was asked. The token server lives in :mod:`tests.fakes.tokens`.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import ssl
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from aiohttp import web

from tests.fakes.faults import Answer, Fault, plainly

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|blobs/uploads)/(?P<target>[^/]*)")


def digest_of(content: bytes) -> str:
    """``sha256:…``."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Asked:
    """One request as it came; ``raw`` is path and query as they were written."""

    method: str
    path: str
    raw: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def authorization(self) -> str:
        return self.headers.get("Authorization", "")

    @property
    def range(self) -> str:
        return self.headers.get("Range", "")


class Refused(Exception):
    """An error answer in the specification's form."""

    def __init__(self, status: int, code: str, **headers: str) -> None:
        super().__init__(code)
        body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = Answer(status, {"Content-Type": "application/json", **named}, body)


class FakeRegistry:
    """Serves on loopback while its block lasts."""

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self._host, self._tls = host, tls
        self._blobs: dict[str, dict[str, bytes]] = defaultdict(dict)
        self._manifests: dict[str, dict[str, tuple[str, bytes]]] = defaultdict(dict)
        self._uploads: dict[str, bytes] = {}
        self._upload_names = map(str, itertools.count(1))
        self._scripts: dict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Fault] = {}
        self.challenge = ""  # the WWW-Authenticate header; empty: everybody is welcome
        self.states_scope = True  # challenges for tokens name the scope
        self.authorizations: set[str] = set()  # Authorization headers that are welcome
        self.requests: list[Asked] = []
        self.address = ""

    async def __aenter__(self) -> Self:
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, 0, ssl_context=self._tls)
        await site.start()
        self.address = f"{self._host}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http{'s' if self._tls else ''}://{self.address}"

    def asked(self, part: str = "", method: str = "GET") -> list[Asked]:
        """The requests so far whose path contains ``part``."""
        return [each for each in self.requests if part in each.path and each.method == method]

    # What is in it.

    def put_blob(self, name: str, content: bytes) -> str:
        """Store a blob; gives its digest."""
        self._blobs[name][digest_of(content)] = content
        return digest_of(content)

    def put_manifest(self, name: str, tag: str | None, content: bytes, media_type: str = MANIFEST) -> str:
        """Store a manifest or index as it is, however wrong; gives its digest."""
        digest = digest_of(content)
        for reference in filter(None, (digest, tag)):
            self._manifests[name][reference] = (media_type, content)
        return digest

    def put_image(
        self, name: str, tag: str | None, layers: Sequence[bytes], *, config: Mapping[str, Any] | None = None
    ) -> str:
        """Store an image of these uncompressed layers for linux/amd64; gives the digest of its manifest."""
        document = {
            "os": "linux",
            "architecture": "amd64",
            "config": {"Cmd": ["/bin/true"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
            **(config or {}),
        }
        raw = json.dumps(document).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(self.put_blob(name, raw), len(raw), CONFIG),
            "layers": [descriptor(self.put_blob(name, layer), len(layer), LAYER) for layer in layers],
        }
        return self.put_manifest(name, tag, json.dumps(manifest).encode())

    def put_index(
        self, name: str, tag: str | None, entries: Sequence[tuple[str, Mapping[str, str] | None]]
    ) -> str:
        """Store an index of manifests that are here already, each with its platform or None."""
        manifests = []
        for digest, platform in entries:
            media_type, content = self._manifests[name][digest]
            entry = descriptor(digest, len(content), media_type)
            manifests.append(entry if platform is None else {**entry, "platform": dict(platform)})
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return self.put_manifest(name, tag, json.dumps(document).encode(), INDEX)

    def manifest(self, name: str, reference: str) -> dict[str, Any]:
        """A stored manifest, decoded."""
        document: dict[str, Any] = json.loads(self._manifests[name][reference][1])
        return document

    # What goes wrong.

    def script(self, path: str, *faults: Fault) -> None:
        """The next requests to ``path`` go wrong in these ways, one after the other."""
        self._scripts[path].extend(faults)

    def always(self, path: str, fault: Fault) -> None:
        """Every request to ``path`` goes wrong in this way once its script has ended."""
        self._always[path] = fault

    # How it answers.

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.title(): ", ".join(request.headers.getall(name)) for name in request.headers}
        asked = Asked(request.method, request.path, request.raw_path, dict(request.query), headers)
        self.requests.append(asked)
        content = await request.read()
        try:
            self._admit(asked)
            answer = self._answer(asked, content)
        except Refused as refused:
            answer = refused.answer
        if asked.method == "HEAD":
            length = answer.headers.get("Content-Length") or str(len(answer.body))
            answer = Answer(answer.status, {**answer.headers, "Content-Length": length})
        script = self._scripts[asked.path]
        fault = script.popleft() if script else self._always.get(asked.path, plainly)
        return await fault(request, answer)  # type: ignore[arg-type]  # a bare server's requests are BaseRequest

    def _admit(self, asked: Asked) -> None:
        if self.challenge and asked.authorization not in self.authorizations:
            raise Refused(401, "UNAUTHORIZED", WWW_Authenticate=self.challenge + self._scope(asked))

    def _scope(self, asked: Asked) -> str:
        """The scope that a token must have for this request, if the challenge is about tokens."""
        match = _PATH.fullmatch(asked.path)
        if match is None or not self.states_scope or not self.challenge.startswith("Bearer"):
            return ""
        actions = "pull" if asked.method in ("GET", "HEAD") else "pull,push"
        return f',scope="repository:{match["name"]}:{actions}"'

    def _answer(self, asked: Asked, content: bytes) -> Answer:
        if asked.path == "/v2/":
            return Answer(200, {"Content-Type": "application/json"}, b"{}")
        match = _PATH.fullmatch(asked.path)
        if match is None:
            return Answer(404, {"Content-Type": "text/plain"}, b"404 page not found")
        name, kind, target = match["name"], match["kind"], match["target"]
        if not _NAME.fullmatch(name) or len(name) > 255:
            raise Refused(400, "NAME_INVALID")
        match kind, asked.method:
            case ("manifests", "GET" | "HEAD"):
                return self._get_manifest(name, target)
            case ("manifests", "PUT"):
                return self._push_manifest(name, target, content, asked.headers.get("Content-Type", ""))
            case ("blobs", "GET" | "HEAD"):
                return self._get_blob(name, target, asked.range)
            case ("blobs/uploads", "POST" | "PATCH" | "PUT"):
                return self._upload(asked, name, target, content)
        raise Refused(405, "UNSUPPORTED")

    def _get_manifest(self, name: str, reference: str) -> Answer:
        if not (_TAG.fullmatch(reference) or _DIGEST.fullmatch(reference)):
            return Answer(404, {"Content-Type": "text/plain"}, b"404 page not found")
        if reference not in self._manifests[name]:
            raise Refused(404, "MANIFEST_UNKNOWN")
        media_type, content = self._manifests[name][reference]
        digest = reference if _DIGEST.fullmatch(reference) else digest_of(content)
        return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest}, content)

    def _get_blob(self, name: str, digest: str, asked_range: str) -> Answer:
        if digest not in self._blobs[name]:
            raise Refused(404, "BLOB_UNKNOWN")
        whole = self._blobs[name][digest]
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "Accept-Ranges": "bytes",
        }
        match = _RANGE.fullmatch(asked_range)
        if match is None:
            return Answer(200, headers, whole, whole)
        start, stop = int(match[1]), min(int(match[2] or len(whole)) + 1, len(whole))
        if start >= stop:
            return Answer(416, {"Content-Range": f"bytes */{len(whole)}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(whole)}"
        return Answer(206, headers, whole[start:stop], whole)

    def _push_manifest(self, name: str, reference: str, content: bytes, media_type: str) -> Answer:
        try:
            document = json.loads(content)
        except ValueError:
            raise Refused(400, "MANIFEST_INVALID") from None
        if media_type != document.get("mediaType", media_type):
            raise Refused(400, "MANIFEST_INVALID")
        needed = [*document.get("layers", ()), *filter(None, [document.get("config")])]
        if any(each["digest"] not in self._blobs[name] for each in needed):
            raise Refused(400, "MANIFEST_BLOB_UNKNOWN")
        if any(each["digest"] not in self._manifests[name] for each in document.get("manifests", ())):
            raise Refused(400, "MANIFEST_BLOB_UNKNOWN")
        digest = digest_of(content)
        if _DIGEST.fullmatch(reference) and reference != digest:
            raise Refused(400, "DIGEST_INVALID")
        self.put_manifest(name, None if reference == digest else reference, content, media_type)
        return Answer(201, {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest})

    def _upload(self, asked: Asked, name: str, upload: str, content: bytes) -> Answer:
        """POST begins, PATCH adds, PUT with ``?digest=`` ends an upload (§ Pushing Blobs)."""
        if asked.method == "POST":
            upload = next(self._upload_names)
            self._uploads[upload] = b""
        if upload not in self._uploads:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN")
        self._uploads[upload] += content
        if asked.method != "PUT":
            query = urlencode({"_state": "opaque"})
            end = max(0, len(self._uploads[upload]) - 1)
            return Answer(
                202, {"Location": f"/v2/{name}/blobs/uploads/{upload}?{query}", "Range": f"0-{end}"}
            )
        whole = self._uploads.pop(upload)
        if asked.query.get("digest") != digest_of(whole):
            raise Refused(400, "DIGEST_INVALID")
        digest = self.put_blob(name, whole)
        return Answer(201, {"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})


def descriptor(digest: str, size: int, media_type: str) -> dict[str, Any]:
    """An OCI descriptor."""
    return {"mediaType": media_type, "digest": digest, "size": size}
