"""The cluster's controller: keeps ImageCaches in line with what is declared and what the nodes report.

    Election(cluster, identity, …).run(lambda: Leader(cluster, registries, recorder, settings).run())

Level by level: ``shared``, ``nodes`` (beside this package) → ``reports``, ``known``, ``lease`` (objects read
as values) → ``census``, ``tally``, ``rollout``, ``placement``, ``grants`` → ``plan`` (what to do, pure) →
``queue``, ``resolve`` → ``caches``, ``labels``, ``secrets`` (do it) → ``leader``, ``election``.
Invariants: level-triggered, so any event may be missed; every write is made over the version it was computed
from, or can be made twice; in steady state nothing is asked but watches and the lease.
"""

from imagecached.kube.controller.election import Election
from imagecached.kube.controller.leader import Leader
from imagecached.kube.controller.lease import Terms
from imagecached.kube.controller.settings import Settings

__all__ = ["Election", "Leader", "Settings", "Terms"]
