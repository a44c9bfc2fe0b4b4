"""Webhook configurations for a machine that is busy: as shipped, but waited for."""

from __future__ import annotations

import copy

from tests.support.apiserver import ApiServer

_KINDS = ("mutatingwebhookconfigurations", "validatingwebhookconfigurations")
_SECONDS = 30  # the most that the API allows


def wait_longer(server: ApiServer) -> None:
    """Let the API server be patient with every webhook: a test is about the answer, not about its time."""
    for kind in _KINDS:
        for document in copy.deepcopy(server.all(f"{kind}.admissionregistration.k8s.io")):
            for webhook in document["webhooks"]:
                webhook["timeoutSeconds"] = _SECONDS
            server.put(document)
