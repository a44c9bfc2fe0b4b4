"""Challenges, tokens, logins: who gets what, how often, and what happens when it expires."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagecached.errors import AccessDenied, Corrupt, ImagecachedError, Unavailable, Unsupported
from imagecached.oci.reference import Reference
from imagecached.registry import Registry
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry
from tests.fakes.time import FakeTime
from tests.fakes.tokens import FakeTokens
from tests.unit.registry.pulling import AMD64, NAME, blob, content, mirror, path, read, reference

DATA = content(3000)


@pytest.fixture(autouse=True)
def image(fake: FakeRegistry) -> None:
    """One image of one layer."""
    fake.put_image(NAME, "1", [DATA])


@pytest.fixture
async def tokens(fake: FakeRegistry) -> AsyncIterator[FakeTokens]:
    """A token server that guards the fake."""
    async with FakeTokens(fake) as served:
        yield served


def basic(username: str, password: str) -> str:
    """The header."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def login(tmp_path: Path, fake: FakeRegistry, **entry: str) -> None:
    """Store a login for the fake."""
    (tmp_path / "config.json").write_text(json.dumps({"auths": {fake.address: entry}}))


async def test_anonymous_token(fake: FakeRegistry, tokens: FakeTokens, client: Registry) -> None:
    """One challenge and one token for all requests to a repository, asked for by service and scope."""
    resolved = await client.resolve(reference(fake), AMD64)
    assert await read(client, reference(fake), resolved.manifest.layers[0]) == DATA
    (asked,) = tokens.requests
    assert asked.query == {"service": "fake", "scope": f"repository:{NAME}:pull"}
    assert asked.authorization == ""
    assert [each.authorization for each in fake.requests] == ["", *["Bearer token-1"] * 3]


async def test_scope_of_the_challenge(fake: FakeRegistry, tokens: FakeTokens, client: Registry) -> None:
    """What the server names is asked for, even if it is more; where it names none, we know what we need."""
    fake.states_scope = False
    fake.challenge += ',scope="repository:demo/app:pull,push"'
    await client.resolve(reference(fake), AMD64)
    assert tokens.requests[0].query["scope"] == "repository:demo/app:pull,push"
    fake.put_image("demo/two", "1", [DATA])
    fake.challenge = fake.challenge.partition(",scope=")[0]
    await client.resolve(Reference.parse(f"{fake.address}/demo/two:1"), AMD64)
    assert tokens.requests[1].query["scope"] == "repository:demo/two:pull"


async def test_token_with_basic_login(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry, tmp_path: Path
) -> None:
    """Name and password go to the token server and nowhere else."""
    tokens.users = {"me": "secret"}
    login(tmp_path, fake, username="me", password="secret")
    await client.resolve(reference(fake), AMD64)
    assert tokens.requests[0].authorization == basic("me", "secret")
    assert not any("Basic" in each.authorization for each in fake.requests)


async def test_identity_token(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry, tmp_path: Path
) -> None:
    """A refresh token is posted (OAuth2)."""
    tokens.refresh_tokens = {"refresh-me"}
    login(tmp_path, fake, identitytoken="refresh-me")
    await client.resolve(reference(fake), AMD64)
    assert tokens.forms == [
        {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-me",
            "service": "fake",
            "scope": f"repository:{NAME}:pull",
            "client_id": "imagecached",
        }
    ]


async def test_ready_token(fake: FakeRegistry, tokens: FakeTokens, client: Registry, tmp_path: Path) -> None:
    """A registry token is sent as it is."""
    fake.authorizations = {"Bearer ready"}
    login(tmp_path, fake, registrytoken="ready")
    await client.resolve(reference(fake), AMD64)
    assert tokens.requests == []


async def test_basic(fake: FakeRegistry, client: Registry, tmp_path: Path) -> None:
    """Registries without tokens get name and password."""
    fake.challenge = 'Basic realm="here"'
    fake.authorizations = {basic("me", "secret")}
    login(tmp_path, fake, auth=base64.b64encode(b"me:secret").decode())
    await client.resolve(reference(fake), AMD64)
    assert [each.authorization for each in fake.requests] == ["", *[basic("me", "secret")] * 2]


async def test_bearer_before_basic(fake: FakeRegistry, tokens: FakeTokens, client: Registry) -> None:
    """Whatever order they are offered in."""
    fake.challenge = f'Basic realm="x", {fake.challenge}'
    await client.resolve(reference(fake), AMD64)
    assert len(tokens.requests) == 1


async def test_basic_without_login(fake: FakeRegistry, client: Registry) -> None:
    """The message says that credentials are missing."""
    fake.challenge = 'Basic realm="here"'
    with pytest.raises(AccessDenied, match="wants a name and a password, and none are configured"):
        await client.resolve(reference(fake), AMD64)


