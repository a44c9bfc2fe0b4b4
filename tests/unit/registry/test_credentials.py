"""docker config.json and credential helpers; nothing secret is ever shown."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from imagecached.errors import AccessDenied, InvalidInput
from imagecached.registry.credentials import Credentials, Login


def auth(username: str, password: str) -> str:
    """As docker login stores it."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A config.json that does not exist yet."""
    return tmp_path / "config.json"


async def lookup(file: Path, content: dict[str, Any], host: str) -> Login | None:
    """The login that this content gives."""
    file.write_text(json.dumps(content))
    return await Credentials((file,), 10).lookup(host)


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("example.com", "example.com"),
        ("example.com:5000", "example.com:5000"),
        ("https://example.com", "example.com"),
        ("https://example.com/v2/", "example.com"),
        ("http://example.com:5000/some/path", "example.com:5000"),
        ("example.com", "example.com:443"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("docker.io", "registry-1.docker.io"),
        ("index.docker.io", "registry-1.docker.io"),
    ],
)
async def test_names_of_hosts(key: str, host: str, file: Path) -> None:
    """Keys are hosts or URLs, and Docker Hub has several names."""
    assert await lookup(file, {"auths": {key: {"auth": auth("me", "pass:word")}}}, host) == Login(
        "me", "pass:word"
    )


@pytest.mark.parametrize("host", ["example.com:5000", "other.com", "xexample.com", "com"])
async def test_other_hosts_get_nothing(host: str, file: Path) -> None:
    """A login is for its own host and port only."""
    content = {
        "auths": {"example.com": {"auth": auth("a", "b")}, "example.com:5001": {"auth": auth("a", "b")}}
    }
    assert await lookup(file, content, host) is None


async def test_exact_name_first(file: Path) -> None:
    """A key that is the host wins over one that is a URL on it."""
    content = {
        "auths": {
            "https://example.com/x/": {"auth": auth("u", "1")},
            "example.com": {"auth": auth("u", "2")},
        },
    }
    assert await lookup(file, content, "example.com") == Login("u", "2")


@pytest.mark.parametrize(
    ("entry", "login"),
    [
        ({"username": "u", "password": "p"}, Login("u", "p")),
        ({"auth": auth("u", "p\x00\x00")}, Login("u", "p")),
        ({"identitytoken": "t"}, Login(identity_token="t")),
        ({"auth": auth("u", ""), "identitytoken": "t"}, Login("u", "", "t")),
        ({"registrytoken": "t"}, Login(registry_token="t")),
        ({}, None),
        ({"email": "a@b"}, None),
    ],
)
async def test_entries(entry: dict[str, str], login: Login | None, file: Path) -> None:
    """Every way in which docker and kubectl store a login."""
    assert await lookup(file, {"auths": {"h": entry}}, "h") == login


async def test_files_in_order_and_read_anew(tmp_path: Path) -> None:
    """The first file that knows the host decides, as it is now; a missing one says nothing."""
    one, two = tmp_path / "one", tmp_path / "two"
    credentials = Credentials((one, two), 10)
    assert await credentials.lookup("h") is None
    two.write_text(json.dumps({"auths": {"h": {"auth": auth("two", "x")}}}))
    assert await credentials.lookup("h") == Login("two", "x")
    one.write_text(json.dumps({"auths": {"h": {"auth": auth("one", "x")}}}))
    assert await credentials.lookup("h") == Login("one", "x")


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        b"[]",
        b'{"auths": {"h": {"auth": "hunter2!"}}}',
        b'{"auths": {"h": {"auth": "aHVudGVyMg=="}}}',
        b'{"auths": {"h": {"auth": 1}}}',
        b'{"auths": {"h": {"identitytoken": ["hunter2"]}}}',
        b"[" * 100_000,
        b" " * (2 << 20),
    ],
)
async def test_broken_files(content: bytes, file: Path) -> None:
    """They are refused by name, and nothing of them is quoted."""
    file.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        await Credentials((file,), 10).lookup("h")
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


