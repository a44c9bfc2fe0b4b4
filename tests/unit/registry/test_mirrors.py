"""Mirrors: whom to ask for what, when to go on to the next, and how bytes are counted."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from imagecached.errors import AccessDenied, InvalidInput, NotFound
from imagecached.registry import Registry
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry, digest_of
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import (
    AMD64,
    NAME,
    Counted,
    blob,
    content,
    mirror,
    path,
    read,
    reference,
)

DATA = content(3000)
BIG = content(10_500)
TAG = f"/v2/{NAME}/manifests/1"


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """Where hosts.toml files go."""
    return tmp_path / "certs.d"


@pytest.fixture(autouse=True)
def images(fake: FakeRegistry, other: FakeRegistry) -> None:
    """The same image on both servers."""
    for server in (fake, other):
        server.put_image(NAME, "1", [DATA, BIG])


async def test_mirror_serves_everything(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path, counted: Counted
) -> None:
    """The registry is not asked at all; the mirror is told for whom it stands in."""
    mirror(certs, fake, other)
    resolved = await client.resolve(reference(fake), AMD64)
    for layer in resolved.manifest.layers:
        await read(client, reference(fake), layer)
    assert fake.requests == []
    assert {each.query.get("ns") for each in other.requests} == {fake.address}
    assert set(counted) == {"mirror"}


async def test_mirror_that_is_not_trusted_with_tags(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path
) -> None:
    """Without ``resolve`` it is asked by digest only."""
    mirror(certs, fake, other, extra='capabilities = ["pull"]')
    await client.resolve(reference(fake), AMD64)
    assert [each.path for each in fake.requests] == [TAG]
    assert [each.path for each in other.requests if "manifests" in each.path] == []
    digest = digest_of(fake._manifests[NAME]["1"][1])
    await client.resolve(reference(fake, f"@{digest}"), AMD64)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(404),
        faults.status(500),
        faults.status(401),
        faults.status(403),
        faults.status(429, Retry_After="3600"),
        faults.status(400),
        faults.html(),
        faults.endless(),
        faults.broken(3, reset=True),
        faults.corrupt(),
        faults.redirect("http://169.254.169.254/"),
    ],
)
async def test_whatever_a_mirror_does_wrong(
    fault: faults.Fault,
    fake: FakeRegistry,
    other: FakeRegistry,
    client: Registry,
    certs: Path,
    time: FakeTime,
) -> None:
    """The next server is asked at once, for a tag, a manifest by digest and a config."""
    mirror(certs, fake, other)
    digest = digest_of(fake._manifests[NAME]["1"][1])
    for place in [each.path for each in other.requests]:
        other.always(place, fault)
    config = fake.manifest(NAME, "1")["config"]["digest"]
    for place in (TAG, f"/v2/{NAME}/manifests/{digest}", f"/v2/{NAME}/blobs/{config}"):
        other.always(place, fault)
    for target in (":1", f"@{digest}"):
        resolved = await client.resolve(reference(fake, target), AMD64)
        assert resolved.manifest_digest == digest
    assert other.requests
    assert time.slept == []


async def test_wrong_digest_falls_back(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path
) -> None:
    """A mirror with other bytes for a digest is passed over."""
    mirror(certs, fake, other)
    digest = digest_of(fake._manifests[NAME]["1"][1])
    other.always(f"/v2/{NAME}/manifests/{digest}", faults.corrupt())
    assert (await client.resolve(reference(fake, f"@{digest}"), AMD64)).manifest_digest == digest
    assert len(fake.asked("manifests")) == 1


async def test_order_and_last_error(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Mirrors in order, then the registry, whose error is the one that is raised; the others are logged."""
    async with FakeRegistry() as third:
        mirror(certs, fake, third, other)
        other.always(TAG, faults.status(403))
        fake.always(TAG, faults.status(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'))
        with caplog.at_level(logging.WARNING), pytest.raises(NotFound, match=fake.address):
            await client.resolve(reference(fake), AMD64)
        asked = [bool(server.requests) for server in (third, other, fake)]
    assert asked == [True, True, True]
    assert [record.message for record in caplog.records] == ["asking the next server"] * 2
    assert [record.__dict__["kind"] for record in caplog.records] == ["not_found", "access_denied"]


async def test_dead_mirror_rests(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path, time: FakeTime
) -> None:
    """It costs one attempt, then it is left alone for a while."""
    mirror(certs, fake, other)
    other.always(TAG, faults.status(503))
    await client.resolve(reference(fake), AMD64)
    asked = len(other.requests)
    await client.resolve(reference(fake), AMD64)
    assert len(other.requests) == asked == 1
    time.seconds += 31
    await client.resolve(reference(fake), AMD64)
    assert len(other.requests) > asked


async def test_mirror_without_the_image_does_not_rest(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path
) -> None:
    """404 says nothing about other images."""
    mirror(certs, fake, other)
    other.script(TAG, faults.status(404))
    await client.resolve(reference(fake), AMD64)
    await client.resolve(reference(fake), AMD64)
    assert len(other.asked(TAG)) == 2


async def test_blob_begun_at_a_mirror_ends_at_the_registry(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path, counted: Counted
) -> None:
    """A mirror that breaks off gets one more chance for the rest, then the registry has it."""
    mirror(certs, fake, other)
    other.script(path(DATA), faults.broken(1000), faults.status(503))
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert [each.range for each in other.requests] == ["", "bytes=1000-2999"]
    assert [each.range for each in fake.requests] == ["bytes=1000-2999"]
    assert counted == {"mirror": 1000, "registry": 2000}


@pytest.mark.parametrize(
    "fault", [faults.status(404), faults.status(503), faults.resized(1), faults.silent()]
)
async def test_blob_that_a_mirror_has_not(
    fault: faults.Fault,
    fake: FakeRegistry,
    other: FakeRegistry,
    impatient: object,
    certs: Path,
    time: FakeTime,
) -> None:
    """The registry has it, in one stream or in parts."""
    mirror(certs, fake, other)
    for data in (DATA, BIG):
        other.always(path(data), fault)
        async with Registry(impatient, clock=time.clock(), environment={}) as client:  # type: ignore[arg-type]
            assert await read(client, reference(fake), blob(data)) == data


async def test_mirror_is_asked_once_for_a_blob_in_parts(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path
) -> None:
    """Only the parts that were under way learn that it has not the blob; the others do not ask again."""
    mirror(certs, fake, other)
    other.always(path(BIG), faults.status(404))
    assert await read(client, reference(fake), blob(BIG)) == BIG
    assert len(other.requests) <= 3


async def test_without_mirrors(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path
) -> None:
    """After wrong bytes of a mirror the caller can ask the registry alone."""
    mirror(certs, fake, other)
    assert await read(client, reference(fake), blob(DATA), mirrors=False) == DATA
    assert other.requests == []


async def test_mirrors_login_is_its_own(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path, tmp_path: Path
) -> None:
    """The registry's login is not shown to a mirror."""
    mirror(certs, fake, other)
    login = f'{{"auths": {{"{fake.address}": {{"username": "me", "password": "secret"}}}}}}'
    (tmp_path / "config.json").write_text(login)
    other.challenge = 'Basic realm="mirror"'
    await client.resolve(reference(fake), AMD64)
    assert {each.authorization for each in other.requests} == {""}
    assert len(fake.requests) == 2


async def test_no_server_may(fake: FakeRegistry, client: Registry, certs: Path) -> None:
    """A registry whose servers may only push cannot be pulled from."""
    mirror(certs, fake)
    hosts = next(certs.iterdir()) / "hosts.toml"
    hosts.write_text(hosts.read_text() + 'capabilities = ["push"]')
    with pytest.raises(NotFound, match="may resolve"):
        await client.resolve(reference(fake), AMD64)


async def test_broken_hosts_toml_is_not_skipped(fake: FakeRegistry, client: Registry, certs: Path) -> None:
    """A mirror that was meant is not silently replaced by the registry."""
    mirror(certs, fake)
    (next(certs.iterdir()) / "hosts.toml").write_text("server = ")
    with pytest.raises(InvalidInput, match=r"hosts.toml"):
        await client.resolve(reference(fake), AMD64)
    with pytest.raises(InvalidInput, match=r"hosts.toml"):
        await read(client, reference(fake), blob(DATA))
    assert fake.requests == []


async def test_denied_everywhere(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, certs: Path
) -> None:
    """The registry's refusal is what counts."""
    mirror(certs, fake, other)
    for server in (fake, other):
        server.challenge = 'Basic realm="x"'
    with pytest.raises(AccessDenied, match=fake.address):
        await read(client, reference(fake), blob(DATA))
