"""TLS: own authorities, client certificates, skip_verify, and what is never done without TLS."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from imagecached.errors import AccessDenied, InvalidInput, Unavailable
from imagecached.registry import Registry, RegistryConfig
from tests.fakes import faults
from tests.fakes.certificates import Authority, Pair, server_context
from tests.fakes.registry import FakeRegistry
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import AMD64, NAME, blob, content, path, read, reference

DATA = content(3000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One authority for all tests here; making keys takes its time."""
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    """A server at 127.0.0.1."""
    return authority.issue("server")


@pytest.fixture(scope="module")
def person(authority: Authority) -> Pair:
    """A client."""
    return authority.issue("person", "DNS:person")


def hosts(tmp_path: Path, registry: FakeRegistry, text: str) -> Path:
    """hosts.toml for ``registry``, server included."""
    directory = tmp_path / "certs.d" / registry.address.replace(":", "_").join(("", "_"))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "hosts.toml").write_text(f'server = "{registry.url}"\n{text}\n')
    return directory


async def test_own_authority(server: Pair, authority: Authority, client: Registry, tmp_path: Path) -> None:
    """Unknown authorities are refused; one that is configured is believed."""
    async with FakeRegistry(tls=server_context(server)) as fake:
        fake.put_image(NAME, "1", [DATA])
        hosts(tmp_path, fake, "")
        with pytest.raises(Unavailable, match=r"certificate refused: .*verify failed"):
            await client.resolve(reference(fake), AMD64)
        directory = hosts(tmp_path, fake, 'ca = "ca.pem"')
        (directory / "ca.pem").write_bytes(authority.certificate.read_bytes())
        resolved = await client.resolve(reference(fake), AMD64)
        assert await read(client, reference(fake), resolved.manifest.layers[0]) == DATA


async def test_wrong_name(authority: Authority, client: Registry, tmp_path: Path) -> None:
    """A good certificate of another host is refused."""
    elsewhere = authority.issue("elsewhere", "DNS:elsewhere.example.com")
    async with FakeRegistry(tls=server_context(elsewhere)) as fake:
        hosts(tmp_path, fake, f'ca = "{authority.certificate}"')
        with pytest.raises(Unavailable, match="certificate refused"):
            await client.resolve(reference(fake), AMD64)


async def test_skip_verify(server: Pair, client: Registry, tmp_path: Path) -> None:
    """Any certificate will do where the operator says so."""
    async with FakeRegistry(tls=server_context(server)) as fake:
        fake.put_image(NAME, "1", [DATA])
        hosts(tmp_path, fake, "skip_verify = true")
        await client.resolve(reference(fake), AMD64)


@pytest.mark.parametrize("form", ["pair", "one file", "skip_verify"])
async def test_client_certificate(
    form: str, server: Pair, person: Pair, authority: Authority, client: Registry, tmp_path: Path
) -> None:
    """Certificate and key in two files or in one, with and without verification of the server."""
    texts = {
        "pair": f'client = [["{person.certificate}", "{person.key}"]]\nca = "{authority.certificate}"',
        "one file": f'client = "{person.both}"\nca = ["{authority.certificate}"]',
        "skip_verify": f'client = "{person.both}"\nskip_verify = true',
    }
    async with FakeRegistry(tls=server_context(server, clients_of=authority)) as fake:
        fake.put_image(NAME, "1", [DATA])
        hosts(tmp_path, fake, f'ca = "{authority.certificate}"')
        with pytest.raises(Unavailable):
            await client.resolve(reference(fake), AMD64)
        hosts(tmp_path, fake, texts[form])
        await client.resolve(reference(fake), AMD64)


async def test_rotated_certificate(
    server: Pair, authority: Authority, client: Registry, tmp_path: Path
) -> None:
    """A certificate file that changes is read again."""
    stranger = Authority(tmp_path, "stranger")
    async with FakeRegistry(tls=server_context(server)) as fake:
        fake.put_image(NAME, "1", [DATA])
        directory = hosts(tmp_path, fake, 'ca = "ca.pem"')
        (directory / "ca.pem").write_bytes(stranger.certificate.read_bytes())
        with pytest.raises(Unavailable, match="certificate refused"):
            await client.resolve(reference(fake), AMD64)
        (directory / "ca.pem").write_bytes(authority.certificate.read_bytes())
        os.utime(directory / "ca.pem", ns=(1, 1))
        await client.resolve(reference(fake), AMD64)