async def test_rotated_password(fake: FakeRegistry, client: Registry, tmp_path: Path) -> None:
    """A login that was replaced in the file is found when the old one is refused."""
    fake.challenge = 'Basic realm="here"'
    fake.authorizations = {basic("me", "old")}
    login(tmp_path, fake, username="me", password="old")
    await client.resolve(reference(fake), AMD64)
    fake.authorizations = {basic("me", "new")}
    login(tmp_path, fake, username="me", password="new")
    await client.resolve(reference(fake), AMD64)


@pytest.mark.parametrize("status", [401, 403])
async def test_token_expires_in_the_middle(
    status: int, fake: FakeRegistry, tokens: FakeTokens, client: Registry
) -> None:
    """A token refused between two requests of one blob is renewed once; some registries say 403."""
    await client.resolve(reference(fake), AMD64)
    fake.script(path(DATA), faults.broken(after=1000))
    if status == 403:
        fake.script(path(DATA), faults.status(403, b'{"errors":[{"code":"DENIED"}]}'))
    else:
        fake.script(path(DATA), faults.status(401, WWW_Authenticate=fake.challenge))
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert len(tokens.requests) == 2
    assert fake.requests[-1].authorization == "Bearer token-2"


async def test_known_expiry(fake: FakeRegistry, tokens: FakeTokens, client: Registry, time: FakeTime) -> None:
    """A token about to expire is renewed without being refused first."""
    await client.resolve(reference(fake), AMD64)
    tokens.revoke()
    time.seconds += 295
    await client.resolve(reference(fake), AMD64)
    assert len(tokens.requests) == 2
    assert [each.authorization for each in fake.requests].count("") == 1


async def test_default_expiry(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry, time: FakeTime
) -> None:
    """Without a word of the server a token lives for the specification's 60 seconds."""
    tokens.expires_in = None
    await client.resolve(reference(fake), AMD64)
    time.seconds += 40
    await client.resolve(reference(fake), AMD64)
    assert len(tokens.requests) == 1
    time.seconds += 30
    await client.resolve(reference(fake), AMD64)
    assert len(tokens.requests) == 2


async def test_one_token_for_many(fake: FakeRegistry, tokens: FakeTokens, client: Registry) -> None:
    """Requests that are refused together ask for one token together."""
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(read(client, reference(fake), blob(DATA)))
    assert len(tokens.requests) == 1


async def test_more_requests_than_places(fake: FakeRegistry, client: Registry, tmp_path: Path) -> None:
    """A token from the registry's own server can be had while many requests wait for one."""
    fake.challenge = f'Bearer realm="{fake.url}/v2/token"'
    fake.authorizations = {"Bearer t", ""}
    fake.always("/v2/token", faults.status(200, b'{"token": "t"}'))
    fake.script(path(DATA), *[faults.status(401, WWW_Authenticate=fake.challenge)] * 20)
    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(read(client, reference(fake), blob(DATA)))


async def test_each_repository_has_its_token(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry
) -> None:
    """A token for one repository is never shown for another."""
    fake.put_image("demo/two", "1", [DATA])
    await client.resolve(reference(fake), AMD64)
    await client.resolve(Reference.parse(f"{fake.address}/demo/two:1"), AMD64)
    assert [each.query["scope"] for each in tokens.requests] == [
        "repository:demo/app:pull",
        "repository:demo/two:pull",
    ]
    assert {each.authorization for each in fake.asked("demo/two")} == {"", "Bearer token-2"}


async def test_refused_by_the_token_server(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry, tmp_path: Path
) -> None:
    """AccessDenied, without another try."""
    tokens.users = {"me": "right"}
    login(tmp_path, fake, username="me", password="hunter2")
    with pytest.raises(AccessDenied, match="/token: 401") as caught:
        await client.resolve(reference(fake), AMD64)
    assert "hunter2" not in str(caught.value)
    assert len(tokens.requests) == 1


