"""A server that answers for a registry, and what is assumed where no hosts.toml says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from yarl import URL

from imagecached.registry.access import NOTHING, Access
from imagecached.registry.addresses import is_loopback
from imagecached.registry.config import RegistryConfig

DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_SERVER: Final = "registry-1.docker.io"
_HTTPS_PORT: Final = 443

CAPABILITIES: Final = frozenset({"pull", "resolve"})

Source = Literal["registry", "mirror"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server of a registry. ``base`` is the API root, such as ``https://host:port/v2``.

    ``capabilities``: ``pull`` (by digest) and ``resolve`` (trusted to say which digest a tag has). ``client``
    pairs certificate and key files (None: the same file). ``header`` may hold secrets. ``namespace`` is the
    registry a mirror stands in for, sent as ``?ns=``; empty for the registry's own server.
    """

    base: URL
    capabilities: frozenset[str] = CAPABILITIES
    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    skip_verify: bool = False
    header: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dial_seconds: float | None = None
    namespace: str = ""
    configured: bool = False

    @property
    def host(self) -> str:
        """``host`` or ``host:port``, the port only where it was written."""
        return authority(self.base)

    @property
    def source(self) -> Source:
        """``registry`` or ``mirror``: what bytes from here are counted as."""
        return "mirror" if self.namespace else "registry"

    def url(self, repository: str, kind: str, target: str) -> URL:
        """Where a document or blob lies: ``<base>/<repository>/<kind>/<target>``."""
        url = self.base.joinpath(repository, kind, target, encoded=True)
        return url.with_query(ns=self.namespace) if self.namespace else url


def own_endpoint(registry: str, config: RegistryConfig, access: Access = NOTHING) -> Endpoint:
    """The registry's own server. What ``access`` names is not the operator's word: not ``configured``."""
    host = _DOCKER_HUB_SERVER if registry == DOCKER_HUB else registry
    plain = plain_by_default(host, config) or named_in(access.plain_http, host)
    insecure = named_in(config.insecure, host)
    named = insecure or named_in(config.plain_http, host)
    skip = insecure or named_in(access.insecure, host)
    return Endpoint(URL(f"{'http' if plain else 'https'}://{host}/v2"), skip_verify=skip, configured=named)


def plain_by_default(host: str, config: RegistryConfig) -> bool:
    """Is ``host[:port]`` spoken to without TLS unless hosts.toml tells otherwise? Loopback is."""
    if named_in(config.plain_http, host):
        return True
    url = URL(f"//{host}")
    return is_loopback(url.host or "") and url.explicit_port != _HTTPS_PORT


def same_origin(one: URL, other: URL) -> bool:
    """Same scheme, host and port? URLs themselves compare as different when one writes its default port."""
    return origin(one) == origin(other)


def origin(url: URL) -> tuple[str, str, int]:
    """What secrets belong to: scheme, host and port."""
    return url.scheme, (url.host or "").lower(), url.port or 0


def authority(url: URL) -> str:
    """``host`` or ``host:port`` as the URL has it; IPv6 addresses in brackets."""
    port = "" if url.explicit_port is None else f":{url.explicit_port}"
    return f"{url.host_subcomponent or ''}{port}"


def named_in(names: tuple[str, ...], host: str) -> bool:
    """Does a list of ``host`` and ``host:port`` name this one? A name without port stands for every port."""
    return any(name.lower() in (host.lower(), _without_port(host)) for name in names)


def _without_port(host: str) -> str:
    bracketed = host.rpartition("]")[0]
    return (f"{bracketed}]" if bracketed else host.partition(":")[0]).lower()
