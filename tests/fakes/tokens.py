"""The token server of a registry (distribution: docs/spec/auth/token and oauth), on a port of its own."""

from __future__ import annotations

import base64
import itertools
from collections import deque
from collections.abc import Callable
from typing import Self

from aiohttp import web

from tests.fakes.faults import Answer, Fault, plainly
from tests.fakes.registry import Asked, FakeRegistry


class FakeTokens:
    """Guards ``registry`` with bearer tokens. ``users`` and ``refresh_tokens`` say who may have one.

    Without users everybody may. :meth:`revoke` makes all tokens given out so far worthless.
    """

    def __init__(self, registry: FakeRegistry, *, service: str = "fake") -> None:
        self._registry = registry
        self._service = service
        self._numbers = itertools.count(1)
        self.users: dict[str, str] = {}
        self.refresh_tokens: set[str] = set()
        self.expires_in: float | None = 300
        self.script: deque[Fault] = deque()
        self.grants: Callable[[dict[str, str]], bool] = lambda query: True  # else the token allows nothing
        self.requests: list[Asked] = []
        self.forms: list[dict[str, str]] = []

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=0.01)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/token"
        self._registry.challenge = f'Bearer realm="{self.url}",service="{self._service}"'
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def revoke(self) -> None:
        """From now on only new tokens are good."""
        self._registry.authorizations.clear()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.title(): ", ".join(request.headers.getall(name)) for name in request.headers}
        self.requests.append(
            Asked(request.method, request.path, request.raw_path, dict(request.query), headers)
        )
        form = {name: str(value) for name, value in (await request.post()).items()}
        if form:
            self.forms.append(form)
        answer = self._token(dict(request.query)) if self._may(self.requests[-1], form) else Answer(401)
        fault = self.script.popleft() if self.script else plainly
        return await fault(request, answer)  # type: ignore[arg-type]  # a bare server's requests are BaseRequest

    def _may(self, asked: Asked, form: dict[str, str]) -> bool:
        if form:
            return form["grant_type"] == "refresh_token" and form["refresh_token"] in self.refresh_tokens
        if not self.users:
            return True
        logins = {base64.b64encode(f"{name}:{word}".encode()).decode() for name, word in self.users.items()}
        return asked.authorization.removeprefix("Basic ") in logins

    def _token(self, query: dict[str, str]) -> Answer:
        token = f"token-{next(self._numbers)}"
        if self.grants(query):
            self._registry.authorizations.add(f"Bearer {token}")
        expires = "" if self.expires_in is None else f', "expires_in": {self.expires_in}'
        return Answer(200, {"Content-Type": "application/json"}, f'{{"token": "{token}"{expires}}}'.encode())