async def test_refused_with_a_fresh_token(fake: FakeRegistry, tokens: FakeTokens, client: Registry) -> None:
    """A registry that refuses what it asked for is not asked for ever."""
    fake.always(
        f"/v2/{NAME}/manifests/1",
        faults.status(
            401, b'{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}', WWW_Authenticate=fake.challenge
        ),
    )
    with pytest.raises(AccessDenied, match="401 UNAUTHORIZED: no"):
        await client.resolve(reference(fake), AMD64)
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.html(), Corrupt),
        (faults.status(200, b'{"token": 1}'), Corrupt),
        (faults.status(200, b"{}"), Corrupt),
        (faults.status(200, b'{"token": "a\\r\\nX-Evil: 1"}'), Corrupt),
        (faults.status(200, b'{"token": "t\\u00f6ken"}'), Corrupt),
        (faults.endless(b'{"token": "'), Corrupt),
        (faults.status(400, b'{"error": "invalid_grant"}'), AccessDenied),
        (faults.status(404), AccessDenied),
    ],
)
async def test_bad_token_answers(
    fault: faults.Fault,
    kind: type[ImagecachedError],
    fake: FakeRegistry,
    tokens: FakeTokens,
    client: Registry,
) -> None:
    """What is no token is refused and never sent."""
    tokens.script.append(fault)
    with pytest.raises(kind):
        await client.resolve(reference(fake), AMD64)
    assert len(fake.requests) == 1


async def test_token_server_that_is_busy(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry, time: FakeTime
) -> None:
    """It is asked again after the time it wants."""
    tokens.script += [faults.status(429, Retry_After="7"), faults.status(503)]
    await client.resolve(reference(fake), AMD64)
    assert time.slept == [7, 2]


async def test_unknown_scheme(fake: FakeRegistry, client: Registry) -> None:
    """Refused by its name."""
    fake.challenge = "Negotiate"
    with pytest.raises(Unsupported, match="negotiate"):
        await client.resolve(reference(fake), AMD64)


async def test_no_challenge_at_all(fake: FakeRegistry, client: Registry) -> None:
    """A bare 401 is an answer like any other."""
    fake.always(f"/v2/{NAME}/manifests/1", faults.status(401))
    with pytest.raises(AccessDenied, match="401"):
        await client.resolve(reference(fake), AMD64)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("realm", ["", "token", "ftp://x/token", "http://", "http://[::1", "http://x:99999/"])
async def test_unusable_realm(realm: str, fake: FakeRegistry, client: Registry) -> None:
    """A realm must be a place to ask."""
    fake.challenge = f'Bearer realm="{realm}"'
    with pytest.raises(Unsupported, match="no usable realm"):
        await client.resolve(reference(fake), AMD64)


async def test_realm_on_a_metadata_service(fake: FakeRegistry, client: Registry, tmp_path: Path) -> None:
    """A registry cannot send us, or our password, to a link-local address."""
    login(tmp_path, fake, username="me", password="secret")
    fake.challenge = 'Bearer realm="http://169.254.169.254/latest"'
    with pytest.raises(AccessDenied, match="link-local address: refused"):
        await client.resolve(reference(fake), AMD64)


async def test_configured_headers(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry, tmp_path: Path
) -> None:
    """They are for the registry, not for its token server; a token replaces an Authorization among them."""
    mirror(tmp_path / "certs.d", fake)
    hosts = next((tmp_path / "certs.d").iterdir()) / "hosts.toml"
    hosts.write_text(hosts.read_text() + '[header]\nAuthorization = "Basic old"\nx-site = "1"\n')
    await client.resolve(reference(fake), AMD64)
    assert [each.authorization for each in fake.requests] == ["Basic old", *["Bearer token-1"] * 2]
    assert {each.headers["X-Site"] for each in fake.requests} == {"1"}
    assert "X-Site" not in tokens.requests[0].headers
    assert tokens.requests[0].authorization == ""


async def test_post_is_not_redirected_to_another_host(
    fake: FakeRegistry, tokens: FakeTokens, other: FakeRegistry, client: Registry, tmp_path: Path
) -> None:
    """A refresh token is posted where it was meant to go, or nowhere."""
    login(tmp_path, fake, identitytoken="refresh-me")
    tokens.refresh_tokens = {"refresh-me"}
    tokens.script.append(faults.redirect(f"{other.url}/steal"))
    with pytest.raises(AccessDenied, match="redirected"):
        await client.resolve(reference(fake), AMD64)
    assert other.requests == []


async def test_echoed_secrets(
    fake: FakeRegistry, tokens: FakeTokens, client: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that repeats what it was sent does not bring it into messages or logs."""
    caplog.set_level(logging.DEBUG)
    login(tmp_path, fake, username="me", password="hunter2")
    tokens.users = {"me": "hunter2"}
    fake.always(
        f"/v2/{NAME}/manifests/1", faults.status(503, b'{"errors":[{"code":"X","message":"got token-1!"}]}')
    )
    fake.script(f"/v2/{NAME}/manifests/1", faults.status(401, WWW_Authenticate=fake.challenge))
    with pytest.raises(Unavailable, match=r"503 X: got …!") as caught:
        await client.resolve(reference(fake), AMD64)
    shown = str(caught.value) + caplog.text + repr([record.__dict__ for record in caplog.records])
    assert "token-1" not in shown
    assert "hunter2" not in shown
