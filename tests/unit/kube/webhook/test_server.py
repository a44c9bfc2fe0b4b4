"""The HTTPS server: real TLS, real reviews, what is none, and certificates that change under load."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec
import pytest

from imagecached.errors import FailedPrecondition
from imagecached.imagecache import Candidates
from imagecached.kube.webhook.admission import Admission
from imagecached.kube.webhook.authority import Credentials, fresh
from imagecached.kube.webhook.certificates import load_into
from imagecached.kube.webhook.decide import Rules, Seen, Told
from imagecached.kube.webhook.review import MAX_BYTES
from imagecached.kube.webhook.server import application, serve
from tests.unit.imagecache.building import pod
from tests.unit.kube.webhook.reviewing import AUTO, known, response_of, review

JSON = {"Content-Type": "application/json"}


class Nothing:
    """No aftermath."""

    def look_at(self, seen: Seen) -> None: ...

    def tell(self, *told: Told) -> None: ...


class Server:
    """What a test sees of a server: where it is, how to reach it, and how to change its certificate."""

    def __init__(self) -> None:
        self.credentials = fresh(["localhost"], datetime.now(UTC))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.candidates: Candidates | None = known()
        self.reason: str | None = None
        self.url = ""
        load_into(self.context, self.credentials)

    @asynccontextmanager
    async def client(self, credentials: Credentials | None = None) -> AsyncIterator[aiohttp.ClientSession]:
        """A client that believes the authority of ``credentials``."""
        believed = (credentials or self.credentials).bundle.decode()
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=believed))
        async with aiohttp.ClientSession(self.url, connector=connector) as session:
            yield session


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Serves on loopback."""
    made = Server()
    pages = application(Admission(lambda: made.candidates, Nothing(), Rules()), lambda: made.reason)
    async with serve(pages, "127.0.0.1", 0, made.context) as port:
        made.url = f"https://localhost:{port}"
        yield made


def body(document: Any) -> bytes:
    return msgspec.json.encode(document)


async def test_a_review(server: Server) -> None:
    """Question and answer over TLS that a client verifies."""
    async with server.client() as client:
        asked = review(pod("nginx:1", annotations=AUTO))
        async with client.post("/mutate", data=body(asked), headers=JSON) as answer:
            response = response_of(await answer.read())
    assert answer.status == 200
    assert answer.content_type == "application/json"
    assert response["uid"] == asked["request"]["uid"]
    assert {"op": "add", "path": "/spec/runtimeClassName", "value": "imagecached"} in response["patch"]


async def test_observing(server: Server) -> None:
    """The second look is always allowed."""
    async with (
        server.client() as client,
        client.post("/observe", data=body(review(pod("a"))), headers=JSON) as answer,
    ):
        assert response_of(await answer.read())["allowed"]


@pytest.mark.parametrize(
    ("data", "headers", "status", "message"),
    [
        (b"{}", JSON, 400, "not an AdmissionReview: Object missing required field `apiVersion`"),
        (b"\x00", JSON, 400, "not an AdmissionReview: JSON is malformed: invalid character (byte 0)"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "must be application/json"),
        (b" " * (MAX_BYTES + 1), JSON, 413, "larger than 3145728 bytes"),
    ],
)
async def test_no_review(
    server: Server, data: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    """One line that says what is wrong, with the right code."""
    async with (
        server.client() as client,
        client.post("/mutate", data=io.BytesIO(data), headers=headers) as answer,
    ):
        assert (answer.status, await answer.text()) == (status, f"{message}\n")


async def test_probes(server: Server) -> None:
    """Alive while the loop answers; ready is asked of who knows."""
    async with server.client() as client:
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with client.get("/readyz") as answer:
            assert answer.status == 200
        server.reason = "certificates: no certificate yet"
        async with client.get("/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "certificates: no certificate yet\n")
        async with client.get("/mutate") as answer:
            assert answer.status == 405


async def test_without_tls(server: Server) -> None:
    """Plain HTTP is not answered."""
    async with aiohttp.ClientSession() as client:
        with pytest.raises(aiohttp.ClientError):
            await client.get(server.url.replace("https", "http"))


async def test_the_certificate_changes_under_load(server: Server) -> None:
    """New connections meet the new one, open connections go on: no review fails."""
    newer = fresh(["localhost"], datetime.now(UTC))
    asked, answered = body(review(pod("nginx:1", annotations=AUTO))), asyncio.Event()
    changed = asyncio.Event()

    async def stream() -> int:
        async with server.client() as client:
            count = 0
            while count < 20 or not changed.is_set():
                async with client.post("/mutate", data=asked, headers=JSON) as answer:
                    assert response_of(await answer.read())["allowed"]
                count += 1
                if count == 5:
                    answered.set()
                    await changed.wait()
            return count

    async with asyncio.TaskGroup() as group:
        streaming = group.create_task(stream())
        await answered.wait()
        load_into(server.context, newer)
        changed.set()
    assert streaming.result() >= 20
    async with server.client(newer) as client, client.get("/healthz") as answer:
        assert answer.status == 200
    async with server.client() as client:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await client.get("/healthz")


async def test_the_address_is_taken(server: Server) -> None:
    """Told as what it is."""
    port = int(server.url.rpartition(":")[2])
    pages = application(Admission(known, Nothing(), Rules()), lambda: None)
    with pytest.raises(FailedPrecondition, match=rf"^cannot listen on 127\.0\.0\.1:{port}: "):
        async with serve(pages, "127.0.0.1", port, server.context):
            pass


async def test_a_slow_review(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not send what it promised is let go."""
    monkeypatch.setattr("imagecached.kube.webhook.server._BODY_SECONDS", 0.05)
    trust = ssl.create_default_context(cadata=server.credentials.bundle.decode())
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("localhost", port, ssl=trust)
    writer.write(
        b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
