"""What we rely on in a registry (OCI distribution-spec v1.1), asked of the fake and of a real one alike.

The fake may be used in other tests because it passes here. The second half asks the same of our client.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from imagecached.errors import AccessDenied, NotFound
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry import Ranged, Registry, RegistryConfig
from tests.contract.registry import servers
from tests.contract.registry.pushing import push_blob, push_image, push_manifest
from tests.contract.registry.servers import Guarded, guarded_fake, guarded_registry
from tests.fakes.registry import INDEX, LAYER, MANIFEST, FakeRegistry, descriptor, digest_of
from tests.support.registry import Registry as RealRegistry

NAME = "suite/some-image"
BLOB = bytes(range(256)) * 40
CONFIG = RegistryConfig(certs_dirs=(), ranged=Ranged(connections=3, chunk_bytes=1000, threshold_bytes=5000))


@pytest.fixture(params=["fake", "docker-registry"])
async def address(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """``host:port`` of the registry in question."""
    if request.param == "fake":
        async with FakeRegistry() as fake:
            yield fake.address
    else:
        real: RealRegistry = request.getfixturevalue("registry")
        yield real.address


@pytest.fixture
async def http(address: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Plain HTTP to it, no client of ours."""
    async with aiohttp.ClientSession(f"http://{address}", auto_decompress=False) as session:
        yield session


@pytest.fixture
async def blob(address: str, http: aiohttp.ClientSession) -> str:
    """The digest of a blob that is there."""
    return await push_blob(http, address, NAME, BLOB)


async def _codes(response: aiohttp.ClientResponse) -> list[str]:
    return [error["code"] for error in (await response.json())["errors"]]


async def test_base(http: aiohttp.ClientSession) -> None:
    """§ Determining Support."""
    async with http.get("/v2/") as response:
        assert response.status == 200


@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_manifest(by: str, address: str, http: aiohttp.ClientSession) -> None:
    """§ Pulling manifests: the bytes as they were pushed, their media type and digest, for GET and HEAD."""
    digest = await push_image(address, NAME, "one", [b"layer"])
    url = f"/v2/{NAME}/manifests/{'one' if by == 'tag' else digest}"
    async with http.get(url, headers={"Accept": f"{INDEX}, {MANIFEST}"}) as response:
        content = await response.read()
        assert response.status == 200
        assert response.headers["Content-Type"] == MANIFEST
        assert response.headers["Docker-Content-Digest"] == digest == digest_of(content)
    async with http.head(url, headers={"Accept": MANIFEST}) as response:
        assert response.status == 200
        assert response.headers["Docker-Content-Digest"] == digest
        assert response.headers["Content-Length"] == str(len(content))
        assert await response.read() == b""


async def test_moved_tag(address: str, http: aiohttp.ClientSession) -> None:
    """A tag names what was pushed last; what it named before stays there by digest."""
    old = await push_image(address, NAME, "moving", [b"old"])
    new = await push_image(address, NAME, "moving", [b"new"])
    for target, digest in (("moving", new), (old, old)):
        async with http.get(f"/v2/{NAME}/manifests/{target}", headers={"Accept": MANIFEST}) as response:
            assert digest_of(await response.read()) == digest


@pytest.mark.parametrize("name", [NAME, "suite/nowhere"])
@pytest.mark.parametrize("target", ["no-such-tag", f"sha256:{'0' * 64}"])
async def test_unknown_manifest(name: str, target: str, http: aiohttp.ClientSession, blob: str) -> None:
    """404 with an error document."""
    async with http.get(f"/v2/{name}/manifests/{target}") as response:
        assert response.status == 404
        assert set(await _codes(response)) <= {"MANIFEST_UNKNOWN", "NAME_UNKNOWN"}


