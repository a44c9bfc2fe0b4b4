"""The certificates in a cluster: Secret, caBundle, TLS context; two replicas; what somebody broke."""

from __future__ import annotations

import asyncio
import base64
import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from imagecached.errors import AccessDenied, FailedPrecondition
from imagecached.kube.client import Cluster, kinds
from imagecached.kube.webhook.authority import (
    AUTHORITY_LIFE,
    OVERLAP,
    SERVING_LIFE,
    fresh,
    parse_credentials,
)
from imagecached.kube.webhook.certificates import Certificates, Place, with_bundle
from tests.support.apiserver import ApiServer, calls
from tests.unit.kube.webhook.conftest import NAMESPACE, opened

MUTATING = "mutatingwebhookconfigurations.admissionregistration.k8s.io"
VALIDATING = "validatingwebhookconfigurations.admissionregistration.k8s.io"


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def secret(server: ApiServer) -> dict[str, bytes]:
    data = server.get("secrets", "imagecached-webhook-tls", NAMESPACE)["data"]
    return {name: base64.b64decode(text) for name, text in data.items()}


def bundles(server: ApiServer) -> set[bytes]:
    """The different authorities that the API server believes in our webhooks."""
    found = [server.get(kind, "imagecached")["webhooks"] for kind in (MUTATING, VALIDATING)]
    return {
        base64.b64decode(webhook["clientConfig"].get("caBundle", ""))
        for webhooks in found
        for webhook in webhooks
    }


async def test_the_first_time(server: ApiServer, cluster: Cluster) -> None:
    """With no more rights than the manifests grant: a Secret is made, published everywhere and served."""
    certificates = Certificates(cluster, Place())
    assert certificates.problem == "no certificate yet"
    await certificates.look()
    assert certificates.problem is None
    assert server.get("secrets", "imagecached-webhook-tls", NAMESPACE)["type"] == "kubernetes.io/tls"
    made = parse_credentials(secret(server))
    assert bundles(server) == {made.bundle}
    assert certificates.context.cert_store_stats() is not None


async def test_nothing_is_written_when_nothing_is_due(server: ApiServer, cluster: Cluster) -> None:
    """Looking is reading."""
    certificates = Certificates(cluster, Place())
    await certificates.look()
    revision = server.storage.revision
    for _ in range(3):
        await certificates.look()
    assert server.storage.revision == revision


async def test_two_replicas(server: ApiServer, tmp_path: Path) -> None:
    """Both want to make the first certificate; one does, and both serve it."""
    async with (
        opened(server, tmp_path / "one", "controller") as one,
        opened(server, tmp_path / "two", "controller") as two,
    ):
        replicas = [Certificates(one, Place()), Certificates(two, Place())]
        async with asyncio.TaskGroup() as group:
            for replica in replicas:
                group.create_task(until_well(replica))
    assert bundles(server) == {parse_credentials(secret(server)).bundle}
    served = {replica.served for replica in replicas}
    assert served == {parse_credentials(secret(server)).chain}


async def until_well(replica: Certificates) -> None:
    """As :meth:`Certificates.run` does, without its pauses."""
    for _ in range(5):
        try:
            return await replica.look()
        except FailedPrecondition:
            continue
    pytest.fail("never well")


async def test_renewal_over_years(server: ApiServer, cluster: Cluster) -> None:
    """What is served is always signed by what is published, at each step of ten years."""
    clock = Clock()
    certificates = Certificates(cluster, Place(), clock=clock)
    published: set[bytes] = set()
    for _ in range(6):
        await certificates.look()
        credentials = parse_credentials(secret(server))
        assert bundles(server) == {credentials.bundle}
        assert certificates.served == credentials.chain
        assert credentials.serving.not_valid_after_utc > clock.now
        published.add(credentials.bundle)
        clock.now += AUTHORITY_LIFE / 4
        await certificates.look()
        for _ in range(3):
            clock.now += OVERLAP
            await certificates.look()
    assert len(published) > 1


