"""Asks registries what the images of a cache are, once for all nodes: digests, platforms, sizes.

Reads the Secrets that the cache names with the controller's own eyes, and says which of them are for pulling.
Registry errors become a :class:`Resolution`; errors of the API server are raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

from imagecached.errors import (
    AccessDenied,
    ImagecachedError,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from imagecached.imagecache import ImageCache, ImageStatus, SecretName
from imagecached.kube.controller.grants import pull_document
from imagecached.kube.controller.plan import Resolution
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Manifest
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.registry import Access, Resolved, access_of

GiB: Final = 1 << 30
_MOST_MESSAGE: Final = 500
_REASONS: Final[Mapping[str, str]] = {
    "invalid_input": "InvalidImage",
    "not_found": "ImageNotFound",
    "access_denied": "RegistryAccessDenied",
    "unavailable": "RegistryUnavailable",
    "corrupt": "RegistryAnswersWrong",
    "unsupported": "ImageUnsupported",
}
_FINAL: Final = (InvalidInput, NotFound, Unsupported)
"""Asking again would give the same answer."""

ReadSecret = Callable[[SecretName], Awaitable[Mapping[str, Any]]]


class Registries(Protocol):
    """What is asked of the registry client."""

    async def resolve(self, ref: Reference, platform: Platform, access: Access = ...) -> Resolved:
        """The image of ``ref`` for ``platform``."""

    async def digest(self, ref: Reference, access: Access = ...) -> Digest:
        """What ``ref`` names now."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What the named Secrets give: ``proven`` may be granted to nodes, ``problems`` are said to people."""

    access: Access
    proven: tuple[SecretName, ...] = ()
    problems: tuple[str, ...] = ()


async def read_keys(cache: ImageCache, read: ReadSecret) -> Keys:
    """The logins that a cache names. A Secret that is missing or broken is a problem, not an error."""
    documents: list[tuple[str, bytes]] = []
    proven: list[SecretName] = []
    problems: list[str] = []
    for secret in cache.pull_secrets:
        try:
            document = login_document(secret, await read(secret))
        except NotFound:
            problems.append(f"Secret {secret} does not exist")
        except (InvalidInput, AccessDenied) as error:
            problems.append(str(error)[:_MOST_MESSAGE])
        else:
            documents.append((f"Secret {secret}", document))
            proven.append(secret)
    access = access_of(documents, cache.options.plain_http, cache.options.insecure)
    return Keys(access, tuple(proven), tuple(problems))


def login_document(secret: SecretName, found: Mapping[str, Any]) -> bytes:
    """The docker config in a Secret that is for pulling and can be read. InvalidInput, quoting
    nothing of it.
    """
    document = pull_document(secret, found)
    access_of([(f"Secret {secret}", document)])
    return document


async def resolve(
    cache: ImageCache,
    build: str,
    platforms: Sequence[Platform],
    registries: Registries,
    keys: Keys,
    seconds: float,
) -> Resolution:
    """What the images of ``cache`` are now, for the ``platforms`` of its nodes, within ``seconds``."""
    images = []
    image = ""
    try:
        async with asyncio.timeout(seconds):
            for image in cache.images:
                images.append(await _image(image, platforms, registries, keys.access))
    except TimeoutError:
        return _refused(build, image, Unavailable(f"no answer within {seconds:g} s"), keys)
    except ImagecachedError as error:
        return _refused(build, image, error, keys)
    size = sum(each.bytes for each in images)
    if size > cache.size_gib * GiB:
        text = f"the images have at least {size} bytes, imageCacheSize allows {cache.size_gib} GiB"
        return Resolution(build, reason="ImagesTooLarge", message=text, final=True)
    return Resolution(build, tuple(images))


async def drifted(
    images: Sequence[ImageStatus], registries: Registries, keys: Keys, seconds: float
) -> list[str]:
    """The images, as written, whose tags name another digest now. Registries that do not answer
    say nothing.
    """
    moved = []
    for image in images:
        ref = Reference.parse(image.image)
        if ref.digest is None and image.digest is not None:
            with suppress(ImagecachedError, TimeoutError):
                async with asyncio.timeout(seconds):
                    if await registries.digest(ref, keys.access) != image.digest:
                        moved.append(image.image)
    return moved


async def _image(
    image: str, platforms: Sequence[Platform], registries: Registries, access: Access
) -> ImageStatus:
    """One image: pinned by the first answer, so that a tag that moves meanwhile cannot give two halves.

    Platforms that the image does not offer are left out, unless it offers none of them.
    """
    ref = Reference.parse(image)
    found: dict[Digest, Resolved] = {}
    missing: NotFound | None = None
    pinned = ref
    for platform in platforms:
        try:
            resolved = await registries.resolve(pinned, platform, access)
        except NotFound as error:
            missing = error
            continue
        pinned = ref.at(resolved.target.digest)
        found[resolved.manifest_digest] = resolved
    if not found:
        raise missing or Unavailable("no node is known yet, so no platform to ask for")
    size = max(_least_bytes(resolved.manifest) for resolved in found.values())
    return ImageStatus(image, pinned.digest, tuple(found), size)


def _least_bytes(manifest: Manifest) -> int:
    """What the layers have unpacked, at least: a manifest states only how many bytes are sent."""
    return sum(layer.size for layer in manifest.layers)


def _refused(build: str, image: str, error: ImagecachedError, keys: Keys) -> Resolution:
    said = "; ".join((f"{image}: {error}", *keys.problems))
    reason = _REASONS.get(error.kind, "ResolveFailed")
    if isinstance(error, AccessDenied) and keys.problems:
        reason = "PullSecretUnusable"
    return Resolution(build, reason=reason, message=said[:_MOST_MESSAGE], final=isinstance(error, _FINAL))
