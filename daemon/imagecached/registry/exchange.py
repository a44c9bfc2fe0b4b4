"""One authorised request to one server, and the order in which servers are asked.

A mirror gets one attempt, the last server as many as patience allows. A mirror that cannot be used is left
alone for a while, so that a dead one costs its time-out once and not once per layer.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from imagecached.aio import finish
from imagecached.errors import ImagecachedError, NotFound, Unavailable
from imagecached.registry.access import NOTHING, Access
from imagecached.registry.answers import redacted, refuse
from imagecached.registry.auth import Authorizer
from imagecached.registry.challenges import parse_challenges
from imagecached.registry.clock import Clock
from imagecached.registry.config import RegistryConfig
from imagecached.registry.endpoints import Endpoint, same_origin
from imagecached.registry.hosts import load_endpoints
from imagecached.registry.transport import Request, Transport

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Exchange:
    """Asks servers on behalf of the resolver and the blob reader."""

    def __init__(
        self,
        transport: Transport,
        authorizer: Authorizer,
        config: RegistryConfig,
        clock: Clock,
        access: Access = NOTHING,
    ) -> None:
        self._transport = transport
        self._authorizer = authorizer
        self._config = config
        self._access = access
        self._resting: dict[URL, float] = {}
        self.clock = clock
        self.patience = config.patience

    async def endpoints(self, registry: str, capability: str) -> tuple[Endpoint, ...]:
        """Servers of ``registry`` that may ``pull`` or ``resolve``, in order, without mirrors at rest.

        InvalidInput: broken hosts.toml. NotFound: no server may.
        """
        everyone = await finish(load_endpoints, registry, self._config, self._access)
        able = [endpoint for endpoint in everyone if capability in endpoint.capabilities]
        if not able:
            raise NotFound(f"no server configured for {registry} may {capability}")
        return self.awake(able)

    def awake(self, endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
        """Those that are not at rest; the last one always."""
        now = self.clock.monotonic()
        rested = [endpoint for endpoint in endpoints[:-1] if self._resting.get(endpoint.base, now) <= now]
        return (*rested, endpoints[-1])

    @asynccontextmanager
    async def get(
        self,
        endpoint: Endpoint,
        repository: str,
        path: tuple[str, str],
        headers: Mapping[str, str],
        *,
        method: str = "GET",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The successful answer for ``path`` (such as ``("blobs", digest)``); any other is raised.

        A refused token is renewed once: some servers say 403, not 401, when it has expired.
        """
        url = endpoint.url(repository, *path)
        authorization = await self._authorizer.known(endpoint, repository)
        for last in (False, True):
            request = Request(url, endpoint, headers, _private(endpoint, authorization), method=method)
            async with self._transport.send(request) as response:
                led_away = not same_origin(response.url, url)
                refused = {_UNAUTHORIZED, _FORBIDDEN} if authorization else {_UNAUTHORIZED}
                challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ()))
                again = not last and not led_away and response.status in refused
                if not again or not self._authorizer.heard(endpoint, repository, challenges):
                    await refuse(response, self.clock, authorization.partition(" ")[2], stored=led_away)
                    yield response
                    return
            # Outside the block: the token may come from the same server, where each request holds a place.
            authorization = await self._authorizer.answer(endpoint, repository, authorization)

    async def first(self, endpoints: Sequence[Endpoint], ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        """What the first able server answers; the last one's error if none does."""
        *mirrors, last = endpoints
        for mirror in mirrors:
            try:
                return await ask(mirror)
            except ImagecachedError as error:
                self.passed_over(mirror, error)
        failures = 0
        while True:
            try:
                return await ask(last)
            except Unavailable as error:
                failures += 1
                if failures >= self.patience.attempts:
                    raise
                await self.pause(error, failures - 1)

    async def pause(self, error: Unavailable, attempt: int) -> None:
        """Wait before the same server is asked again; raises ``error`` if that would take too long."""
        _log.info("trying again", extra={"error": str(error), "attempt": attempt + 1})
        await self.clock.wait(error, attempt, self.patience)

    def passed_over(self, endpoint: Endpoint, error: ImagecachedError) -> None:
        """Note that the next server is asked instead; one that is unavailable rests."""
        if isinstance(error, Unavailable) and endpoint.namespace:
            self._resting[endpoint.base] = self.clock.monotonic() + self.patience.mirror_rest_seconds
        facts = {"server": redacted(endpoint.base), "error": str(error), "kind": error.kind}
        _log.warning("asking the next server", extra=facts)

    async def body(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        """The body as it arrives. Unavailable when it is slower than patience allows; only waiting counts."""
        waited, received = 0.0, 0
        while True:
            began = self.clock.monotonic()
            data = await response.content.readany()
            if not data:
                return
            waited += self.clock.monotonic() - began
            received += len(data)
            if waited >= self.patience.read_seconds:
                if received < waited * self.patience.least_bytes_per_second:
                    raise Unavailable(
                        f"{redacted(response.url)}: {received} bytes in {waited:.0f} s are too slow"
                    )
                waited, received = 0.0, 0
            yield data


def _private(endpoint: Endpoint, authorization: str) -> tuple[tuple[str, str], ...]:
    """The endpoint's own headers; a token that was asked for replaces an Authorization configured there."""
    if not authorization:
        return endpoint.header
    others = tuple(pair for pair in endpoint.header if pair[0].lower() != "authorization")
    return (*others, ("Authorization", authorization))
