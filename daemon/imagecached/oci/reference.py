"""References by the distribution grammar (github.com/distribution/reference).

    reference = name [":" tag] ["@" digest]      name = [domain "/"] path

Owns the grammar and Docker Hub's shorthands; knows nothing of networks. Invariant:
``Reference.parse(str(ref)) == ref``, and two spellings of one image give one canonical text.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from imagecached.errors import InvalidInput
from imagecached.oci.digest import Digest

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
MAX_REPOSITORY: Final = 255
MAX_DOMAIN: Final = 261  # a DNS name, a colon and a port, with room for the brackets of IPv6
_MAX_TEXT: Final = 1024
_MAX_PORT: Final = 65535
_LEGACY_REGISTRY: Final = "index.docker.io"
_OFFICIAL: Final = "library/"

_LABEL: Final = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[a-fA-F0-9:]+)\])(?::(?P<port>[0-9]+))?")
_COMPONENT: Final = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_DIGEST: Final = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """Which image: ``registry`` is ``host[:port]``, ``repository`` the path in it.

    There is a ``tag``, a ``digest`` or both, and then the digest wins. Construct through :meth:`parse`.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference written as ``text``, Docker Hub's shorthands expanded. InvalidInput."""
        if len(text) > _MAX_TEXT:
            raise InvalidInput(f"reference longer than {_MAX_TEXT} characters: {text[:60]!r}…")
        if _BARE_DIGEST.fullmatch(text):
            raise InvalidInput(f"a bare digest names no image, write repository@sha256:…: {text!r}")
        name, at, digest_text = text.partition("@")
        registry, remainder = _split_registry(name)
        repository, colon, tag = remainder.partition(":")
        _check_registry(registry, text)
        _check_repository(repository, text)
        if colon and not _TAG.fullmatch(tag):
            raise InvalidInput(f"not a tag: {tag[:150]!r} in {text!r}")
        digest = Digest.parse(digest_text) if at else None
        return cls(registry, repository, tag if colon else None if digest else DEFAULT_TAG, digest)

    @property
    def name(self) -> str:
        """``registry/repository``."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The short spelling people type: ``nginx:latest`` for ``docker.io/library/nginx:latest``."""
        if self.registry != DEFAULT_REGISTRY:
            return str(self)
        short = self.repository.removeprefix(_OFFICIAL)
        if "/" not in short:
            return f"{short}{self._suffix()}"
        first = self.repository.partition("/")[0]
        return str(self) if _is_registry(first) else f"{self.repository}{self._suffix()}"

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest if there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def at(self, digest: Digest) -> Reference:
        """The same repository by digest alone."""
        return Reference(self.registry, self.repository, None, digest)

    def __str__(self) -> str:
        return f"{self.name}{self._suffix()}"

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def _split_registry(name: str) -> tuple[str, str]:
    """Registry and the rest (path and tag), with Docker Hub's defaults filled in."""
    first, slash, rest = name.partition("/")
    if not slash or not _is_registry(first):
        registry, rest = DEFAULT_REGISTRY, name
    elif first == _LEGACY_REGISTRY:
        registry = DEFAULT_REGISTRY
    else:
        registry = first
    if registry == DEFAULT_REGISTRY and "/" not in rest:
        rest = f"{_OFFICIAL}{rest}"
    return registry, rest


def _is_registry(first: str) -> bool:
    """Is the part before the first slash a host? Paths are lower case and hold no colon."""
    return first == "localhost" or "." in first or ":" in first or first != first.lower()


def _check_registry(registry: str, text: str) -> None:
    match = _DOMAIN.fullmatch(registry)
    if match is None or len(registry) > MAX_DOMAIN:
        raise InvalidInput(f"not a registry host: {registry[:150]!r} in {text!r}")
    if match["port"] and not 0 < int(match["port"]) <= _MAX_PORT:
        raise InvalidInput(f"no such port: {registry!r}")
    if match["ipv6"]:
        try:
            ipaddress.IPv6Address(match["ipv6"])
        except ValueError:
            raise InvalidInput(f"not an IPv6 address: {registry!r}") from None


def _check_repository(repository: str, text: str) -> None:
    if len(repository) > MAX_REPOSITORY:
        raise InvalidInput(f"repository longer than {MAX_REPOSITORY} characters: {text[:60]!r}…")
    if repository != repository.lower():
        raise InvalidInput(f"repository must be lower case: {text!r}")
    if not _PATH.fullmatch(repository):
        raise InvalidInput(f"not a repository: {repository!r} in {text!r}")
