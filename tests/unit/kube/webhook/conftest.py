"""An emulated API server with what the webhook needs there, and a client of it that does not wait long."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from imagecached.kube.client import Cluster, Pace
from tests.support.apiserver import ApiServer, User

MANIFESTS = Path(__file__).parents[4] / "daemonset"
NAMESPACE = "imagecached-system"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """A cluster where ours is installed: nobody but an administrator may do more than the manifests grant."""
    tokens = {
        "admin": User("admin", ("system:masters", "system:authenticated")),
        "controller": User.service_account(NAMESPACE, "imagecached-controller"),
    }
    async with ApiServer(tokens=tokens, rbac=True, bookmark_seconds=0.05) as serving:
        serving.install(MANIFESTS / "crds", MANIFESTS / "base")
        yield serving


@pytest.fixture
async def cluster(server: ApiServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    """The controller's own client: its rights are those that we ship."""
    async with opened(server, tmp_path / "controller", "controller") as client:
        yield client


@pytest.fixture
async def admin(server: ApiServer, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Somebody who may do everything."""
    async with opened(server, tmp_path / "admin", "admin") as client:
        yield client


def opened(server: ApiServer, file: Path, token: str) -> AbstractAsyncContextManager[Cluster]:
    """A client with this token whose waits are short."""
    pace = Pace(request=30.0, first_wait=0.01, most_wait=0.02, denied=0.01, jitter=random.Random(1))
    return Cluster.open(server.kubeconfig(file, token=token), manager=f"tester-{token}", pace=pace)
