"""Redirects: what travels with them, and where they must not lead."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from imagecached.errors import AccessDenied, Corrupt, ImagecachedError, NotFound, Unavailable
from imagecached.oci.reference import Reference
from imagecached.registry import Registry, RegistryConfig
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import AMD64, NAME, blob, content, mirror, path, read, reference
from tests.unit.registry.test_addresses import Names

DATA = content(3000)


async def test_secrets_stay_with_their_host(
    fake: FakeRegistry, other: FakeRegistry, client: Registry, tmp_path: Path
) -> None:
    """Another host gets neither Authorization nor configured headers, but Range and Accept."""
    mirror(tmp_path / "certs.d", fake)
    hosts = next((tmp_path / "certs.d").iterdir()) / "hosts.toml"
    hosts.write_text(hosts.read_text() + '[header]\nx-secret = "hunter2"\n')
    (tmp_path / "config.json").write_text(json.dumps({"auths": {fake.address: {"registrytoken": "hunter2"}}}))
    fake.challenge = 'Bearer realm="https://example.com"'
    fake.authorizations = {"Bearer hunter2"}
    digest = other.put_blob(NAME, DATA)
    fake.always(path(DATA), faults.redirect(f"{other.url}/v2/{NAME}/blobs/{digest}?X-Signature=a%2Fb%7E+c"))
    fake.script(path(DATA), faults.status(401, WWW_Authenticate=fake.challenge))
    other.script(path(DATA), faults.broken(after=1000))
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert all(each.headers["X-Secret"] == "hunter2" for each in fake.requests)
    assert [each.range for each in other.requests] == ["", "bytes=1000-2999"]
    for each in other.requests:
        assert each.raw.endswith("?X-Signature=a%2Fb%7E+c"), "signed as it is written"
        assert "hunter2" not in repr(each.headers)


async def test_same_host_keeps_them(fake: FakeRegistry, client: Registry, tmp_path: Path) -> None:
    """A redirect within the registry, absolute or relative, stays authorised."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {fake.address: {"registrytoken": "t"}}}))
    fake.challenge = 'Bearer realm="https://example.com"'
    fake.authorizations = {"Bearer t"}
    fake.put_blob("demo/elsewhere", DATA)
    target = path(DATA).replace(NAME, "demo/elsewhere")
    fake.put_blob(NAME, DATA)
    fake.script(path(DATA), faults.status(401, WWW_Authenticate=fake.challenge))
    fake.script(path(DATA), faults.redirect(f"{fake.url}{target}", 302), faults.redirect(target, 308))
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert [each.authorization for each in fake.asked("elsewhere")] == ["Bearer t"] * 2


async def test_expired_storage_address(fake: FakeRegistry, other: FakeRegistry, client: Registry) -> None:
    """A storage that refuses a presigned URL is asked again, through the registry."""
    digest = other.put_blob(NAME, DATA)
    fake.always(path(DATA), faults.redirect(f"{other.url}/v2/{NAME}/blobs/{digest}"))
    other.script(path(DATA), faults.status(403, b"<Error>Request has expired</Error>"))
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("http://[fe80::1]/", "link-local"),
        ("http://[::ffff:a9fe:a9fe]/", "link-local"),
        ("http://0.0.0.0:80/", "unspecified"),
        ("http://[::]/", "unspecified"),
        ("http://100.100.100.200/", "metadata"),
        ("file:///etc/shadow", "not HTTP"),
        ("gopher://x/", "not HTTP"),
    ],
)
async def test_refused_places(location: str, reason: str, fake: FakeRegistry, client: Registry) -> None:
    """AccessDenied at once, whoever redirects."""
    fake.always(path(DATA), faults.redirect(location))
    with pytest.raises((AccessDenied, Unavailable), match=f"{reason}|nowhere"):
        await read(client, reference(fake), blob(DATA))


async def test_name_that_resolves_to_a_refused_place(
    fake: FakeRegistry, config: RegistryConfig, time: FakeTime
) -> None:
    """A harmless name is judged by the address that is connected to."""
    fake.always(path(DATA), faults.redirect("http://cdn.example.com/blob"))
    names = Names(cdn_example_com=["169.254.169.254"])
    async with Registry(config, clock=time.clock(), environment={}, resolver=names) as client:
        with pytest.raises(AccessDenied, match=r"cdn.example.com leads to 169.254.169.254, a link-local"):
            await read(client, reference(fake), blob(DATA))
    assert len(fake.requests) == 1
    assert names.closed


