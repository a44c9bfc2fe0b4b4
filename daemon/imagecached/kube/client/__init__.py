"""The only way to the Kubernetes API: documents in, documents out, errors of ours.

    async with Cluster.open(kubeconfig=None, manager="imagecached-node") as cluster:
        node = await cluster.get(kinds.NODES, "n1")
        caches = Reflector(cluster, kinds.IMAGE_CACHES, on_change)     # list + watch, for ever: caches.run()

Owns connection, credentials, deadlines and bounds; knows paths and verbs, and nothing of what objects mean.
lightkube reads the kubeconfig and refreshes tokens; its models stay out, they would cost every node memory.
Invariants: every request ends within its deadline; an answer, a line of a watch and a list are bounded; a
refusal is one of our errors with method, path and the server's words; no message holds a token. Retrying is
the caller's, but for watches: :class:`Reflector` goes on for ever.
"""

from imagecached.kube.client import kinds
from imagecached.kube.client.cluster import Cluster, Listed, OnRequest
from imagecached.kube.client.kinds import Kind, Object, key_of
from imagecached.kube.client.pace import Pace
from imagecached.kube.client.reflector import Change, Reflector
from imagecached.kube.client.watching import Event, Expired

__all__ = [
    "Change",
    "Cluster",
    "Event",
    "Expired",
    "Kind",
    "Listed",
    "Object",
    "OnRequest",
    "Pace",
    "Reflector",
    "key_of",
    "kinds",
]