async def test_an_old_authority_is_kept_until_it_is_not_needed(server: ApiServer, cluster: Cluster) -> None:
    """During the change of authorities both are published."""
    clock = Clock()
    certificates = Certificates(cluster, Place(), clock=clock)
    await certificates.look()
    (old,) = bundles(server)
    clock.now += AUTHORITY_LIFE * 2 / 3 + timedelta(days=1)
    await certificates.look()
    (both,) = bundles(server)
    assert both.endswith(old)
    assert len(both) > len(old)


async def test_a_certificate_that_expired_while_nobody_was_there(server: ApiServer, cluster: Cluster) -> None:
    """The first look of a controller that comes back after months mends it, under the same authority."""
    old = fresh(Place().names, datetime.now(UTC) - 2 * SERVING_LIFE)
    data = {name: base64.b64encode(text).decode() for name, text in old.documents().items()}
    document = kinds.SECRETS.named("imagecached-webhook-tls", NAMESPACE)
    server.put({**document, "type": "kubernetes.io/tls", "data": data})
    certificates = Certificates(cluster, Place())
    await certificates.look()
    now = parse_credentials(secret(server))
    assert now.serving.not_valid_after_utc > datetime.now(UTC)
    assert certificates.served == now.chain
    assert bundles(server) == {old.bundle}


async def test_a_broken_secret_is_replaced(server: ApiServer, cluster: Cluster) -> None:
    """Nobody could use it; what is made instead is published at once."""
    certificates = Certificates(cluster, Place())
    await certificates.look()
    broken = server.get("secrets", "imagecached-webhook-tls", NAMESPACE)
    server.put({**broken, "data": {**broken["data"], "tls.key": "bm9uc2Vuc2U="}})
    await certificates.look()
    made = parse_credentials(secret(server))
    assert bundles(server) == {made.bundle}
    assert certificates.served == made.chain


async def test_a_bundle_that_somebody_changed_is_put_right(server: ApiServer, cluster: Cluster) -> None:
    """An installer that applies the manifests again must not cut the webhook off for long."""
    certificates = Certificates(cluster, Place())
    await certificates.look()
    applied = copy.deepcopy(server.get(MUTATING, "imagecached"))
    for webhook in applied["webhooks"]:
        del webhook["clientConfig"]["caBundle"]
    server.put(applied)
    await certificates.look()
    assert bundles(server) == {parse_credentials(secret(server)).bundle}


async def test_configurations_that_are_not_there(server: ApiServer, cluster: Cluster) -> None:
    """An installation without the webhook is no error."""
    server.remove(MUTATING, "imagecached")
    certificates = Certificates(cluster, Place())
    await certificates.look()
    assert certificates.problem is None


async def test_trouble_is_told_and_overcome(
    server: ApiServer, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the Secret there is no certificate, and the reason shows; the service goes on trying."""
    monkeypatch.setattr("imagecached.kube.webhook.certificates._RETRY_SECONDS", 0.01)
    server.faults.break_down(matches=calls("get", "secrets"), times=2)
    certificates = Certificates(cluster, Place())
    async with asyncio.TaskGroup() as group:
        task = group.create_task(certificates.run())
        async with asyncio.timeout(40):
            await certificates.ready.wait()
        task.cancel()
    assert certificates.problem is None


async def test_no_rights(server: ApiServer, cluster: Cluster) -> None:
    """A controller without its Role says what it was refused."""
    server.remove("roles.rbac.authorization.k8s.io", "imagecached-controller", NAMESPACE)
    server.remove("clusterroles.rbac.authorization.k8s.io", "imagecached-controller")
    certificates = Certificates(cluster, Place())
    with pytest.raises(AccessDenied, match="secrets"):
        await certificates.look()


def test_with_bundle() -> None:
    """By Service or by URL, whatever else is said stays."""
    webhooks: list[dict[str, Any]] = [
        {"name": "a", "clientConfig": {"url": "https://127.0.0.1:9443/mutate"}, "timeoutSeconds": 5},
        {"name": "b", "clientConfig": {"service": {"name": "s"}, "caBundle": "b64"}},
    ]
    changed = with_bundle(webhooks, "b64")
    assert changed == [
        {
            "name": "a",
            "clientConfig": {"url": "https://127.0.0.1:9443/mutate", "caBundle": "b64"},
            "timeoutSeconds": 5,
        },
        webhooks[1],
    ]
    assert with_bundle(changed, "b64") is None
