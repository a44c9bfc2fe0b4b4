"""``hosts.toml`` in containerd's certs.d layout (its docs/hosts.md): which servers to ask for a registry.

Order is the file's, the server last. A broken file is refused with its path and key and never skipped:
without a mirror that was meant to be private, a public registry would learn what is pulled. Keys we do not
know are ignored, since the same files serve containerd, whose newer versions know more.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import normpath
from typing import Any, Final

from yarl import URL

from imagecached.errors import InvalidInput
from imagecached.registry.access import NOTHING, Access
from imagecached.registry.config import RegistryConfig
from imagecached.registry.endpoints import CAPABILITIES, Endpoint, named_in, own_endpoint

HOSTS_FILE: Final = "hosts.toml"
_MAX_FILE_BYTES: Final = 1 << 20
_KNOWN_CAPABILITIES: Final = CAPABILITIES | {"push", "referrers"}
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+|0")
_DURATION_PART: Final = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h)")
_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def load_endpoints(registry: str, config: RegistryConfig, access: Access = NOTHING) -> tuple[Endpoint, ...]:
    """The servers of ``registry`` in the order to ask them. Reads files; InvalidInput names file and key."""
    own = own_endpoint(registry, config, access)
    directory = _directory(registry, config.certs_dirs)
    if directory is None:
        return (own,)
    try:
        text = _text(directory / HOSTS_FILE)
        if not text.strip():
            return (_with_docker_certificates(own, directory),)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{directory}: {error}") from error
    return parse_hosts(text, directory / HOSTS_FILE, registry, config, access)


def parse_hosts(
    text: str, file: Path, registry: str, config: RegistryConfig, access: Access = NOTHING
) -> tuple[Endpoint, ...]:
    """The endpoints that ``text``, the content of ``file``, gives for ``registry``. Pure; InvalidInput."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"{file}: {error}") from error
    own = own_endpoint(registry, config, access)
    root = _Table(file, "", document)
    endpoints = [
        _endpoint(_Table(file, f'host."{server}".', table), server, own)
        for server, table in root.tables("host").items()
    ]
    endpoints.append(_endpoint(root, root.text("server"), own))
    return tuple(
        _finished(endpoint, own, registry, (*config.insecure, *access.insecure)) for endpoint in endpoints
    )


def _directory(registry: str, roots: tuple[Path, ...]) -> Path | None:
    """The first of ``host_port_``, ``host`` and ``_default`` that exists; an earlier root wins as a whole."""
    host, colon, port = registry.rpartition(":")
    names = [f"{host}_{port}_"] if colon and port.isdecimal() else []
    for root in roots:
        for name in (*names, registry, "_default"):
            if (root / name).is_dir():
                return root / name
    return None


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return ""
    if len(content) > _MAX_FILE_BYTES:
        raise InvalidInput(f"{file}: larger than {_MAX_FILE_BYTES} bytes")
    return content.decode()


def _with_docker_certificates(own: Endpoint, directory: Path) -> Endpoint:
    """Docker's older layout: ``*.crt`` are authorities, ``*.cert`` with ``*.key`` are client certificates."""
    files = sorted(directory.iterdir())
    pairs = [(file, file.with_suffix(".key")) for file in files if file.suffix == ".cert"]
    return replace(
        own,
        ca=tuple(file for file in files if file.suffix == ".crt"),
        client=tuple((file, key if key.is_file() else None) for file, key in pairs),
    )


def _endpoint(table: _Table, server: str, own: Endpoint) -> Endpoint:
    """One table as an endpoint; without a server it is the registry's own, which may do everything."""
    capabilities = table.capabilities() if server else CAPABILITIES
    return Endpoint(
        base=_base(table, server) if server else own.base,
        capabilities=capabilities,
        ca=tuple(table.path(file) for file in table.texts("ca")),
        client=table.client(),
        skip_verify=table.flag("skip_verify"),
        header=table.header(),
        dial_seconds=table.seconds("dial_timeout"),
        configured=bool(server) or own.configured,
    )


def _base(table: _Table, server: str) -> URL:
    text = server if "://" in server else f"https://{server}"
    try:
        url = URL(text)
        port = url.port
    except ValueError as error:
        raise table.wrong("server", f"not a URL: {server!r}") from error
    if (
        url.scheme not in ("http", "https")
        or not url.host
        or not port
        or url.user
        or url.query
        or url.fragment
    ):
        raise table.wrong("server", "must be http(s)://host[:port][/path]")  # its text may hold a password
    path = "" if url.raw_path == "/" else normpath(url.raw_path)
    if not table.flag("override_path") and not path.endswith("/v2"):
        path += "/v2"
    return url.origin().joinpath(path.lstrip("/"), encoded=True) if path else url.origin()


def _finished(endpoint: Endpoint, own: Endpoint, registry: str, insecure: tuple[str, ...]) -> Endpoint:
    return replace(
        endpoint,
        namespace=registry if endpoint.host != own.host else "",
        skip_verify=endpoint.skip_verify or named_in(insecure, endpoint.host),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A TOML table with typed access; every complaint names file and key."""

    file: Path
    prefix: str
    content: Mapping[str, Any]

    def wrong(self, key: str, reason: str) -> InvalidInput:
        return InvalidInput(f"{self.file}: {self.prefix}{key}: {reason}")

    def text(self, key: str) -> str:
        value = self.content.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(key, "must be a string")
        return value

    def flag(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """One string or a list of strings."""
        value = self.content.get(key, [])
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise self.wrong(key, "must be a string or a list of strings")
        return tuple(values)

    def tables(self, key: str) -> Mapping[str, Mapping[str, Any]]:
        value = self.content.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(each, dict) for each in value.values()):
            raise self.wrong(key, 'must be tables such as [host."https://mirror.example"]')
        return value

    def path(self, text: str) -> Path:
        """Relative paths start at the directory of the file."""
        return self.file.parent / text

    def capabilities(self) -> frozenset[str]:
        named = frozenset(text.lower() for text in self.texts("capabilities"))
        if named - _KNOWN_CAPABILITIES:
            raise self.wrong("capabilities", f"unknown: {', '.join(sorted(named - _KNOWN_CAPABILITIES))}")
        return named & CAPABILITIES if named else CAPABILITIES

    def client(self) -> tuple[tuple[Path, Path | None], ...]:
        """A file with certificate and key, a list of such files, or a list of pairs."""
        value = self.content.get("client", [])
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list):
            raise self.wrong("client", "must be a string, a list of strings or a list of pairs")
        return tuple(self._pair(entry) for entry in entries)

    def _pair(self, entry: object) -> tuple[Path, Path | None]:
        match entry:
            case str(both):
                return self.path(both), None
            case [str(certificate), str(key)]:
                return self.path(certificate), self.path(key)
        raise self.wrong(
            "client", 'must be a string, a list of strings or a list of pairs ["certificate", "key"]'
        )

    def header(self) -> tuple[tuple[str, str], ...]:
        value = self.content.get("header", {})
        if not isinstance(value, dict):
            raise self.wrong("header", "must be a table")
        table = _Table(self.file, f"{self.prefix}header.", value)
        pairs = [(name, text) for name in value for text in table.texts(name)]
        for name, text in pairs:
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(text):
                raise table.wrong(name, "not a header that can be sent")
        return tuple(pairs)

    def seconds(self, key: str) -> float | None:
        """A duration as Go writes it (``1m30s``); None if there is none."""
        text = self.text(key)
        if not text:
            return None
        if not _DURATION.fullmatch(text):
            raise self.wrong(key, f"not a duration such as 5s or 500ms: {text!r}")
        total = sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
        return total or None
