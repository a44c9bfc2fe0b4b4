"""The door of this package: :class:`Registry`."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Final, Self

from aiohttp.abc import AbstractResolver

from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry.access import NOTHING, Access
from imagecached.registry.auth import Authorizer
from imagecached.registry.clock import Clock
from imagecached.registry.config import RegistryConfig
from imagecached.registry.credentials import Credentials
from imagecached.registry.exchange import Exchange
from imagecached.registry.fetch import BlobReader, WholeOnly
from imagecached.registry.proxies import Proxies
from imagecached.registry.ranged import Workers, read_ranged
from imagecached.registry.resolve import OnSource, Resolved, Resolver
from imagecached.registry.transport import Transport

_MOST_KEPT: Final = 64  # accesses whose tokens are remembered


@dataclass(frozen=True, slots=True)
class _View:
    """The registries as one access sees them: endpoints, tokens and resting mirrors of its own."""

    exchange: Exchange
    resolver: Resolver


class Registry:
    """Every registry there is, behind one HTTP session; an async context manager.

    With an ``access`` a call is made as somebody else: nothing of what was granted to one access is used for
    another.

    ``on_source(source, bytes)`` is called for bytes of bodies that were read, source ``registry`` or
    ``mirror``. ``clock``, ``environment`` (proxies) and ``resolver`` (names to addresses) are for tests.
    """

    def __init__(
        self,
        config: RegistryConfig,
        *,
        on_source: OnSource | None = None,
        clock: Clock | None = None,
        environment: Mapping[str, str] | None = None,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._config = config
        self._on_source: OnSource = _nobody if on_source is None else on_source
        self._clock = clock or Clock()
        proxies = Proxies.from_environment(os.environ if environment is None else environment)
        self._transport = Transport(config, proxies, resolver)
        self._credentials = Credentials(config.auth_files, config.helper_seconds)
        self._views: dict[Access, _View] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._transport)
            self._workers = await stack.enter_async_context(Workers())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def resolve(self, ref: Reference, platform: Platform, access: Access = NOTHING) -> Resolved:
        """The documents of the image that ``ref`` names for ``platform``, all checked by digest.

        NotFound, AccessDenied, Unavailable, Corrupt, Unsupported; InvalidInput for broken configuration
        files.
        """
        return await self._view(access).resolver.resolve(ref, platform)

    async def digest(self, ref: Reference, access: Access = NOTHING) -> Digest:
        """What ``ref`` names now, for one cheap request; errors as for :meth:`resolve`."""
        return await self._view(access).resolver.digest(ref)

    async def mirrored(self, ref: Reference, access: Access = NOTHING) -> bool:
        """Whether blobs of ``ref`` may come from elsewhere than its registry. InvalidInput: broken file."""
        return len(await self._view(access).exchange.endpoints(ref.registry, "pull")) > 1

    async def fetch(
        self,
        ref: Reference,
        blob: Descriptor,
        access: Access = NOTHING,
        *,
        mirrors: bool = True,
        start: int = 0,
    ) -> AsyncGenerator[bytes, None]:
        """The blob in order from byte ``start`` on, not checked by digest but never beyond ``blob.size``.

        Use it inside ``contextlib.aclosing``: closing ends every request under way. Without ``mirrors`` only
        the last server is asked, for when a mirror's bytes were wrong. Errors as for :meth:`resolve`.
        """
        exchange = self._view(access).exchange
        endpoints = await exchange.endpoints(ref.registry, "pull")
        servers = endpoints if mirrors else endpoints[-1:]
        reader = BlobReader(exchange, servers, ref.repository, blob, self._on_source)
        given = start
        ranged = self._config.ranged
        if not start and ranged.connections > 1 and blob.size >= ranged.threshold_bytes:
            try:
                async with aclosing(read_ranged(reader, ranged, self._workers)) as chunks:
                    async for data in chunks:
                        given += len(data)
                        yield data
            except WholeOnly:
                pass  # go on with one stream from here
        async with aclosing(reader.read(given, blob.size)) as chunks:
            async for data in chunks:
                yield data

    def _view(self, access: Access) -> _View:
        """That of ``access``; the one used longest ago makes room for a new one."""
        view = self._views.pop(access, None) or self._made(access)
        self._views[access] = view
        if len(self._views) > _MOST_KEPT:
            del self._views[next(iter(self._views))]
        return view

    def _made(self, access: Access) -> _View:
        authorizer = Authorizer(self._transport, self._credentials, self._clock, access)
        exchange = Exchange(self._transport, authorizer, self._config, self._clock, access)
        return _View(exchange, Resolver(exchange, self._on_source))


def _nobody(source: str, size: int) -> None:
    """Bytes that nobody counts."""