async def test_blob(http: aiohttp.ClientSession, blob: str) -> None:
    """§ Pulling blobs, for GET and HEAD."""
    async with http.get(f"/v2/{NAME}/blobs/{blob}") as response:
        assert response.status == 200
        assert response.content_length == len(BLOB)
        assert await response.read() == BLOB
    async with http.head(f"/v2/{NAME}/blobs/{blob}") as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(len(BLOB))


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=5000-5999", 5000, 6000),
        ("bytes=10239-10239", 10239, 10240),
        ("bytes=10000-", 10000, 10240),
        ("bytes=10000-99999", 10000, 10240),
    ],
)
async def test_range(asked: str, start: int, stop: int, http: aiohttp.ClientSession, blob: str) -> None:
    """206 with the part and a Content-Range that tells the whole size (RFC 9110 § 14)."""
    async with http.get(f"/v2/{NAME}/blobs/{blob}", headers={"Range": asked}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(BLOB)}"
        assert response.content_length == stop - start
        assert await response.read() == BLOB[start:stop]


async def test_range_beyond_the_end(http: aiohttp.ClientSession, blob: str) -> None:
    """416."""
    headers = {"Range": f"bytes={len(BLOB)}-"}
    async with http.get(f"/v2/{NAME}/blobs/{blob}", headers=headers) as response:
        assert response.status == 416


@pytest.mark.parametrize("name", [NAME, "suite/nowhere"])
async def test_unknown_blob(name: str, http: aiohttp.ClientSession, blob: str) -> None:
    """404 with an error document."""
    async with http.get(f"/v2/{name}/blobs/sha256:{'0' * 64}") as response:
        assert response.status == 404
        assert set(await _codes(response)) <= {"BLOB_UNKNOWN", "NAME_UNKNOWN"}


async def test_blobs_are_per_repository(http: aiohttp.ClientSession, blob: str) -> None:
    """A blob of one repository is not to be had through another."""
    async with http.get(f"/v2/suite/nowhere/blobs/{blob}") as response:
        assert response.status == 404


async def test_invalid_name(http: aiohttp.ClientSession) -> None:
    """Refused as invalid or unknown."""
    async with http.get("/v2/UPPER/manifests/latest") as response:
        assert response.status in (400, 404)


async def test_chunked_push(http: aiohttp.ClientSession) -> None:
    """§ Pushing a blob in chunks."""
    base = URL(f"/v2/{NAME}/blobs/uploads/")
    async with http.post(base) as response:
        assert response.status == 202
        location = URL(response.headers["Location"])
    for start in (0, 3):
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{start}-{start + 2}"}
        async with http.patch(location, data=b"abcdef"[start : start + 3], headers=headers) as response:
            assert response.status == 202
            assert response.headers["Range"] == f"0-{start + 2}"
            location = URL(response.headers["Location"])
    async with http.put(location.update_query(digest=digest_of(b"abcdef"))) as response:
        assert response.status == 201
    async with http.get(f"/v2/{NAME}/blobs/{digest_of(b'abcdef')}") as response:
        assert await response.read() == b"abcdef"


async def test_push_with_a_wrong_digest(http: aiohttp.ClientSession) -> None:
    """400 DIGEST_INVALID, and nothing is stored."""
    async with http.post(f"/v2/{NAME}/blobs/uploads/") as response:
        location = URL(response.headers["Location"]).update_query(digest=digest_of(b"right"))
    async with http.put(location, data=b"wrong") as response:
        assert response.status == 400
        assert await _codes(response) == ["DIGEST_INVALID"]
    async with http.get(f"/v2/{NAME}/blobs/{digest_of(b'right')}") as response:
        assert response.status == 404


async def test_push_of_a_manifest_without_its_blobs(http: aiohttp.ClientSession) -> None:
    """400: children first."""
    missing = descriptor(digest_of(b"nowhere"), 7, LAYER)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": missing, "layers": [missing]}
    headers = {"Content-Type": MANIFEST}
    async with http.put(f"/v2/{NAME}/manifests/x", data=json.dumps(document), headers=headers) as response:
        assert response.status == 400
        assert set(await _codes(response)) == {"MANIFEST_BLOB_UNKNOWN"}


async def test_push_of_what_is_no_manifest(http: aiohttp.ClientSession) -> None:
    """400 MANIFEST_INVALID."""
    headers = {"Content-Type": MANIFEST}
    async with http.put(f"/v2/{NAME}/manifests/x", data=b"not json", headers=headers) as response:
        assert response.status == 400
        assert await _codes(response) == ["MANIFEST_INVALID"]


