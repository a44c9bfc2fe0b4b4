"""Admission of pods: which cache a pod gets is decided, and written into it, before it is stored.

    webhook = Webhook(cluster, recorder.tell, Listen(host, port), Place(namespace=…), Rules(), count)
    group.create_task(webhook.run())       # webhook.why_not_ready() for readiness

Every replica serves. Owns the HTTPS server, its certificates and the list of caches that it decides by; knows
nothing of leader, nodes or builds. Invariants: automatic matching fails open; a pod that names a cache it
cannot have is refused; pods that ask for nothing never get here, and a pod that runs is never changed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Final

from imagecached.imagecache import Candidates
from imagecached.kube.client import Cluster, Object, Reflector, kinds
from imagecached.kube.webhook.admission import Admission, Count
from imagecached.kube.webhook.certificates import Certificates, Place
from imagecached.kube.webhook.decide import Rules
from imagecached.kube.webhook.effects import Effects, Tell
from imagecached.kube.webhook.known import KnownCaches
from imagecached.kube.webhook.server import application, serve

HANDLER_READY: Final = "imagecached.dev/handler=ready"
"""The label that the controller gives to nodes whose containerd has our runtime handler."""

__all__ = ["Listen", "Place", "Rules", "Webhook"]


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the server listens; port 0 is any that is free."""

    host: str = "0.0.0.0"  # noqa: S104  the API server comes from outside of the pod
    port: int = 9443


class Webhook:
    """``started`` is set once the server listens, on :attr:`port`; it answers probes from then on."""

    def __init__(
        self,
        cluster: Cluster,
        tell: Tell,
        listen: Listen,
        place: Place,
        rules: Rules,
        count: Count = lambda _outcome, _seconds: None,
    ) -> None:
        self._listen = listen
        self._known = KnownCaches()
        self._reflector = Reflector(cluster, kinds.IMAGE_CACHES, self._known.on_change)
        self._nodes = Reflector(cluster, kinds.NODES, labels=HANDLER_READY, keep=_bare)
        self.effects = Effects(cluster, tell)
        self.certificates = Certificates(cluster, place)
        self.started = asyncio.Event()
        self.port = listen.port
        rules = replace(rules, has_handler=self.has_handler)
        self._admission = Admission(self._candidates, self.effects, rules, count)

    async def run(self) -> None:
        """Serve until cancelled. FailedPrecondition: the address cannot be used."""
        pages = application(self._admission, self.why_not_ready)
        serving = serve(pages, self._listen.host, self._listen.port, self.certificates.context)
        async with serving as self.port, asyncio.TaskGroup() as group:
            self.started.set()
            for part in (self.certificates, self._reflector, self._nodes, self.effects):
                group.create_task(part.run())

    @property
    def caches(self) -> Candidates:
        """The caches that pods are matched with now."""
        return self._known.candidates

    def has_handler(self, node: str) -> bool:
        """Is this node known to have our runtime handler?"""
        return self._nodes.get(node) is not None

    def why_not_ready(self) -> str | None:
        """What is missing before it can answer; None when ready."""
        if self.certificates.problem is not None:
            return f"certificates: {self.certificates.problem}"
        return None if self._reflector.synced.is_set() else f"image caches: {self._reflector.problem}"

    def _candidates(self) -> Candidates | None:
        return self._known.candidates if self._reflector.synced.is_set() else None


def _bare(node: Object) -> Object:
    """Only that it is there counts."""
    metadata = node["metadata"]
    return {"metadata": {key: metadata.get(key, "") for key in ("name", "uid", "resourceVersion")}}