async def test_unusable_files(person: Pair, fake: FakeRegistry, client: Registry, tmp_path: Path) -> None:
    """Missing, empty or encrypted: named, and nobody is asked for a password."""
    encrypted = tmp_path / "encrypted.pem"
    key = subprocess.run(
        ["openssl", "ec", "-in", person.key, "-aes128", "-passout", "pass:x"], capture_output=True, check=True
    ).stdout
    encrypted.write_bytes(person.certificate.read_bytes() + key)
    (tmp_path / "empty.pem").touch()
    for line in ('ca = "missing.pem"', f'ca = "{tmp_path}/empty.pem"', f'client = "{encrypted}"'):
        directory = hosts(tmp_path, fake, line)
        (directory / "hosts.toml").write_text(f'server = "https://{fake.address}"\n{line}')
        with pytest.raises(InvalidInput, match=r"pem|certificate"):
            await client.resolve(reference(fake), AMD64)
    assert fake.requests == []


async def test_no_way_out_of_tls(
    server: Pair, authority: Authority, fake: FakeRegistry, client: Registry, tmp_path: Path
) -> None:
    """Neither a redirect nor a realm leads from https to http."""
    (tmp_path / "config.json").write_text("{}")
    fake.put_blob(NAME, DATA)
    async with FakeRegistry(tls=server_context(server)) as secure:
        hosts(tmp_path, secure, f'ca = "{authority.certificate}"')
        (tmp_path / "config.json").write_text(
            json.dumps({"auths": {secure.address: {"username": "me", "password": "secret"}}})
        )
        secure.always(path(DATA), faults.redirect(f"{fake.url}{path(DATA)}"))
        with pytest.raises(AccessDenied, match="away from TLS"):
            await read(client, reference(secure), blob(DATA))
        secure.challenge = f'Bearer realm="{fake.url}/token"'
        with pytest.raises(AccessDenied, match="away from TLS"):
            await client.resolve(reference(secure), AMD64)
    assert fake.requests == []


async def test_out_of_tls_where_configured(
    server: Pair, authority: Authority, fake: FakeRegistry, config: RegistryConfig, tmp_path: Path
) -> None:
    """Hosts that are named for plain HTTP may be led to."""
    fake.put_blob(NAME, DATA)
    settings = RegistryConfig(certs_dirs=config.certs_dirs, plain_http=(fake.address,))
    async with FakeRegistry(tls=server_context(server)) as secure:
        hosts(tmp_path, secure, f'ca = "{authority.certificate}"')
        secure.always(path(DATA), faults.redirect(f"{fake.url}{path(DATA)}"))
        async with Registry(settings, clock=FakeTime().clock(), environment={}) as client:
            assert await read(client, reference(secure), blob(DATA)) == DATA


async def test_redirect_uses_the_same_trust(
    server: Pair, authority: Authority, client: Registry, tmp_path: Path
) -> None:
    """A private storage behind a private registry has a certificate of the same authority."""
    async with (
        FakeRegistry(tls=server_context(server)) as secure,
        FakeRegistry(tls=server_context(server)) as storage,
    ):
        storage.put_blob(NAME, DATA)
        hosts(tmp_path, secure, f'ca = "{authority.certificate}"')
        secure.always(path(DATA), faults.redirect(f"{storage.url}{path(DATA)}"))
        assert await read(client, reference(secure), blob(DATA)) == DATA


async def test_plain_server_where_tls_is_expected(
    fake: FakeRegistry, client: Registry, tmp_path: Path
) -> None:
    """It is unavailable, and is never asked in plain HTTP instead."""
    directory = hosts(tmp_path, fake, "")
    (directory / "hosts.toml").write_text(f'server = "https://{fake.address}"')
    with pytest.raises(Unavailable):
        await client.resolve(reference(fake), AMD64)
    assert fake.requests == []
