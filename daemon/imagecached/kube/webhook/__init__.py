"""Admission of pods: which cache a pod gets is decided, and written into it, before it is stored.

    webhook = Webhook(cluster, recorder.tell, Listen(host, port), Place(namespace=…), Rules(), count)
    group.create_task(webhook.run())       # webhook.why_not_ready() for readiness

Every replica serves. Owns the HTTPS server, its certificates and the list of caches that it decides by; knows
nothing of leader, nodes or builds. Invariants: automatic matching fails open; a pod that names a cache it
cannot have is refused; pods that ask for nothing never get here, and a pod that runs is never changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from imagecached.imagecache import Candidates
from imagecached.kube.client import Cluster, Reflector, kinds
from imagecached.kube.webhook import handlers
from imagecached.kube.webhook.admission import Admission, Count
from imagecached.kube.webhook.certificates import Certificates, Place
from imagecached.kube.webhook.decide import Rules
from imagecached.kube.webhook.effects import Effects, Tell
from imagecached.kube.webhook.known import KnownCaches
from imagecached.kube.webhook.server import application, serve

__all__ = ["Listen", "Place", "Rules", "Webhook"]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the server listens; port 0 is any that is free."""

    host: str = "0.0.0.0"  # noqa: S104  the API server comes from outside of the pod
    port: int = 9443


class Webhook:
    """``started`` is set once the server listens, on :attr:`port`; it answers probes from then on.

    ``settle``: the seconds after which a pod that was admitted should be stored.
    """

    def __init__(
        self,
        cluster: Cluster,
        tell: Tell,
        listen: Listen,
        place: Place,
        rules: Rules,
        count: Count = lambda _outcome, _seconds: None,
        *,
        settle: float = 1.0,
    ) -> None:
        self._listen = listen
        self._known = KnownCaches()
        self._caches = Reflector(cluster, kinds.IMAGE_CACHES, self._known.on_change)
        self._nodes = Reflector(cluster, kinds.NODES, labels=handlers.READY, keep=handlers.bare)
        self.certificates = Certificates(cluster, place)
        self.started = asyncio.Event()
        self.port = listen.port
        rules = replace(rules, can_start=self.can_start)
        self.effects = Effects(cluster, tell, self._candidates, rules, settle=settle)
        self._admission = Admission(self._candidates, self.effects, rules, count)

    async def run(self) -> None:
        """Serve until cancelled. FailedPrecondition: the address cannot be used."""
        pages = application(self._admission, self.why_not_ready)
        serving = serve(pages, self._listen.host, self._listen.port, self.certificates.context)
        async with serving as self.port, asyncio.TaskGroup() as group:
            self.started.set()
            for part in (self.certificates, self._caches, self._nodes, self.effects):
                group.create_task(part.run())

    @property
    def caches(self) -> Candidates:
        """The caches that pods are matched with now."""
        return self._known.candidates

    def can_start(self, selector: Mapping[str, Any], bound_to: str = "") -> bool:
        """Is there a node with our runtime handler for a pod with this nodeSelector?"""
        return handlers.can_start(self._nodes.objects, selector, bound_to)

    def why_not_ready(self) -> str | None:
        """What is missing before it can answer; None when ready."""
        if self.certificates.problem is not None:
            return f"certificates: {self.certificates.problem}"
        for what, reflector in (("image caches", self._caches), ("nodes", self._nodes)):
            if not reflector.synced.is_set():
                return f"{what}: {reflector.problem}"
        return None

    def _candidates(self) -> Candidates | None:
        known = self._caches.synced.is_set() and self._nodes.synced.is_set()
        return self._known.candidates if known else None
