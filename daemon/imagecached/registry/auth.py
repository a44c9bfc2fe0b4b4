"""From a challenge to an Authorization header (distribution: docs/spec/auth/token, oauth).

Tokens are kept per endpoint and repository until shortly before they expire, and asked for once even if many
requests need one at the same time. Tokens never enter logs, errors or ``repr``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import msgspec
from yarl import URL

from imagecached.errors import AccessDenied, Corrupt, InvalidInput, NotFound, Unsupported
from imagecached.registry.access import NOTHING, Access
from imagecached.registry.answers import redacted, refuse
from imagecached.registry.challenges import Challenge
from imagecached.registry.clock import Clock
from imagecached.registry.credentials import Credentials, Login, basic_auth
from imagecached.registry.endpoints import Endpoint, same_origin
from imagecached.registry.transport import Request, Transport

MAX_TOKEN_BYTES: Final = 1 << 20
_DEFAULT_SECONDS: Final = 60.0  # the specification's, where the server does not say
_MARGIN_SECONDS: Final = 10.0
_MOST_KEPT: Final = 1024
_SENDABLE: Final = re.compile(r"[\x21-\x7e]+")
_CLIENT_ID: Final = "imagecached"

_log = logging.getLogger(__name__)


class _Token(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


@dataclass(slots=True)
class _Grant:
    """What is known for one endpoint and repository; ``header`` is empty until a challenge was answered."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    header: str = field(default="", repr=False)
    expires: float = float("inf")
    challenge: Challenge | None = None


class Authorizer:
    """Answers challenges with the logins of ``access``, else with those of ``credentials``.

    One per access, so that no token is used for whoever did not bring the login that it was granted for.
    """

    def __init__(
        self, transport: Transport, credentials: Credentials, clock: Clock, access: Access = NOTHING
    ) -> None:
        self._transport = transport
        self._credentials = credentials
        self._access = access
        self._clock = clock
        self._grants: dict[tuple[URL, str], _Grant] = {}

    async def known(self, endpoint: Endpoint, repository: str) -> str:
        """The header to send unasked, renewed if it is about to expire; "" if nothing is known."""
        grant = self._grant(endpoint, repository)
        if grant.header and self._clock.monotonic() >= grant.expires:
            return await self._renewed(grant, endpoint, repository, grant.header)
        return grant.header

    def heard(self, endpoint: Endpoint, repository: str, challenges: Sequence[Challenge]) -> bool:
        """Take note of what a 401 or 403 asks for; False if nothing was asked, now or before."""
        grant = self._grant(endpoint, repository)
        grant.challenge = _choose(challenges, endpoint) or grant.challenge
        return grant.challenge is not None

    async def answer(self, endpoint: Endpoint, repository: str, rejected: str) -> str:
        """A header other than the ``rejected`` one, to what was :meth:`heard`."""
        return await self._renewed(self._grant(endpoint, repository), endpoint, repository, rejected)

    def _grant(self, endpoint: Endpoint, repository: str) -> _Grant:
        key = (endpoint.base, repository)
        if key not in self._grants and len(self._grants) >= _MOST_KEPT:
            del self._grants[next(iter(self._grants))]
        return self._grants.setdefault(key, _Grant())

    async def _renewed(self, grant: _Grant, endpoint: Endpoint, repository: str, rejected: str) -> str:
        async with grant.lock:
            if grant.header and grant.header != rejected:
                return grant.header  # someone else was quicker
            assert grant.challenge is not None
            login = self._access.login(endpoint.host, repository)
            login = login or await self._credentials.lookup(endpoint.host)
            grant.header = ""
            if grant.challenge.scheme == "basic":
                grant.header, grant.expires = _basic(endpoint, login), float("inf")
            elif login is not None and login.registry_token:
                grant.header, grant.expires = f"Bearer {login.registry_token}", float("inf")
            else:
                token, seconds = await self._token(grant.challenge, endpoint, repository, login)
                margin = min(_MARGIN_SECONDS, seconds / 10)
                grant.header, grant.expires = f"Bearer {token}", self._clock.monotonic() + seconds - margin
            return grant.header

    async def _token(
        self, challenge: Challenge, endpoint: Endpoint, repository: str, login: Login | None
    ) -> tuple[str, float]:
        request = _token_request(challenge, endpoint, repository, login)
        async with self._transport.send(request) as response:
            await _granted(response, self._clock, login.secret if login else "")
            raw = await _bounded(response)
        try:
            document = msgspec.json.decode(raw, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Corrupt(f"{redacted(request.url)} answered something that is no token") from None
        token = document.token or document.access_token or ""
        if not _SENDABLE.fullmatch(token):
            raise Corrupt(f"{redacted(request.url)} answered without a usable token")
        _log.debug("token granted", extra={"host": endpoint.host, "repository": repository})
        seconds = document.expires_in if document.expires_in and document.expires_in > 0 else _DEFAULT_SECONDS
        return token, seconds


def _choose(challenges: Sequence[Challenge], endpoint: Endpoint) -> Challenge | None:
    """Bearer before basic; None without any challenge. Unsupported names the schemes we do not know."""
    for scheme in ("bearer", "basic"):
        for challenge in challenges:
            if challenge.scheme == scheme:
                return challenge
    if challenges:
        schemes = ", ".join(sorted({challenge.scheme for challenge in challenges}))[:100]
        raise Unsupported(
            f"{endpoint.host} wants authentication by {schemes}; basic and bearer are supported"
        )
    return None


def _basic(endpoint: Endpoint, login: Login | None) -> str:
    if login is None or not login.username:
        raise AccessDenied(f"{endpoint.host} wants a name and a password, and none are configured")
    return basic_auth(login.username, login.password)


def _token_request(challenge: Challenge, endpoint: Endpoint, repository: str, login: Login | None) -> Request:
    """GET, anonymous or with basic credentials; POST with a refresh token."""
    realm = _realm(challenge, endpoint)
    scope = challenge.parameters.get("scope") or f"repository:{repository}:pull"
    service = challenge.parameters.get("service", "")
    own = endpoint.header if same_origin(realm, endpoint.base) else ()
    if login is not None and login.identity_token:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": login.identity_token,
            "service": service,
            "scope": scope,
            "client_id": _CLIENT_ID,
        }
        return Request(realm, endpoint, private=own, form=form, method="POST")
    query = {**({"service": service} if service else {}), "scope": scope}
    private = own
    if login is not None and login.username:
        private = (*own, ("Authorization", basic_auth(login.username, login.password)))
    return Request(realm.extend_query(query), endpoint, private=private)


def _realm(challenge: Challenge, endpoint: Endpoint) -> URL:
    try:
        realm = URL(challenge.parameters.get("realm", ""))
        port = realm.port
    except ValueError:
        realm, port = URL(), None
    if realm.scheme not in ("http", "https") or not realm.host or not port:
        raise Unsupported(f"{endpoint.host} names no usable realm to get a token from")
    return realm.with_fragment(None).with_user(None)


async def _granted(response: aiohttp.ClientResponse, clock: Clock, secret: str) -> None:
    """A token server that refuses denies access, whatever status it finds for that (400 for an old token)."""
    try:
        await refuse(response, clock, secret)
    except (InvalidInput, NotFound, Unsupported) as error:
        raise AccessDenied(str(error)) from error


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    raw = b""
    while data := await response.content.readany():
        raw += data
        if len(raw) > MAX_TOKEN_BYTES:
            raise Corrupt(f"{redacted(response.url)} answers a token request without end")
    return raw
