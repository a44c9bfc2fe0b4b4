"""The two registries that the suite runs against, open or guarded by tokens."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from tests.contract.registry.pushing import push_image
from tests.fakes.registry import FakeRegistry
from tests.fakes.tokens import FakeTokens
from tests.support.processes import running
from tests.support.registry import free_port, serve_registry

SERVICE = "suite"
NAME = "suite/guarded"
LAYER = b"a layer behind a guard" * 50
_ISSUER = "suite-issuer"


@dataclass
class Guarded:
    """A registry that wants tokens and holds the image ``NAME:1`` of one ``LAYER``.

    ``asked`` are the queries of token requests; with ``useless`` set, tokens allow nothing.
    """

    address: str
    asked: list[dict[str, str]] = field(default_factory=list)
    useless: bool = False


@asynccontextmanager
async def guarded_fake() -> AsyncIterator[Guarded]:
    """The fake with its fake token server."""
    async with FakeRegistry() as registry, FakeTokens(registry, service=SERVICE) as tokens:
        registry.put_image(NAME, "1", [LAYER])
        guarded = Guarded(registry.address)

        def grants(query: dict[str, str]) -> bool:
            guarded.asked.append(query)
            return not guarded.useless

        tokens.grants = grants
        yield guarded


@asynccontextmanager
async def guarded_registry(directory: Path) -> AsyncIterator[Guarded]:
    """Debian's registry with a token server that signs what that registry can verify."""
    with serve_registry(directory) as open_registry:
        await push_image(open_registry.address, NAME, "1", [LAYER])
    key, certificate = directory / "token.key", directory / "token.pem"
    _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={_ISSUER}", "-days", "30",
             "-keyout", str(key), "-out", str(certificate))  # fmt: skip
    guarded = Guarded(f"127.0.0.1:{free_port('127.0.0.1')}")

    async def grant(request: web.BaseRequest) -> web.StreamResponse:
        guarded.asked.append(dict(request.query))
        token = _token(key, certificate, "" if guarded.useless else request.query["scope"])
        return web.json_response({"token": token, "expires_in": 300})

    runner = web.ServerRunner(web.Server(grant, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    realm = f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    try:
        with _serve(directory, guarded.address, realm, certificate):
            yield guarded
    finally:
        await runner.cleanup()


@contextmanager
def _serve(directory: Path, address: str, realm: str, certificate: Path) -> Iterator[None]:
    token = {"realm": realm, "service": SERVICE, "issuer": _ISSUER, "rootcertbundle": str(certificate)}
    config = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(directory / "storage")}},
        "http": {"addr": address},
        "auth": {"token": token},
    }
    file = directory / "guarded.yml"
    file.write_text(json.dumps(config))  # JSON is YAML
    command: list[str | Path] = ["docker-registry", "serve", file]
    with running(command, log=directory / "guarded.log", ready=lambda: _listens(address)):
        yield


def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _token(key: Path, certificate: Path, scope: str) -> str:
    """A JSON Web Token (RS256) as distribution's docs/spec/auth/jwt asks for."""
    der = _openssl("x509", "-in", str(certificate), "-outform", "DER")
    header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
    now = int(time.time())
    claims = {
        "iss": _ISSUER,
        "sub": "",
        "aud": SERVICE,
        "iat": now,
        "nbf": now - 10,
        "exp": now + 300,
        "jti": uuid.uuid4().hex,
        "access": [_access(scope)] if scope else [],
    }
    signed = ".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    signature = _openssl("dgst", "-sha256", "-sign", str(key), stdin=signed.encode())
    return f"{signed}.{_base64(signature)}"


def _access(scope: str) -> dict[str, object]:
    kind, name, actions = scope.split(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _openssl(*arguments: str, stdin: bytes = b"") -> bytes:
    return subprocess.run(["openssl", *arguments], input=stdin, check=True, capture_output=True).stdout
