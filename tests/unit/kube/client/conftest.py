"""A cluster of the emulated API server, and a client of it that does not wait long."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from imagecached.kube.client import Cluster, Pace
from tests.support.apiserver import ApiServer


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """An empty cluster that sends bookmarks often."""
    async with ApiServer(bookmark_seconds=0.05) as serving:
        yield serving


@pytest.fixture
def requests() -> list[tuple[str, str]]:
    """Verb and code of every request of ``cluster``."""
    return []


@pytest.fixture
async def cluster(
    server: ApiServer, requests: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Cluster]:
    """A client whose waits are short."""
    pace = Pace(request=20.0, first_wait=0.01, most_wait=0.02, denied=0.01, jitter=random.Random(1))
    kubeconfig = server.kubeconfig(tmp_path_factory.mktemp("kube") / "config")
    told = lambda verb, code: requests.append((verb, code))  # noqa: E731  one line
    async with Cluster.open(kubeconfig, manager="tester", pace=pace, on_request=told) as opened:
        yield opened
