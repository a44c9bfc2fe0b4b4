"""Plays what a cluster's controllers do after ``daemonset/`` was applied, on the emulated API server.

Deployments and DaemonSets are ready as soon as anybody looks, the webhook has a certificate. Nothing runs.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from tests.support.apiserver import ApiServer

_HOOKS: Final = "mutatingwebhookconfigurations.admissionregistration.k8s.io"


def play_controllers(server: ApiServer) -> None:
    """From now on, before each request."""
    server.faults.before = lambda _: _play(server)


async def _nothing() -> None:
    """What the server awaits after a move of ours."""


def _play(server: ApiServer) -> Any:
    for document in server.all("deployments.apps") + server.all("daemonsets.apps"):
        if "status" not in document:
            server.put({**document, "status": _ready(document)})
    for document in server.all(_HOOKS):
        changed = copy.deepcopy(document)
        for webhook in changed["webhooks"]:
            webhook["clientConfig"]["caBundle"] = "QQ=="
        if changed != document:
            server.put(changed)
    return _nothing()


def _ready(document: dict[str, Any]) -> dict[str, Any]:
    if document["kind"] == "Deployment":
        counts: dict[str, Any] = dict.fromkeys(
            ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2
        )
    else:
        names = (
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "updatedNumberScheduled",
            "numberAvailable",
        )
        counts = dict.fromkeys((*names, "numberReady"), 1)
    return {"observedGeneration": document["metadata"]["generation"], **counts}
