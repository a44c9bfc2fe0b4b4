"""Who we are to a registry: docker ``config.json`` files and credential helpers.

Owns the file format (docker/cli: cli/config) and the helper protocol (docker/docker-credential-helpers).
Files are read anew each time, so rotated secrets need no restart. Secrets never enter logs, errors or
``repr``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from imagecached import programs
from imagecached.aio import finish
from imagecached.errors import AccessDenied, InvalidInput

_MAX_BYTES: Final = 1 << 20
_DOCKER_HUB: Final = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})
_DOCKER_HUB_KEY: Final = "https://index.docker.io/v1/"
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_USER: Final = "<token>"  # noqa: S105  how helpers mark an identity token
_NOT_FOUND: Final = b"credentials not found"


@dataclass(frozen=True, slots=True)
class Login:
    """Name and password, or an OAuth2 refresh token (``identity_token``), or a bearer token ready to send."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def secret(self) -> str:
        """What must not show up anywhere."""
        return self.registry_token or self.identity_token or self.password


def basic_auth(username: str, password: str) -> str:
    """The header value of HTTP basic authentication (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


class Entry(msgspec.Struct):
    """One login as ``config.json`` has it."""

    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class _File(msgspec.Struct, rename="camel"):
    auths: dict[str, Entry] | None = None
    cred_helpers: dict[str, str] | None = None
    creds_store: str | None = None


class _Answer(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


class Credentials:
    """Logins from ``files`` in order; a helper that takes longer than ``helper_seconds`` is killed."""

    def __init__(self, files: Sequence[Path], helper_seconds: float) -> None:
        self._files = tuple(files)
        self._helper_seconds = helper_seconds

    async def lookup(self, host: str) -> Login | None:
        """The login for a registry host, None if nobody knows one.

        In a file, a helper named for the host comes before the common helper, and that before stored logins.
        InvalidInput: a broken file. AccessDenied: a helper failed.
        """
        for file in self._files:
            content = await finish(_read, file)
            login = await self._from_helper(content, host) or _stored(content, host, file)
            if login is not None:
                return login
        return None

    async def _from_helper(self, content: _File, host: str) -> Login | None:
        helpers = content.cred_helpers or {}
        name = next((helpers[key] for key in _keys(host) if key in helpers), content.creds_store or "")
        if not name:
            return None
        answer = await _ask_helper(name, _keys(host)[0], self._helper_seconds)
        if answer is None or not answer.secret:
            return None
        if answer.username == _TOKEN_USER:
            return Login(identity_token=answer.secret)
        return Login(answer.username, answer.secret)


def _keys(host: str) -> tuple[str, ...]:
    """The names a file may use for ``host``, the one that helpers expect first."""
    if host not in _DOCKER_HUB:
        return (host, f"https://{host}", host.removesuffix(":443"))
    return (_DOCKER_HUB_KEY, *sorted(_DOCKER_HUB))


def _read(file: Path) -> _File:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return _File()
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise InvalidInput(f"{file}: larger than {_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(content or b"{}", type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Without the cause: a decoder's message may quote what it read.
        raise InvalidInput(f"{file}: not a docker config.json ({type(error).__name__})") from None


def _stored(content: _File, host: str, file: Path) -> Login | None:
    entry = next(_entries(content, host), None)
    return None if entry is None else login_of(entry, file)


def login_of(entry: Entry, file: Path | str) -> Login | None:
    """What an entry says; None if it says nothing. InvalidInput names ``file``."""
    username, password = _decoded(entry, file) if entry.auth else (entry.username, entry.password)
    login = Login(username, password, entry.identitytoken, entry.registrytoken)
    return None if login == Login() else login


def _entries(content: _File, host: str) -> Iterator[Entry]:
    """Matching entries: exact names first, then names that are URLs of the host."""
    auths = content.auths or {}
    names = _DOCKER_HUB if host in _DOCKER_HUB else {host}
    yield from (auths[key] for key in _keys(host) if key in auths)
    yield from (entry for key, entry in auths.items() if _hostname(key) in names)


def _hostname(key: str) -> str:
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]


def _decoded(entry: Entry, file: Path | str) -> tuple[str, str]:
    try:
        text = base64.b64decode(entry.auth, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidInput(f"{file}: an auth is not base64 of name:password") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise InvalidInput(f"{file}: an auth is not base64 of name:password")
    return username, password.rstrip("\x00")


async def _ask_helper(name: str, server: str, seconds: float) -> _Answer | None:
    """Run ``docker-credential-<name> get``; None if it knows no login. AccessDenied without its output."""
    if not _HELPER_NAME.fullmatch(name):
        raise InvalidInput(f"not the name of a credential helper: {name[:80]!r}")
    program = f"docker-credential-{name}"
    status, output = await programs.ask(program, "get", seconds=seconds, request=f"{server}\n".encode())
    if status != 0:
        if _NOT_FOUND in output:
            return None
        raise AccessDenied(f"{program} failed with status {status}")
    try:
        return msgspec.json.decode(output, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise AccessDenied(f"{program} answered something that is no credential") from None
