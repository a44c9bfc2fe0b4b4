"""Short words for what these tests do all the time."""

from __future__ import annotations

import hashlib
from collections import Counter
from contextlib import aclosing
from pathlib import Path

from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry import Registry
from tests.fakes.registry import LAYER, FakeRegistry, digest_of

AMD64 = Platform.parse("linux/amd64")
NAME = "demo/app"


class Counted(Counter[str]):
    """What ``on_source`` was told."""

    def __call__(self, source: str, size: int) -> None:
        self[source] += size


def content(size: int) -> bytes:
    """Bytes of which no part looks like another."""
    blocks = (hashlib.sha256(number.to_bytes(4)).digest() for number in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def blob(data: bytes) -> Descriptor:
    """The descriptor of these bytes."""
    return Descriptor(LAYER, Digest(digest_of(data)), len(data))


def path(data: bytes) -> str:
    """Where the fake serves these bytes."""
    return f"/v2/{NAME}/blobs/{digest_of(data)}"


def reference(server: FakeRegistry, target: str = ":1") -> Reference:
    """An image of the fake."""
    return Reference.parse(f"{server.address}/{NAME}{target}")


async def read(
    client: Registry,
    ref: Reference,
    wanted: Descriptor,
    *,
    mirrors: bool = True,
    into: list[bytes] | None = None,
) -> bytes:
    """The whole blob; what came before an error is in ``into``."""
    chunks = [] if into is None else into
    async with aclosing(client.fetch(ref, wanted, mirrors=mirrors)) as stream:
        async for data in stream:
            assert data, "an empty chunk says nothing"
            chunks.append(data)
    return b"".join(chunks)


def mirror(certs: Path, registry: FakeRegistry, *mirrors: FakeRegistry, extra: str = "") -> None:
    """A hosts.toml for ``registry`` that names these mirrors."""
    host, _, port = registry.address.rpartition(":")
    directory = certs / f"{host}_{port}_"
    directory.mkdir(parents=True)
    tables = [f'[host."{each.url}"]\n{extra}\n' for each in mirrors]
    (directory / "hosts.toml").write_text(f'server = "{registry.url}"\n' + "".join(tables))
