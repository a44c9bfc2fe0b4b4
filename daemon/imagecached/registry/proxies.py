"""The proxy environment as Go reads it (golang.org/x/net/http/httpproxy): one setting serves containerd too.

Not aiohttp's ``trust_env``: that knows no networks in NO_PROXY, which node configurations use
(``10.0.0.0/8``), and would also send passwords of ``~/.netrc`` to any host that happens to match, redirects
included.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from yarl import URL

from imagecached.errors import InvalidInput
from imagecached.registry.addresses import is_loopback


@dataclass(frozen=True, slots=True)
class Proxies:
    """``http`` and ``https``: the proxy for that scheme; may hold a password."""

    http: URL | None = field(default=None, repr=False)
    https: URL | None = field(default=None, repr=False)
    exceptions: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Proxies:
        """HTTP_PROXY, HTTPS_PROXY and NO_PROXY, upper case first; InvalidInput for what is no proxy URL."""
        exceptions = _either(environment, "NO_PROXY").replace(",", " ").split()
        return cls(
            http=_proxy(environment, "HTTP_PROXY"),
            https=_proxy(environment, "HTTPS_PROXY"),
            exceptions=tuple(exception.lower() for exception in exceptions),
        )

    def of(self, url: URL) -> URL | None:
        """The proxy to reach ``url`` through, None for a direct connection."""
        proxy = self.https if url.scheme == "https" else self.http
        host = (url.host or "").lower()
        if proxy is None or is_loopback(host):
            return None
        if any(_matches(exception, host, url.port or 0) for exception in self.exceptions):
            return None
        return proxy


def _either(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _proxy(environment: Mapping[str, str], name: str) -> URL | None:
    text = _either(environment, name)
    if not text:
        return None
    try:
        url = URL(text if "://" in text else f"http://{text}")
        port = url.port
    except ValueError:
        port, url = None, URL()
    if url.scheme not in ("http", "https") or not url.host or not port:
        raise InvalidInput(f"{name} must be an http:// or https:// URL of a proxy")  # not its text: passwords
    return url.origin().with_user(url.user).with_password(url.password)


def _matches(exception: str, host: str, port: int) -> bool:
    if exception == "*":
        return True
    network = _network(exception)
    if network is not None:
        return _in(host, network)
    name, colon, only_port = exception.rpartition(":")
    if colon and only_port.isdecimal():
        exception = name
        if int(only_port) != port:
            return False
    exception = exception.strip("[]").removeprefix("*")
    if exception.startswith("."):
        return host.endswith(exception)
    return host == exception or host.endswith(f".{exception}")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _in(host: str, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
