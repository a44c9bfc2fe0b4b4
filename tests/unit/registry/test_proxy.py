"""Requests through a proxy: plain HTTP by absolute URL, TLS by CONNECT; passwords in the right place."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagecached.errors import Unavailable
from imagecached.oci.reference import Reference
from imagecached.registry import Registry, RegistryConfig
from tests.fakes.certificates import Authority, server_context
from tests.fakes.registry import FakeRegistry
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import AMD64, NAME


class FakeProxy:
    """Sends everything to one server, whatever name it is asked for; ``heads`` are the requests it saw."""

    def __init__(self, target: FakeRegistry) -> None:
        self._target = target
        self.heads: list[str] = []
        self.mute = False

    async def __aenter__(self) -> FakeProxy:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._tunnel(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        if self.mute:
            await asyncio.Event().wait()
        host, port = self._target.address.split(":")
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            inner_writer.write(head)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, inner_writer))
                group.create_task(_copy(inner_reader, writer))
        finally:
            inner_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.fixture
async def proxy(fake: FakeRegistry) -> AsyncIterator[FakeProxy]:
    """A proxy in front of the fake."""
    async with FakeProxy(fake) as served:
        yield served


async def test_plain_http(fake: FakeRegistry, proxy: FakeProxy, config: RegistryConfig) -> None:
    """The proxy gets the whole URL and its own password; the registry's name is never resolved here."""
    fake.put_image(NAME, "1", [b"x"])
    settings = replace(config, plain_http=("registry.example.com",))
    environment = {"HTTP_PROXY": f"http://user:pa%20ss@{proxy.address}"}
    async with Registry(settings, clock=FakeTime().clock(), environment=environment) as client:
        await client.resolve(Reference.parse(f"registry.example.com/{NAME}:1"), AMD64)
    assert proxy.heads[0].startswith(f"GET http://registry.example.com/v2/{NAME}/manifests/1 HTTP/1.1")
    password = base64.b64encode(b"user:pa ss").decode()
    assert f"Proxy-Authorization: Basic {password}" in proxy.heads[0]


async def test_tls(proxy: FakeProxy, config: RegistryConfig, tmp_path: Path) -> None:
    """A tunnel by CONNECT; the proxy sees the host, its password, and nothing else."""
    authority = Authority(tmp_path)
    pair = authority.issue("registry", "DNS:registry.example.com")
    directory = tmp_path / "certs.d" / "registry.example.com"
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text(f'ca = "{authority.certificate}"')
    async with FakeRegistry(tls=server_context(pair)) as fake, FakeProxy(fake) as tunnel:
        fake.put_image(NAME, "1", [b"x"])
        environment = {"HTTPS_PROXY": f"http://user:secret@{tunnel.address}"}
        async with Registry(config, clock=FakeTime().clock(), environment=environment) as client:
            await client.resolve(Reference.parse(f"registry.example.com/{NAME}:1"), AMD64)
        assert tunnel.heads[0].startswith("CONNECT registry.example.com:443 HTTP/1.1")
        assert "Proxy-Authorization: Basic " in tunnel.heads[0]
        assert all("Proxy-Authorization" not in each.headers for each in fake.requests)


async def test_no_proxy(
    fake: FakeRegistry, proxy: FakeProxy, client: Registry, config: RegistryConfig
) -> None:
    """Loopback is asked directly."""
    fake.put_image(NAME, "1", [b"x"])
    async with Registry(config, environment={"HTTP_PROXY": f"http://{proxy.address}"}) as direct:
        await direct.resolve(Reference.parse(f"{fake.address}/{NAME}:1"), AMD64)
    assert proxy.heads == []


async def test_proxy_that_says_nothing(proxy: FakeProxy, config: RegistryConfig) -> None:
    """A tunnel that never opens is given up."""
    proxy.mute = True
    patience = replace(config.patience, attempts=1, connect_seconds=0.05, read_seconds=0.05)
    settings = replace(config, patience=patience)
    async with Registry(settings, environment={"HTTPS_PROXY": f"http://{proxy.address}"}) as client:
        with pytest.raises(Unavailable, match="timed out"):
            await client.resolve(Reference.parse("registry.example.com/a"), AMD64)
