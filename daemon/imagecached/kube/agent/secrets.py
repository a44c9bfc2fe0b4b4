"""Pull Secrets: exactly the named ones, by get, when a build needs them.

Owns the logins that builds were given, in memory. The controller grants this node each Secret by name, and
that takes a moment: a refusal is tried again soon at first, then slowly. After some refusals the build counts
as failed, with the reason, until a try succeeds. Nothing of a Secret enters a message or a log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from imagecached.aio import Bell
from imagecached.errors import AccessDenied, ImagecachedError, InvalidInput, NotFound
from imagecached.imagecache import ImageCache, SecretName
from imagecached.kube.client import Cluster, kinds
from imagecached.registry import Access, access_of

log = logging.getLogger(__name__)

_KEYS: Final = (".dockerconfigjson", ".dockercfg")
_MOST_BYTES: Final = 1 << 20
_AT_ONCE: Final = 4
_FIRST_SECONDS: Final = 2.0
_MOST_SECONDS: Final = 300.0
_FINAL_AFTER: Final = 5  # refusals, about a minute; an API server that does not answer is no refusal

Build = tuple[str, int]  # uid, generation


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a build has no logins yet. ``final``: long enough to say that it failed."""

    reason: str
    message: str
    final: bool


class Logins:
    """The access of each build; :meth:`run` asks for what :meth:`want` says."""

    def __init__(self, cluster: Cluster, on_news: Callable[[], None]) -> None:
        self._cluster, self._on_news = cluster, on_news
        self._bell = Bell()
        self._wanted: dict[Build, ImageCache] = {}
        self._known: dict[Build, Access] = {}
        self._refused: dict[Build, Refusal] = {}
        self._tries: dict[Build, tuple[int, float]] = {}  # refusals so far, when to try again
        self._stale: set[Build] = set()
        self._busy: set[Build] = set()

    def want(self, builds: Mapping[Build, ImageCache]) -> None:
        """The complete set of builds that need logins; of others nothing is remembered."""
        self._wanted = dict(builds)
        for memory in (self._known, self._refused, self._tries):
            for build in [build for build in memory if build not in builds]:
                del memory[build]
        self._stale &= builds.keys()
        if any(build not in self._known and build not in self._tries for build in builds):
            self._bell.ring()

    def wants(self, build: Build) -> bool:
        """Does this build need logins?"""
        return build in self._wanted

    def access(self, build: Build) -> Access | None:
        """The logins of a build; None while they are not here."""
        return self._known.get(build)

    def refusal(self, build: Build) -> Refusal | None:
        """Why not."""
        return self._refused.get(build)

    def renew(self, build: Build) -> None:
        """Ask anew, in a while: a registry has refused what we had, and the Secret may be mended since."""
        if build in self._known and build not in self._stale:
            pace = self._cluster.pace
            self._stale.add(build)
            self._tries[build] = 0, pace.monotonic() + pace.drawn(pace.denied)
            self._bell.ring()

    async def run(self) -> None:
        """Ask for what is wanted, some at once, for ever."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(self._work(), name="pull secrets")

    async def _work(self) -> None:
        pace = self._cluster.pace
        while True:
            now = pace.monotonic()
            waits = ((self._tries.get(build, (0, now))[1] - now, build) for build in self._missing())
            wait, build = min(waits, default=(0.0, None))
            if build is None:
                await self._bell.wait()
            elif wait > 0:
                await pace.within(wait, self._bell.wait)
            else:
                await self._try(build)

    def _missing(self) -> list[Build]:
        """What nobody asks for at present."""
        lacking = (build for build in self._wanted if build not in self._known or build in self._stale)
        return [build for build in lacking if build not in self._busy]

    async def _try(self, build: Build) -> None:
        self._busy.add(build)
        try:
            access = await read_access(self._cluster, self._wanted[build])
        except ImagecachedError as error:
            self._refuse(build, error)
        else:
            if build in self._wanted:
                self._known[build] = access
                self._stale.discard(build)
                self._refused.pop(build, None)
                self._tries.pop(build, None)
        finally:
            self._busy.discard(build)
        if build not in self._wanted:  # withdrawn meanwhile
            self._tries.pop(build, None)
            self._refused.pop(build, None)
        self._on_news()

    def _refuse(self, build: Build, error: ImagecachedError) -> None:
        count, pace = self._tries.get(build, (0, 0.0))[0], self._cluster.pace
        refused = isinstance(error, (AccessDenied, NotFound, InvalidInput))
        count += refused
        wait = min(_MOST_SECONDS, _FIRST_SECONDS * 2**count)
        self._tries[build] = count, pace.monotonic() + pace.drawn(wait)
        if refused:
            self._refused[build] = Refusal(_reason(error), str(error), count >= _FINAL_AFTER)
        if count == 1:
            log.warning("pull secret refused", extra={"uid": build[0], "error": str(error)})


async def read_access(cluster: Cluster, cache: ImageCache) -> Access:
    """What ``cache`` may use. NotFound, AccessDenied: the named Secret is not there, or not for us.

    InvalidInput: it holds no logins.
    """
    options = cache.options
    secrets = [(f"Secret {name}", await _login(cluster, name)) for name in cache.pull_secrets]
    return access_of(secrets, options.plain_http, options.insecure)


async def _login(cluster: Cluster, name: SecretName) -> bytes:
    what = f"Secret {name}"
    try:
        secret = await cluster.get(kinds.SECRETS, name.name, namespace=name.namespace)
    except NotFound as error:
        raise NotFound(f"{what} does not exist") from error
    except AccessDenied as error:
        raise AccessDenied(f"{what} is not granted to this node") from error
    return _decoded(what, secret)


def _decoded(what: str, secret: Mapping[str, Any]) -> bytes:
    data = secret.get("data")
    for text in _texts(data, _KEYS):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput(f"{what}: its data is not base64") from None
    raise InvalidInput(f"{what}: holds neither {' nor '.join(_KEYS)}")


def _texts(data: Any, keys: Iterable[str]) -> list[str]:
    found = [data.get(key) for key in keys] if isinstance(data, Mapping) else []
    return [text for text in found if isinstance(text, str) and len(text) <= 2 * _MOST_BYTES]


def _reason(error: ImagecachedError) -> str:
    kinds_of = {NotFound: "SecretNotFound", AccessDenied: "SecretDenied"}
    return kinds_of.get(type(error), "SecretMalformed")
