"""What the controller must be told; the composition root fills it from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from imagecached.imagecache import Quota
from imagecached.kube.controller.lease import Terms


@dataclass(frozen=True, slots=True)
class Settings:
    """Names in the cluster, bounds and intervals.

    ``rollout_nodes`` and ``rollout_percent``: how many nodes fetch one cache at once, the greater counts.
    ``node_patience``: a node that is up, may fetch and reports nothing new for so long is not waited for.
    ``resolve_patience``: how long a registry that cannot be asked is asked again. ``drift``: time between two
    looks at tags, 0 never. ``stray``: how long the report of a node that is gone is kept.
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
    quota: Quota = field(default_factory=Quota)

    def progress_pause(self, nodes: int) -> float:
        """Seconds between two looks at one cache: every status that is written goes to every node."""
        return max(1.0, nodes / 500)

    def counts_pause(self, nodes: int) -> float:
        """Seconds between two writes of a cache of which nothing but numbers of nodes or bytes changed."""
        return max(10.0, nodes / 16)