# Our client against both.


@pytest.fixture
async def client() -> AsyncIterator[Registry]:
    """Ours."""
    async with Registry(CONFIG, environment={}) as registry:
        yield registry


async def _read(client: Registry, ref: Reference, blob: Descriptor) -> bytes:
    async with aclosing(client.fetch(ref, blob)) as chunks:
        return b"".join([data async for data in chunks])


async def test_pull(address: str, client: Registry) -> None:
    """By tag and by digest, small layers in one stream and large ones in parts."""
    layers = [b"small", BLOB]
    digest = await push_image(address, NAME, "two", layers)
    for target in (":two", f"@{digest}"):
        ref = Reference.parse(f"{address}/{NAME}{target}")
        resolved = await client.resolve(ref, Platform.parse("linux/amd64"))
        assert resolved.manifest_digest == digest == await client.digest(ref)
        assert [await _read(client, ref, layer) for layer in resolved.manifest.layers] == layers


async def test_pull_of_an_index(address: str, client: Registry, http: aiohttp.ClientSession) -> None:
    """The right platform of several."""
    entries = []
    for architecture in ("s390x", "amd64"):
        digest = await push_image(address, NAME, None, [architecture.encode()], architecture)
        async with http.head(f"/v2/{NAME}/manifests/{digest}", headers={"Accept": MANIFEST}) as response:
            size = int(response.headers["Content-Length"])
        platform = {"os": "linux", "architecture": architecture}
        entries.append({**descriptor(digest, size, MANIFEST), "platform": platform})
    document = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    index = await push_manifest(http, address, NAME, "many", document, INDEX)
    ref = Reference.parse(f"{address}/{NAME}:many")
    resolved = await client.resolve(ref, Platform.parse("linux/amd64"))
    assert (resolved.target.digest, resolved.manifest_digest) == (index, entries[1]["digest"])
    assert resolved.index is not None
    assert resolved.index.raw == document


async def test_pull_of_nothing(address: str, client: Registry) -> None:
    """NotFound for images and for blobs."""
    ref = Reference.parse(f"{address}/suite/nowhere:1")
    with pytest.raises(NotFound):
        await client.resolve(ref, Platform.parse("linux/amd64"))
    with pytest.raises(NotFound):
        await client.digest(ref)
    with pytest.raises(NotFound):
        await _read(client, ref, Descriptor(LAYER, Digest.of(b"nowhere"), 7))


# Guarded by tokens.


@pytest.fixture(params=["fake", "docker-registry"])
async def guarded(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Guarded]:
    """A registry that wants tokens."""
    async with guarded_fake() if request.param == "fake" else guarded_registry(tmp_path) as registry:
        yield registry


async def test_challenge(guarded: Guarded) -> None:
    """401 names realm, service and scope (distribution: docs/spec/auth/token)."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://{guarded.address}/v2/{servers.NAME}/manifests/1") as response,
    ):
        challenge = response.headers["WWW-Authenticate"]
        assert response.status == 401
        assert await _codes(response) == ["UNAUTHORIZED"]
    assert challenge.startswith('Bearer realm="http://')
    assert f'service="{servers.SERVICE}"' in challenge
    assert f'scope="repository:{servers.NAME}:pull"' in challenge


async def test_pull_with_a_token(guarded: Guarded, client: Registry) -> None:
    """One anonymous token does for the whole image."""
    ref = Reference.parse(f"{guarded.address}/{servers.NAME}:1")
    resolved = await client.resolve(ref, Platform.parse("linux/amd64"))
    assert await _read(client, ref, resolved.manifest.layers[0]) == servers.LAYER
    assert guarded.asked == [{"service": servers.SERVICE, "scope": f"repository:{servers.NAME}:pull"}]


async def test_token_that_allows_nothing(guarded: Guarded, client: Registry) -> None:
    """AccessDenied after one try with it."""
    guarded.useless = True
    with pytest.raises(AccessDenied, match="401 UNAUTHORIZED"):
        await client.resolve(
            Reference.parse(f"{guarded.address}/{servers.NAME}:1"), Platform.parse("linux/amd64")
        )
    assert len(guarded.asked) == 1