async def test_registry_elsewhere_may_not_lead_to_loopback(
    fake: FakeRegistry, config: RegistryConfig, time: FakeTime
) -> None:
    """Only a registry on this machine may point back to this machine, by address or by name."""
    port = fake.address.rpartition(":")[2]
    names = Names(
        registry_example_com=["127.0.0.1"], rebound_example_com=["127.0.0.1"], localhost=["127.0.0.1"]
    )
    config = replace(config, plain_http=("registry.example.com", "rebound.example.com"))
    ref = Reference.parse(f"registry.example.com:{port}/{NAME}:1")
    hosts = ("127.0.0.1", "localhost")
    fake.script(path(DATA), *[faults.redirect(f"http://{host}:{port}/x") for host in hosts])
    async with Registry(config, clock=time.clock(), environment={}, resolver=names) as client:
        for _ in hosts:
            with pytest.raises(AccessDenied, match=r"loopback|away from TLS"):
                await read(client, ref, blob(DATA))
        fake.script(path(DATA), faults.redirect(f"http://rebound.example.com:{port}/x"))
        with pytest.raises(AccessDenied, match=r"rebound.example.com leads to 127.0.0.1, a loopback address"):
            await read(client, ref, blob(DATA))
    assert not fake.asked("/x")


async def test_link_local_registry_must_be_configured(
    fake: FakeRegistry, config: RegistryConfig, time: FakeTime
) -> None:
    """Named only by a reference it is refused, by name and by address; test_addresses has the other half."""
    names = Names(link_example_com=["169.254.1.1"])
    async with Registry(config, clock=time.clock(), environment={}, resolver=names) as client:
        for host in ("link.example.com", "169.254.1.1", "[fe80::1]"):
            with pytest.raises(AccessDenied, match="link-local"):
                await client.resolve(Reference.parse(f"{host}:9/a"), AMD64)


@pytest.mark.parametrize(
    ("fault", "kind", "complaint"),
    [
        (faults.redirect(path(DATA)), Corrupt, "more than 10 redirects"),
        (faults.redirect(""), Unavailable, "redirects to nowhere"),
        (faults.redirect("http://[::1"), Unavailable, "no URL"),
        (faults.redirect("http://x:99999/"), Unavailable, "no URL"),
    ],
)
async def test_redirects_without_end_or_aim(
    fault: faults.Fault, kind: type[ImagecachedError], complaint: str, fake: FakeRegistry, client: Registry
) -> None:
    """Bounded, and named."""
    fake.always(path(DATA), fault)
    with pytest.raises(kind, match=complaint):
        await read(client, reference(fake), blob(DATA))


async def test_messages_hold_no_presigned_secret(
    fake: FakeRegistry, other: FakeRegistry, client: Registry
) -> None:
    """The query of a storage URL is a secret; its host and path are not."""
    fake.always(path(DATA), faults.redirect(f"{other.url}/bucket/blob?X-Amz-Signature=hunter2"))
    other.always("/bucket/blob", faults.status(503, b"what an inner service says"))
    with pytest.raises(Unavailable, match=r"/bucket/blob: 503 from where it redirects to") as caught:
        await read(client, reference(fake), blob(DATA))
    assert "hunter2" not in str(caught.value)
    assert "inner" not in str(caught.value)
    fake.always(path(DATA), faults.status(503, b"see http://x/?X-Amz-Signature=hunter2 for more"))
    with pytest.raises(Unavailable, match=r"503 see http://x/\?… for more"):
        await read(client, reference(fake), blob(DATA))


async def test_configured_port_does_not_open_others(
    fake: FakeRegistry, other: FakeRegistry, config: RegistryConfig, tmp_path: Path
) -> None:
    """A mirror on loopback does not let a registry elsewhere lead to the services beside it."""
    port = fake.address.rpartition(":")[2]
    names = Names(registry_example_com=["127.0.0.1"])
    settings = replace(config, plain_http=("registry.example.com", "127.0.0.1"))
    directory = tmp_path / "certs.d" / f"registry.example.com_{port}_"
    directory.mkdir(parents=True)
    (directory / "hosts.toml").write_text('[host."http://127.0.0.1:1"]')
    fake.always(path(DATA), faults.redirect(f"{other.url}/metrics"))
    async with Registry(settings, clock=FakeTime().clock(), environment={}, resolver=names) as client:
        with pytest.raises(AccessDenied, match="a loopback address: refused"):
            await read(client, Reference.parse(f"registry.example.com:{port}/{NAME}"), blob(DATA))
    assert other.requests == []


async def test_location_that_is_not_encoded(
    fake: FakeRegistry, other: FakeRegistry, client: Registry
) -> None:
    """Spaces and letters beyond ASCII are encoded before they are sent on."""
    fake.always(path(DATA), faults.redirect(f"{other.url}/a b/ä?c d"))
    with pytest.raises(NotFound):
        await read(client, reference(fake), blob(DATA))
    assert other.requests[0].raw == "/a%20b/%C3%A4?c+d"
