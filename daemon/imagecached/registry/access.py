"""What one caller may use beyond the node's own settings: logins, and registries spoken to without (verified)
TLS.

Owns the meaning of pull secrets, as the kubelet reads them (its pkg/credentialprovider): names may hold ``*``
within a part of the host and a path below it, the longest path wins. Helpers named in a secret are not run:
a secret is data. Invariants: a login is given out for the host it was stored for alone; an Access is a value,
so it can key what must not be shared; nothing secret enters logs, errors or ``repr``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from imagecached.errors import InvalidInput
from imagecached.registry.credentials import Entry, Login, login_of

SECRET_BYTES: Final = 1 << 20
_DOCKER_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")
_VERSIONS: Final = ("/v1", "/v2")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a login is for: ``host`` or ``host:port``, and the beginning of a repository or ""."""

    host: str
    path: str

    def covers(self, host: str, repository: str) -> bool:
        """Is ``repository`` on ``host`` such a place?"""
        below = not self.path or f"{repository}/".startswith(f"{self.path}/")
        return below and any(_fits(self.host, alias) for alias in _aliases(host))


@dataclass(frozen=True, slots=True)
class Access:
    """``logins``: the most fitting first. ``plain_http`` and ``insecure``: ``host`` or ``host:port``."""

    logins: tuple[tuple[Place, Login], ...] = field(default=(), repr=False)
    plain_http: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()

    def login(self, host: str, repository: str) -> Login | None:
        """The login for a repository on a host, None if there is none."""
        return next((login for place, login in self.logins if place.covers(host, repository)), None)


NOTHING: Final = Access()
"""The node's own settings and no more."""


def access_of(
    secrets: Iterable[tuple[str, bytes]], plain_http: Iterable[str] = (), insecure: Iterable[str] = ()
) -> Access:
    """An access with the logins of ``secrets``: (where it is from, docker ``config.json`` or ``.dockercfg``).

    InvalidInput names the secret that is broken and quotes nothing of it.
    """
    logins: dict[Place, Login] = {}
    for where, document in secrets:
        for place, login in _logins(where, document):
            logins.setdefault(place, login)
    ordered = sorted(logins.items(), key=lambda pair: _rank(pair[0]))
    return Access(tuple(ordered), tuple(sorted(set(plain_http))), tuple(sorted(set(insecure))))


class _File(msgspec.Struct):
    auths: dict[str, Entry] = {}


def _logins(where: str, document: bytes) -> Iterator[tuple[Place, Login]]:
    if len(document) > SECRET_BYTES:
        raise InvalidInput(f"{where}: larger than {SECRET_BYTES} bytes")
    for name, entry in _entries(where, document).items():
        login = login_of(entry, where)
        if login is not None:
            yield _place(name), login


def _entries(where: str, document: bytes) -> dict[str, Entry]:
    """The entries of either form: ``{"auths": {…}}``, or the older one without that level."""
    try:
        outer = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
        if "auths" in outer:
            return msgspec.json.decode(document, type=_File).auths
        return msgspec.json.decode(document, type=dict[str, Entry])
    except (ValueError, RecursionError) as error:
        # Without the cause: a decoder's message may quote what it read.
        raise InvalidInput(f"{where}: not a docker config.json ({type(error).__name__})") from None


def _place(name: str) -> Place:
    bare = name.partition("://")[2] or name
    host, _, path = bare.partition("/")
    path = f"/{path}".rstrip("/")
    for version in _VERSIONS:
        if path == version or path.startswith(f"{version}/"):
            path = path.removeprefix(version)
    return Place(host.lower(), path.strip("/"))


def _rank(place: Place) -> tuple[object, ...]:
    """The order in which places are tried: the longest path, then the name without ``*``."""
    return (-len(place.path), "*" in place.host, place.host, place.path)


def _aliases(host: str) -> tuple[str, ...]:
    host = host.lower()
    return _DOCKER_HUB if host in _DOCKER_HUB else (host, host.removesuffix(":443"))


def _fits(pattern: str, host: str) -> bool:
    """Part by part: ``*.example.org`` is one name below, the port must be the same."""
    if "*" not in pattern:
        return pattern == host
    wanted, given = pattern.split("."), host.split(".")
    return len(wanted) == len(given) and all(map(fnmatchcase, given, wanted))
