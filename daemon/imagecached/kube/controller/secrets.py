"""Lets the node daemons read the pull Secrets that caches name, and takes it back: carries out :mod:`grants`.

Invariant: nothing is remembered across leaders. What stands in the cluster is read at the beginning, and now
and then, and brought in line; else only namespaces that a cache names, or named, are looked at.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Final

from imagecached.errors import AccessDenied, InvalidInput, NotFound
from imagecached.imagecache import ImageCache, SecretName
from imagecached.kube.client import Cluster, Kind, Object, kinds
from imagecached.kube.controller import grants
from imagecached.kube.controller.queue import Queue
from imagecached.kube.controller.resolve import login_document
from imagecached.kube.controller.settings import Settings

log = logging.getLogger(__name__)

_MISSING_AGAIN: Final = 300.0  # a Secret that is not there may come; nobody tells
_APART: Final = 2.0
_LOOK_AGAIN: Final = 1800.0  # for what somebody changed by hand: two lists, and only where there is any
_EVERYTHING: Final = ""  # no namespace has this name: the key of reading what stands in the cluster
_UNKNOWN: Final = frozenset({""})  # grants something, and nothing that is ever wanted


class Secrets:
    """``caches`` gives all caches as they are now; ``step`` is told the name of each write
    before it is made.
    """

    def __init__(
        self,
        cluster: Cluster,
        caches: Callable[[], Iterable[ImageCache]],
        settings: Settings,
        *,
        jitter: random.Random | None = None,
        step: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._cluster, self._caches, self._settings, self._step = cluster, caches, settings, step
        self._jitter = jitter or random.Random()  # noqa: S311  spreads load, guards nothing
        self._queue = Queue(self._look, apart=lambda: _APART, jitter=jitter)
        self._compared = False
        self._granted: dict[str, frozenset[str]] = {}
        self._one_at_a_time = asyncio.Lock()

    def see(self, before: ImageCache | None, after: ImageCache | None) -> None:
        """A cache was like that and is like this."""
        old, new = (frozenset(cache.pull_secrets if cache else ()) for cache in (before, after))
        for secret in old ^ new:
            self._queue.add(secret.namespace)

    async def grant(self, cache: ImageCache) -> None:
        """See to it that nodes may read what ``cache`` names, now."""
        for namespace in sorted({secret.namespace for secret in cache.pull_secrets}):
            await self._look(namespace)

    async def run(self) -> None:
        """Bring the cluster in line, then follow the caches, for ever."""
        self._queue.add(_EVERYTHING)
        await self._queue.run(workers=1)

    async def _compare(self) -> None:
        """Look at what stands there, also at what a leader before us left behind."""
        roles, bindings = await self._listed(kinds.ROLES), await self._listed(kinds.ROLE_BINDINGS)
        named = {secret.namespace for cache in self._caches() for secret in cache.pull_secrets}
        account, home = self._settings.node_account, self._settings.namespace
        for namespace in sorted(named | roles.keys() | bindings.keys() | self._granted.keys()):
            stands = grants.stands(roles.get(namespace), bindings.get(namespace), account, home)
            if stands is None or stands != self._granted.get(namespace):
                self._granted[namespace] = _UNKNOWN if stands is None else stands
                self._queue.add(namespace)

    async def _listed(self, kind: Kind) -> dict[str, Object]:
        """Ours, by namespace."""
        found = (await self._cluster.list(kind, labels=grants.SELECTOR)).items
        return {each["metadata"]["namespace"]: each for each in found}

    async def _look(self, namespace: str) -> float | None:
        if namespace == _EVERYTHING:
            if not self._compared or any(self._granted.values()):
                await self._compare()
                self._compared = True
            return self._jitter.uniform(0.75, 1.25) * _LOOK_AGAIN
        async with self._one_at_a_time:  # an older view must not be written after a newer one
            named = sorted(
                {
                    secret
                    for cache in self._caches()
                    for secret in cache.pull_secrets
                    if secret.namespace == namespace
                },
                key=str,
            )
            proven = [secret for secret in named if await self._is_for_pulling(secret)]
            await self._bring_in_line(namespace, frozenset(secret.name for secret in proven))
        return None if len(proven) == len(named) else _MISSING_AGAIN

    async def _is_for_pulling(self, secret: SecretName) -> bool:
        try:
            login_document(
                secret, await self._cluster.get(kinds.SECRETS, secret.name, namespace=secret.namespace)
            )
        except (NotFound, InvalidInput, AccessDenied):
            return False
        return True

    async def _bring_in_line(self, namespace: str, names: frozenset[str]) -> None:
        if self._granted.get(namespace, frozenset()) == names:
            return
        if names:
            account, home = self._settings.node_account, self._settings.namespace
            self._step("grant role")
            await self._cluster.apply(kinds.ROLES, grants.role(namespace, names), namespace=namespace)
            self._step("grant binding")
            await self._bind(namespace, grants.binding(namespace, account, home))
        else:
            await self._revoke(namespace)
        self._granted[namespace] = names
        log.info("secrets granted", extra={"namespace": namespace, "secrets": len(names)})

    async def _bind(self, namespace: str, binding: Object) -> None:
        try:
            await self._cluster.apply(kinds.ROLE_BINDINGS, binding, namespace=namespace)
        except InvalidInput:
            found = await self._cluster.get(kinds.ROLE_BINDINGS, grants.NAME, namespace=namespace)
            if grants.binds_ours(found):
                raise
            await self._cluster.delete(kinds.ROLE_BINDINGS, grants.NAME, namespace=namespace)
            await self._cluster.apply(kinds.ROLE_BINDINGS, binding, namespace=namespace)

    async def _revoke(self, namespace: str) -> None:
        """The binding first: a role alone gives nobody anything."""
        for kind in (kinds.ROLE_BINDINGS, kinds.ROLES):
            self._step(f"revoke {kind.kind.lower()}")
            try:
                await self._cluster.delete(kind, grants.NAME, namespace=namespace)
            except NotFound:
                continue
