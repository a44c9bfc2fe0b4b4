"""From a reference to the documents of an image."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from imagecached.errors import (
    AccessDenied,
    Corrupt,
    ImagecachedError,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from imagecached.oci.digest import Digest
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry import Registry, RegistryConfig
from tests.fakes import faults
from tests.fakes.registry import CONFIG, INDEX, LAYER, MANIFEST, FakeRegistry, descriptor, digest_of
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import AMD64, NAME, Counted, content, reference

TAG = f"/v2/{NAME}/manifests/1"
LINUX_AMD64 = {"os": "linux", "architecture": "amd64"}
LINUX_ARM64 = {"os": "linux", "architecture": "arm64", "variant": "v8"}


async def test_manifest_by_tag(fake: FakeRegistry, client: Registry, counted: Counted) -> None:
    """Manifest and config, two requests, bytes as they were sent."""
    digest = fake.put_image(NAME, "1", [b"one", b"two"])
    resolved = await client.resolve(reference(fake), AMD64)
    assert resolved.index is None
    assert resolved.target.digest == resolved.manifest_digest == digest == Digest.of(resolved.manifest.raw)
    assert resolved.target.size == len(resolved.manifest.raw)
    assert resolved.config.diff_ids == (digest_of(b"one"), digest_of(b"two"))
    assert resolved.config.cmd == ("/bin/true",)
    assert len(fake.requests) == 2
    assert counted == {"registry": len(resolved.manifest.raw) + len(resolved.config.raw)}
    assert MANIFEST in fake.requests[0].headers["Accept"]
    assert fake.requests[0].headers["User-Agent"] == "imagecached"


async def test_manifest_by_digest(fake: FakeRegistry, client: Registry) -> None:
    """The digest wins over a tag beside it."""
    digest = fake.put_image(NAME, "1", [b"one"])
    fake.put_image(NAME, "1", [b"two"])
    resolved = await client.resolve(reference(fake, f":1@{digest}"), AMD64)
    assert resolved.manifest_digest == digest


async def test_index(fake: FakeRegistry, client: Registry) -> None:
    """The manifest of our platform; the target is the index."""
    amd64 = fake.put_image(NAME, None, [b"amd64"])
    arm64 = fake.put_image(NAME, None, [b"arm64"], config={"architecture": "arm64"})
    index = fake.put_index(NAME, "1", [(amd64, LINUX_AMD64), (arm64, LINUX_ARM64)])
    resolved = await client.resolve(reference(fake), Platform.parse("linux/arm64"))
    assert (resolved.target.digest, resolved.manifest_digest) == (index, arm64)
    assert resolved.index is not None
    assert Digest.of(resolved.index.raw) == index
    assert str(resolved.config.platform) == "linux/arm64"


async def test_index_without_our_platform(fake: FakeRegistry, client: Registry) -> None:
    """NotFound names what is offered."""
    fake.put_index(NAME, "1", [(fake.put_image(NAME, None, [b"x"]), LINUX_AMD64)])
    with pytest.raises(NotFound, match=r"no image for linux/s390x; offered: linux/amd64"):
        await client.resolve(reference(fake), Platform.parse("linux/s390x"))


async def test_entries_without_platform_are_judged_by_their_config(
    fake: FakeRegistry, client: Registry
) -> None:
    """Attached artifacts and other platforms are passed over until one fits."""
    signature = fake.put_manifest(
        NAME,
        None,
        json.dumps(
            {"schemaVersion": 2, "config": descriptor(digest_of(b""), 0, "x/y"), "layers": []}
        ).encode(),
    )
    arm64 = fake.put_image(NAME, None, [b"arm64"], config={"architecture": "arm64"})
    amd64 = fake.put_image(NAME, None, [b"amd64"])
    fake.put_index(NAME, "1", [(signature, None), (arm64, None), (amd64, None)])
    assert (await client.resolve(reference(fake), AMD64)).manifest_digest == amd64


async def test_nested_index(fake: FakeRegistry, client: Registry) -> None:
    """An index of indexes is followed, and what lies on the way is kept."""
    amd64 = fake.put_image(NAME, None, [b"amd64"])
    empty = fake.put_index(NAME, None, [])
    inner = fake.put_index(NAME, None, [(amd64, LINUX_AMD64)])
    outer = fake.put_index(NAME, "1", [(empty, None), (inner, None)])
    resolved = await client.resolve(reference(fake), AMD64)
    assert (resolved.target.digest, resolved.manifest_digest) == (outer, amd64)
    assert [Digest.of(index.raw) for index in resolved.nested] == [inner]


async def test_indexes_too_deep(fake: FakeRegistry, client: Registry) -> None:
    """Nesting is bounded."""
    digest = fake.put_image(NAME, None, [b"amd64"])
    for _ in range(4):
        digest = fake.put_index(NAME, "1", [(digest, None)])
    with pytest.raises(Unsupported, match="nested more than 3 deep"):
        await client.resolve(reference(fake), AMD64)


async def test_indexes_too_wide(fake: FakeRegistry, client: Registry) -> None:
    """So is the number of manifests that are read to find one."""
    arm64 = fake.put_image(NAME, None, [b"x"], config={"architecture": "arm64"})
    fake.put_index(NAME, "1", [(arm64, None)] * 100)
    with pytest.raises(Unsupported, match="more than 64 manifests"):
        await client.resolve(reference(fake), AMD64)
    assert len(fake.requests) < 140


async def test_single_manifest_of_another_platform(fake: FakeRegistry, client: Registry) -> None:
    """What is named directly is what is wanted, as with containerd."""
    fake.put_image(NAME, "1", [b"x"], config={"architecture": "s390x"})
    assert str((await client.resolve(reference(fake), AMD64)).config.platform) == "linux/s390x"


async def test_digest(fake: FakeRegistry, client: Registry) -> None:
    """One HEAD request tells what a tag names; a reference by digest needs none."""
    digest = fake.put_image(NAME, "1", [b"x"])
    assert await client.digest(reference(fake)) == digest
    assert [each.method for each in fake.requests] == ["HEAD"]
    assert await client.digest(reference(fake, f"@{digest}")) == digest
    assert len(fake.requests) == 1


async def test_digest_that_is_not_stated(fake: FakeRegistry, client: Registry) -> None:
    """Then the manifest itself is read."""
    digest = fake.put_image(NAME, "1", [b"x"])
    for fault in (faults.status(200, Content_Type=MANIFEST), faults.status(405)):
        fake.requests.clear()
        fake.script(TAG, fault)
        assert await client.digest(reference(fake)) == digest
        assert [each.method for each in fake.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    ("fault", "kind", "complaint"),
    [
        (
            faults.status(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"no such"}]}'),
            NotFound,
            "NAME_UNKNOWN: no",
        ),
        (faults.status(404), NotFound, "404"),
        (faults.status(410), NotFound, "410"),
        (faults.status(403, b'{"errors":[{"code":"DENIED","message":null}]}'), AccessDenied, "403 DENIED"),
        (faults.status(451), AccessDenied, "451"),
        (faults.status(400, b'{"errors":[{"code":"NAME_INVALID"}]}'), InvalidInput, "NAME_INVALID"),
        (faults.status(400, b"what?"), Unsupported, r"400 what\?"),
        (faults.status(405), Unsupported, "405"),
        (faults.status(501), Unavailable, "501"),
        (faults.html(502), Unavailable, "502 .an HTML page"),
        (faults.status(500, b"\x00\x1b[2J\r\nboom"), Unavailable, r"500 \[2J boom"),
        (faults.status(500, b'{"errors":' + b"[" * 10_000), Unavailable, "500"),
        (faults.html(200), Corrupt, "HTML"),
        (faults.endless(), Corrupt, "sends more than 4194304 bytes"),
        (faults.endless(b"", b" " * 65536), Corrupt, "sends more than"),
        (faults.corrupt(), Corrupt, "digest|cannot be read"),
        (faults.status(204), Unsupported, "204"),
    ],
)
async def test_answers(
    fault: faults.Fault, kind: type[ImagecachedError], complaint: str, fake: FakeRegistry, client: Registry
) -> None:
    """Every answer has its class of error and a message of one line that names what was asked."""
    fake.put_image(NAME, "1", [b"x"])
    fake.always(TAG, fault)
    with pytest.raises(kind, match=complaint) as caught:
        await client.resolve(reference(fake), AMD64)
    assert type(caught.value) is kind
    assert NAME in str(caught.value) or "cannot be read" in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


async def test_endless_error_body(fake: FakeRegistry, client: Registry) -> None:
    """An error that never ends is cut."""

    async def endless_error(request: web.Request, answer: faults.Answer) -> web.StreamResponse:
        return await faults.endless()(request, faults.Answer(404))

    fake.always(TAG, endless_error)
    with pytest.raises(NotFound, match="404"):
        await client.resolve(reference(fake), AMD64)


async def test_retries(fake: FakeRegistry, client: Registry, time: FakeTime) -> None:
    """Attempts with growing waits; Retry-After as number or date; then success."""
    fake.put_image(NAME, "1", [b"x"])
    fake.script(TAG, faults.status(503), faults.status(429, Retry_After="9"))
    await client.resolve(reference(fake), AMD64)
    assert time.slept == [1, 9]


async def test_gives_up(fake: FakeRegistry, client: Registry, time: FakeTime) -> None:
    """After the attempts that were allowed, with the last answer and what it asked to wait."""
    fake.always(TAG, faults.status(429, Retry_After="5"))
    with pytest.raises(Unavailable, match="429") as caught:
        await client.resolve(reference(fake), AMD64)
    assert caught.value.retry_after == 5
    assert len(fake.requests) == 3


async def test_long_waits_are_the_callers(fake: FakeRegistry, client: Registry, time: FakeTime) -> None:
    """A rate limit of an hour is reported, not slept through."""
    fake.always(TAG, faults.status(429, Retry_After="3600"))
    with pytest.raises(Unavailable) as caught:
        await client.resolve(reference(fake), AMD64)
    assert caught.value.retry_after == 3600
    assert time.slept == []


@pytest.mark.parametrize(
    "fault", [faults.broken(10), faults.broken(10, reset=True), faults.broken(0, reset=True)]
)
async def test_broken_documents_are_read_again(
    fault: faults.Fault, fake: FakeRegistry, client: Registry
) -> None:
    """A connection that ends in the middle of a document is no document."""
    fake.put_image(NAME, "1", [b"x"])
    fake.script(TAG, fault)
    assert (await client.resolve(reference(fake), AMD64)).config.diff_ids


@pytest.mark.parametrize("fault", [faults.silent(), faults.stalled(5)])
async def test_silence(
    fault: faults.Fault, fake: FakeRegistry, impatient: RegistryConfig, time: FakeTime
) -> None:
    """A server that says nothing, or stops in the middle, is unavailable."""
    fake.put_image(NAME, "1", [b"x"])
    fake.always(TAG, fault)
    async with Registry(impatient, clock=time.clock(), environment={}) as client:
        with pytest.raises(Unavailable, match="timed out"):
            await client.resolve(reference(fake), AMD64)
    assert len(fake.requests) == 2


async def test_nobody_listens(client: Registry, time: FakeTime) -> None:
    """A refused connection is retried and then named."""
    with pytest.raises(Unavailable, match=r"GET http://127.0.0.1:1/v2/a/manifests/latest: cannot connect"):
        await client.resolve(Reference.parse("127.0.0.1:1/a"), AMD64)
    assert len(time.slept) == 2


async def test_wrong_bytes(fake: FakeRegistry, client: Registry) -> None:
    """Manifest by digest, manifest from an index and config: each is checked, none is taken."""
    digest = fake.put_image(NAME, None, [b"x"])
    fake.put_index(NAME, "1", [(digest, LINUX_AMD64)])
    config = fake.manifest(NAME, digest)["config"]["digest"]
    by_digest = f"/v2/{NAME}/manifests/{digest}"
    for place in (by_digest, f"/v2/{NAME}/blobs/{config}"):
        for fault in (faults.corrupt(), faults.resized(1), faults.resized(-1)):
            fake.script(place, fault)
            with pytest.raises(Corrupt):
                await client.resolve(reference(fake), AMD64)
    fake.script(by_digest, faults.corrupt())
    with pytest.raises(Corrupt, match=f"expected digest {digest}"):
        await client.resolve(reference(fake, f"@{digest}"), AMD64)


async def test_server_that_contradicts_itself(fake: FakeRegistry, client: Registry) -> None:
    """A tag's bytes must have the digest that the server states."""
    fake.put_image(NAME, "1", [b"x"])
    raw = json.dumps(fake.manifest(NAME, "1")).encode()
    fake.script(
        TAG, faults.status(200, raw, Content_Type=MANIFEST, Docker_Content_Digest=digest_of(b"other"))
    )
    with pytest.raises(Corrupt, match="expected digest"):
        await client.resolve(reference(fake), AMD64)


