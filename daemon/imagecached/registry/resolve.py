"""From a reference to the documents of one image: index, manifest, config; every byte checked by digest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

import aiohttp

from imagecached.errors import Corrupt, InvalidInput, NotFound, Unsupported
from imagecached.oci.choice import candidates, nothing_for
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor, ImageConfig, Index, Manifest
from imagecached.oci.media_types import ACCEPT_MANIFESTS
from imagecached.oci.parse import MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, parse_config, parse_manifest
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry.answers import redacted
from imagecached.registry.endpoints import Endpoint, Source
from imagecached.registry.exchange import Exchange

_ACCEPT: Final = {"Accept": ACCEPT_MANIFESTS}
_DEEPEST: Final = 3  # indexes inside indexes
_MOST_LOOKS: Final = 64  # manifests to read before one fits
_CONTENT_DIGEST: Final = "Docker-Content-Digest"

OnSource = Callable[[Source, int], None]


@dataclass(frozen=True, slots=True)
class Resolved:
    """One image for one platform. ``target`` is what the reference names: the index if there is one.

    ``nested`` are further indexes on the way from ``index`` to ``manifest``; hardly any image has them.
    """

    target: Descriptor
    index: Index | None
    manifest: Manifest
    manifest_digest: Digest
    config: ImageConfig
    nested: tuple[Index, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    descriptor: Descriptor
    document: Manifest | Index


class Resolver:
    """Asks an :class:`Exchange`; ``on_source`` is told where bytes came from."""

    def __init__(self, exchange: Exchange, on_source: OnSource) -> None:
        self._exchange = exchange
        self._on_source = on_source

    async def digest(self, ref: Reference) -> Digest:
        """The digest that ``ref`` names now: one HEAD request, which registries do not count as a pull."""
        if ref.digest:
            return ref.digest
        endpoints = await self._exchange.endpoints(ref.registry, "resolve")

        async def ask(endpoint: Endpoint) -> Digest | None:
            path = ("manifests", ref.target)
            async with self._exchange.get(endpoint, ref.repository, path, _ACCEPT, method="HEAD") as response:
                return _stated_digest(response)

        try:
            stated = await self._exchange.first(endpoints, ask)
        except Unsupported:
            stated = None  # a server without HEAD
        return stated or (await self._named(ref)).descriptor.digest

    async def resolve(self, ref: Reference, platform: Platform) -> Resolved:
        """The image of ``ref`` for ``platform``.

        A manifest that is named directly is taken whatever its platform is, as containerd does.
        """
        found = await self._named(ref)
        if isinstance(found.document, Manifest):
            config = await self._config(ref, found.document)
            return Resolved(found.descriptor, None, found.document, found.descriptor.digest, config)
        fitting = await self._among(ref, platform, (found.document,), [0])
        if fitting is None:
            raise NotFound(f"{ref}: {nothing_for(found.document, platform)}")
        return replace(fitting, target=found.descriptor, index=found.document)

    async def _among(
        self, ref: Reference, platform: Platform, trail: tuple[Index, ...], looks: list[int]
    ) -> Resolved | None:
        """The best image in the last index of ``trail``; entries without platform are judged by config."""
        for entry in candidates(trail[-1], platform):
            looks[0] += 1
            if looks[0] > _MOST_LOOKS:
                raise Unsupported(
                    f"{ref}: more than {_MOST_LOOKS} manifests had to be read to find {platform}"
                )
            try:
                found = await self._entry(ref, entry)
            except Unsupported:
                if entry.platform is not None:
                    raise
                continue  # something attached to the image, such as a signature
            if isinstance(found.document, Index):
                if len(trail) >= _DEEPEST:
                    raise Unsupported(f"{ref}: indexes nested more than {_DEEPEST} deep")
                inner = await self._among(ref, platform, (*trail, found.document), looks)
                if inner is not None:
                    return inner
                continue
            config = await self._config(ref, found.document)
            if entry.platform is not None or platform.rank(config.platform) is not None:
                return Resolved(entry, None, found.document, entry.digest, config, trail[1:])
        return None

    async def _named(self, ref: Reference) -> _Found:
        """What the reference itself names; by tag only from servers that are trusted with tags."""
        endpoints = await self._exchange.endpoints(ref.registry, "pull" if ref.digest else "resolve")
        return await self._exchange.first(endpoints, lambda server: self._manifest(server, ref, None))

    async def _entry(self, ref: Reference, entry: Descriptor) -> _Found:
        endpoints = await self._exchange.endpoints(ref.registry, "pull")
        by_digest = ref.at(entry.digest)
        return await self._exchange.first(endpoints, lambda server: self._manifest(server, by_digest, entry))

    async def _manifest(self, endpoint: Endpoint, ref: Reference, entry: Descriptor | None) -> _Found:
        limit = MAX_MANIFEST_BYTES if entry is None else entry.size
        what = f"manifest {ref}"
        async with self._exchange.get(
            endpoint, ref.repository, ("manifests", ref.target), _ACCEPT
        ) as response:
            raw = await self._read(response, endpoint, what, min(limit, MAX_MANIFEST_BYTES))
            media_type = response.headers.get("Content-Type", "")
            digest = ref.digest or _stated_digest(response) or Digest.of(raw)
        digest.verify(raw, what)
        if entry is not None and len(raw) != entry.size:
            raise Corrupt(f"{what}: {len(raw)} bytes, its index says {entry.size}")
        document = parse_manifest(raw, media_type)
        return _Found(entry or Descriptor(document.media_type, digest, len(raw)), document)

    async def _config(self, ref: Reference, manifest: Manifest) -> ImageConfig:
        blob = manifest.config
        what = f"config {blob.digest} of {ref.name}"
        if blob.size > MAX_CONFIG_BYTES:
            raise Corrupt(f"{what} has {blob.size} bytes, at most {MAX_CONFIG_BYTES} are read")
        endpoints = await self._exchange.endpoints(ref.registry, "pull")

        async def ask(endpoint: Endpoint) -> bytes:
            async with self._exchange.get(endpoint, ref.repository, ("blobs", blob.digest), {}) as response:
                raw = await self._read(response, endpoint, what, blob.size)
            if len(raw) != blob.size:
                raise Corrupt(f"{what}: {len(raw)} bytes, its manifest says {blob.size}")
            return blob.digest.verify(raw, what)

        return parse_config(await self._exchange.first(endpoints, ask), manifest)

    async def _read(
        self, response: aiohttp.ClientResponse, endpoint: Endpoint, what: str, limit: int
    ) -> bytes:
        """The body, Corrupt if it exceeds ``limit`` bytes."""
        chunks, size = [], 0
        async with aclosing(self._exchange.body(response)) as body:
            async for data in body:
                chunks.append(data)
                size += len(data)
                if size > limit:
                    raise Corrupt(f"{what}: {redacted(response.url)} sends more than {limit} bytes")
        self._on_source(endpoint.source, size)
        return b"".join(chunks)


def _stated_digest(response: aiohttp.ClientResponse) -> Digest | None:
    """What the server says the digest is; None if it does not say, or nothing we can check."""
    try:
        return Digest.parse(response.headers.get(_CONTENT_DIGEST, ""))
    except InvalidInput:
        return None