async def test_unreadable_file(tmp_path: Path) -> None:
    """A directory in its place is refused, not skipped."""
    with pytest.raises(InvalidInput, match="directory"):
        await Credentials((tmp_path,), 10).lookup("h")


def test_secrets_stay_out_of_repr() -> None:
    """However a login ends up in a log."""
    assert "s3cret" not in repr(Login("u", "s3cret", "s3cret", "s3cret"))
    assert Login("u", "p", "i", "r").secret == "r"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``docker-credential-test`` on the PATH; tests write its text."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "docker-credential-test"


def script(file: Path, text: str) -> None:
    """Make it a program."""
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


STORE = {"credsStore": "test", "auths": {"h": {"auth": auth("stored", "x")}}}


async def test_helper_is_asked_for_the_host(helper: Path, file: Path) -> None:
    """``get`` on the command line, the host on standard input, JSON on standard output."""
    script(
        helper, f"""echo "$@" > {file}.asked; cat >> {file}.asked; echo '{{"Username":"u","Secret":"p"}}'"""
    )
    assert await lookup(file, STORE, "h") == Login("u", "p")
    assert Path(f"{file}.asked").read_text() == "get\nh\n"
    assert await lookup(file, STORE, "registry-1.docker.io") == Login("u", "p")
    assert Path(f"{file}.asked").read_text() == "get\nhttps://index.docker.io/v1/\n"


async def test_helper_for_one_host_before_the_common_one(helper: Path, file: Path) -> None:
    """credHelpers before credsStore; other hosts use the common one."""
    script(helper, """echo '{"Username":"own","Secret":"p"}'""")
    content = {"credsStore": "missing", "credHelpers": {"h": "test"}}
    assert await lookup(file, content, "h") == Login("own", "p")
    with pytest.raises(AccessDenied, match="docker-credential-missing cannot be run"):
        await lookup(file, content, "other")


async def test_helper_gives_an_identity_token(helper: Path, file: Path) -> None:
    """The user name ``<token>`` marks one."""
    script(helper, """echo '{"Username":"<token>","Secret":"t"}'""")
    assert await lookup(file, STORE, "h") == Login(identity_token="t")


async def test_helper_that_knows_nothing(helper: Path, file: Path) -> None:
    """Then the file's own logins count."""
    script(helper, "echo credentials not found in native keychain; exit 1")
    assert await lookup(file, STORE, "h") == Login("stored", "x")
    script(helper, """echo '{"Username":"","Secret":""}'""")
    assert await lookup(file, STORE, "h") == Login("stored", "x")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("echo hunter2; echo hunter2 >&2; exit 3", "failed with status 3"),
        ("echo hunter2", "no credential"),
        ("exec 0<&-; exec yes hunter2", "without end"),
        ("kill -9 $$", "failed with status -9"),
    ],
)
async def test_helper_that_fails(text: str, complaint: str, helper: Path, file: Path) -> None:
    """AccessDenied names the helper and the failure, and quotes nothing."""
    script(helper, text)
    with pytest.raises(AccessDenied, match=f"docker-credential-test.*{complaint}") as caught:
        await lookup(file, STORE, "h")
    assert "hunter2" not in str(caught.value)


async def test_helper_that_hangs_is_killed(helper: Path, file: Path) -> None:
    """It is gone when the answer is given."""
    script(helper, f"echo $$ > {file}.pid; exec sleep 60")
    file.write_text(json.dumps(STORE))
    with pytest.raises(AccessDenied, match=r"did not answer within 0.5 s"):
        await Credentials((file,), 0.5).lookup("h")
    pid = int(Path(f"{file}.pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("name", ["../evil", "a b", "-x", "a/b"])
async def test_helper_names(name: str, file: Path) -> None:
    """A name is no path and no option."""
    with pytest.raises(InvalidInput, match="not the name"):
        await lookup(file, {"credsStore": name}, "h")