async def test_sizes_that_lie(fake: FakeRegistry, client: Registry) -> None:
    """A child of another size than stated is refused; so is a config that is huge."""
    digest = fake.put_image(NAME, None, [b"x"])
    size = len(json.dumps(fake.manifest(NAME, digest)).encode())
    entry = {**descriptor(digest, size + 1, MANIFEST), "platform": LINUX_AMD64}
    fake.put_manifest(NAME, "1", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(), INDEX)
    with pytest.raises(Corrupt, match="its index says"):
        await client.resolve(reference(fake), AMD64)
    layers = [descriptor(digest_of(b""), 0, LAYER)]
    huge = {"schemaVersion": 2, "config": descriptor(digest_of(b"{}"), 1 << 40, CONFIG), "layers": layers}
    fake.put_manifest(NAME, "1", json.dumps(huge).encode())
    with pytest.raises(Corrupt, match="at most"):
        await client.resolve(reference(fake), AMD64)


async def test_endless_config(fake: FakeRegistry, client: Registry) -> None:
    """A config is read up to the size that its manifest states."""
    digest = fake.put_image(NAME, "1", [b"x"])
    config = fake.manifest(NAME, digest)["config"]["digest"]
    fake.always(f"/v2/{NAME}/blobs/{config}", faults.endless())
    with pytest.raises(Corrupt, match="sends more than"):
        await client.resolve(reference(fake), AMD64)


async def test_schema1(fake: FakeRegistry, client: Registry) -> None:
    """Refused by name."""
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    fake.put_manifest(NAME, "1", b'{"schemaVersion": 1, "fsLayers": []}', media_type)
    with pytest.raises(Unsupported, match="schema 1"):
        await client.resolve(reference(fake), AMD64)


async def test_slow_trickle(fake: FakeRegistry, client: Registry, time: FakeTime) -> None:
    """A body that keeps coming but far too slowly is given up; each look at the clock takes its time here."""
    fake.put_image(NAME, "1", [content(10)])
    time.per_look = 100.0
    with pytest.raises(Unavailable, match="too slow"):
        await client.resolve(reference(fake), AMD64)
