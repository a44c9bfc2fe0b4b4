"""An emulated cluster of one node for code that blocks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.support.apiserver import ApiServer
from tests.support.apiserver_thread import Served, served

NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "n1", "labels": {"kubernetes.io/os": "linux"}},
}


@pytest.fixture
def api() -> Iterator[Served]:
    """The server, with one Node."""
    with served(ApiServer()) as running:
        running.do(lambda server: server.put(NODE))
        yield running


@pytest.fixture
def cluster(api: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The scenarios' client of it, by KUBECONFIG."""
    monkeypatch.setenv("KUBECONFIG", str(api.server.kubeconfig(tmp_path / "kubeconfig")))
    found = Cluster.from_environment()
    yield found
    found.http.close()
