"""What the controller must be told; the composition root fills it from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from imagecached.imagecache import Quota
from imagecached.kube.controller.lease import Terms

_SELDOM: Final = 4  # numbers are this much less urgent than news


@dataclass(frozen=True, slots=True)
class Settings:
    """Names in the cluster, bounds and intervals.

    ``rollout_nodes`` and ``rollout_percent``: how many nodes fetch one cache at once, the greater counts.
    ``node_patience``: a node that is up, may fetch and reports nothing new for so long is not waited for.
    ``resolve_patience``: how long a registry that cannot be asked is asked again. ``drift``: time between two
    looks at tags, 0 never. ``stray``: how long the report of a node that is gone is kept.
    ``deliveries_per_second``: how many statuses may reach nodes, all caches and nodes together.
    """

    namespace: str = "imagecached-system"
    node_account: str = "imagecached-node"
    lease: str = "imagecached-controller"
    terms: Terms = field(default_factory=Terms)
    workers: int = 8
    rollout_nodes: int = 20
    rollout_percent: int = 5
    node_patience: float = 900.0
    resolve_patience: float = 1800.0
    resolve_deadline: float = 300.0
    drift: float = 21_600.0
    stray: float = 600.0
    label_patches_per_second: float = 50.0
    deliveries_per_second: float = 10_000.0
    quota: Quota = field(default_factory=Quota)

    def apart(self, nodes: int, building: int) -> float:
        """Seconds between two looks at one cache while so many are being built.

        Each look may write a status, and each status that is written goes to every node.
        """
        return max(1.0, nodes * building / self.deliveries_per_second)

    def numbers_apart(self, nodes: int, caches: int) -> float:
        """Seconds between two writes of a cache of which only numbers changed, among so many caches."""
        return max(1.0, _SELDOM * nodes * caches / self.deliveries_per_second)
