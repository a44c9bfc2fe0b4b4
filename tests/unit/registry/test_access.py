"""Access: pull secrets as the kubelet reads them, and nothing granted to one caller used for another."""

from __future__ import annotations

import base64
import json

import pytest

from imagecached.errors import AccessDenied, InvalidInput
from imagecached.registry import NOTHING, Access, Registry, RegistryConfig, access_of
from imagecached.registry.credentials import Login
from imagecached.registry.hosts import load_endpoints
from tests.fakes.registry import FakeRegistry
from tests.fakes.tokens import FakeTokens
from tests.unit.registry.pulling import AMD64, NAME, content, read, reference

DATA = content(3000)


def secret(**logins: str) -> bytes:
    """A docker config.json of ``place="user:password"``."""
    entries = {name: {"auth": base64.b64encode(text.encode()).decode()} for name, text in logins.items()}
    return json.dumps({"auths": entries}).encode()


def access(*documents: bytes, **more: tuple[str, ...]) -> Access:
    return access_of([("secret", document) for document in documents], **more)


@pytest.mark.parametrize(
    ("place", "host", "repository", "found"),
    [
        ("r.io", "r.io", "a/b", True),
        ("r.io", "r.io:5000", "a", False),
        ("r.io:5000", "r.io:5000", "a", True),
        ("R.io", "r.IO", "a", True),
        ("https://r.io", "r.io", "a", True),
        ("https://r.io/v2/", "r.io", "a", True),
        ("r.io", "evil-r.io", "a", False),
        ("r.io", "r.io.evil.com", "a", False),
        ("r.io/team", "r.io", "team/app", True),
        ("r.io/team", "r.io", "team", True),
        ("r.io/team", "r.io", "teams/app", False),
        ("r.io/team", "r.io", "other", False),
        ("r.io/v1/team", "r.io", "team/app", True),
        ("*.r.io", "a.r.io", "x", True),
        ("*.r.io", "r.io", "x", False),
        ("*.r.io", "b.a.r.io", "x", False),
        ("*", "r.io", "x", False),
        ("*.io:5000", "r.io:5000", "x", True),
        ("[::1]:5000", "[::1]:5000", "x", True),
        ("https://index.docker.io/v1/", "registry-1.docker.io", "library/nginx", True),
        ("docker.io", "registry-1.docker.io", "library/nginx", True),
        ("docker.io", "docker.io.evil.com", "library/nginx", False),
    ],
)
def test_whom_a_login_is_for(place: str, host: str, repository: str, found: bool) -> None:
    """Never for another host than it was stored for; a path is a repository or what is below it."""
    given = access(secret(**{place: "me:pw"}))
    assert given.login(host, repository) == (Login("me", "pw") if found else None)


def test_the_most_fitting_login_wins() -> None:
    """The longest path, then the name without a star; of two secrets for one place the first."""
    given = access(
        secret(**{"*.io": "star:1", "r.io": "host:2", "r.io/team": "team:3", "r.io/team/app": "app:4"}),
        secret(**{"r.io": "late:5"}),
    )
    users = [given.login("r.io", name) for name in ("team/app/x", "team/x", "x")]
    assert [login.username for login in users if login] == ["app", "team", "host"]
    assert given.login("q.io", "x") == Login("star", "1")


@pytest.mark.parametrize(
    "document",
    [
        b'{"r.io": {"username": "me", "password": "pw", "email": "x"}}',
        b'{"auths": {"r.io": {"username": "me", "password": "pw"}}, "credsStore": "evil"}',
    ],
)
def test_both_forms_of_a_secret(document: bytes) -> None:
    """``.dockerconfigjson`` and the older ``.dockercfg``; helpers named in one are not run."""
    assert access(document).login("r.io", "x") == Login("me", "pw")


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{", b'{"auths": 1}', b'{"auths": {"r.io": "topsecret"}}', b'{"r.io": "topsecret"}',
     b'{"auths": {"r.io": {"auth": "topsecret"}}}', b"[" * 5000, b" " * ((1 << 20) + 1)],
)  # fmt: skip
def test_a_broken_secret_is_named_and_not_quoted(document: bytes) -> None:
    """Whoever reads the message learns where it is, and nothing of what it holds."""
    with pytest.raises(InvalidInput, match=r"^default:pull: ") as caught:
        access_of([("default:pull", document)])
    assert "topsecret" not in str(caught.value)


def test_a_value_that_shows_nothing() -> None:
    """Equal by content, so that flights can be keyed by it; no secret in its text."""
    one, other = access(secret(**{"r.io": "me:topsecret"})), access(secret(**{"r.io": "me:topsecret"}))
    assert one == other
    assert hash(one) == hash(other)
    assert one != NOTHING
    assert "topsecret" not in repr(one)
    assert access() == NOTHING


def test_what_an_access_names_is_not_the_operators_word(config: RegistryConfig) -> None:
    """Without TLS, or without looking at the certificate, but not trusted with metadata addresses."""
    named = Access(plain_http=("r.io",), insecure=("q.io:5000",))
    [plain] = load_endpoints("r.io:80", config, named)
    [insecure] = load_endpoints("q.io:5000", config, named)
    [ordinary] = load_endpoints("q.io:5001", config, named)
    assert (plain.base.scheme, plain.skip_verify, plain.configured) == ("http", False, False)
    assert (insecure.base.scheme, insecure.skip_verify, insecure.configured) == ("https", True, False)
    assert (ordinary.base.scheme, ordinary.skip_verify) == ("https", False)
    assert load_endpoints("r.io:80", config)[0].base.scheme == "https"


async def test_a_login_of_an_access_opens_its_registry(fake: FakeRegistry, client: Registry) -> None:
    """All requests of a pull are made with it, and none without it."""
    fake.put_image(NAME, "1", [DATA])
    async with FakeTokens(fake) as tokens:
        tokens.users = {"me": "secret"}
        mine = access(secret(**{f"{fake.address}/demo": "me:secret"}))
        resolved = await client.resolve(reference(fake), AMD64, mine)
        assert await client.digest(reference(fake), mine) == resolved.target.digest
        with pytest.raises(AccessDenied):
            await client.resolve(reference(fake), AMD64, access(secret(**{fake.address: "me:wrong"})))
        with pytest.raises(AccessDenied):
            await client.resolve(reference(fake), AMD64, access(secret(**{f"{fake.address}/x": "me:secret"})))
        wanted = resolved.manifest.layers[0]
        with pytest.raises(AccessDenied):
            await read(client, reference(fake), wanted)


async def test_tokens_are_not_shared(fake: FakeRegistry, client: Registry) -> None:
    """What was granted to one access is asked for anew for another, and remembered for the same one."""
    fake.put_image(NAME, "1", [DATA])
    async with FakeTokens(fake) as tokens:
        tokens.users = {"a": "1", "b": "2"}
        for login in ("a:1", "b:2", "a:1"):
            await client.digest(reference(fake), access(secret(**{fake.address: login})))
        assert len(tokens.requests) == 2


async def test_the_accesses_remembered_are_bounded(fake: FakeRegistry, client: Registry) -> None:
    """A cluster that rotates its secrets for years does not fill our memory."""
    fake.put_image(NAME, "1", [DATA])
    for number in range(100):
        await client.digest(reference(fake), Access(plain_http=(f"r{number}.io",)))
    assert len(client._views) == 64
