"""The agent as the daemon runs it: a session with the cluster, and one again when there can be none yet.

A kubeconfig that is missing or wrong is an operator's mistake that may be mended while the daemon runs, and
must not keep a node from serving what it has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagecached.config import Config
from imagecached.errors import InvalidInput, NotFound
from imagecached.kube.agent import Agent, AgentSettings, CachesPort, Facts
from imagecached.kube.agent.handler import has_handler
from imagecached.kube.client import Cluster, OnRequest, Pace
from imagecached.oci.platform import Platform
from imagecached.store import Store
from imagecached.telemetry import Metrics

if TYPE_CHECKING:
    from imagecached.containerd import Containerd

log = logging.getLogger(__name__)

_MANAGER: Final = "imagecached-node"


@dataclass(slots=True)
class Membership:
    """This node as a part of its cluster. ``problem``: why it may not know what the cluster wants."""

    kubeconfig: Path | None
    caches: CachesPort
    facts: Facts
    settings: AgentSettings
    on_request: OnRequest
    on_restart: Callable[[str], None]
    pace: Pace = field(default_factory=Pace)
    _agent: Agent | None = None
    _problem: str | None = "not connected yet"

    @property
    def problem(self) -> str | None:
        """None while the API server answers."""
        return self._problem if self._agent is None else self._agent.problem

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        while True:
            try:
                await self._follow()
            except (InvalidInput, NotFound) as error:
                self._problem = str(error)
                log.error("no way to the cluster", extra={"error": str(error)})  # noqa: TRY400  says it all
            await self.pace.sleep(self.pace.drawn(self.pace.denied))

    async def _follow(self) -> None:
        opened = Cluster.open(self.kubeconfig, manager=_MANAGER, pace=self.pace, on_request=self.on_request)
        async with opened as cluster:
            self._agent = Agent(cluster, self.caches, self.facts, self.settings, on_restart=self.on_restart)
            try:
                await self._agent.run()
            finally:
                self._agent = None


def membership(
    config: Config, caches: CachesPort, store: Store, containerd: Containerd | None, metrics: Metrics
) -> Membership:
    """What the daemon runs, from its configuration and its parts."""
    section = config.kubernetes

    def disk() -> tuple[int, int]:
        usage = store.usage()
        return usage.disk_bytes, usage.budget_bytes

    async def handler() -> bool:
        if containerd is None:
            return False
        return has_handler(await containerd.cri_status(), config.containerd.snapshotter)

    return Membership(
        Path(section.kubeconfig) if section.kubeconfig else None,
        caches,
        Facts(config.pull.platform or str(Platform.host()), disk, handler),
        AgentSettings(section.node),
        on_request=metrics.requested,
        on_restart=metrics.watch_restarted,
    )
