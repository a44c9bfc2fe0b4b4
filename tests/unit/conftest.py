"""The HTTP API over fakes of everything behind it, for the tests of both of its ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from imagecached.ctl.client import Daemon
from tests.fakes.ports import FakePorts, Served, serve_api


@pytest.fixture
def fakes(tmp_path: Path) -> FakePorts:
    return FakePorts(tmp_path)


@pytest.fixture
def served(fakes: FakePorts, tmp_path: Path) -> Iterator[Served]:
    with serve_api(fakes, tmp_path / "api.sock") as served:
        yield served


@pytest.fixture
def daemon(served: Served) -> Daemon:
    return Daemon(str(served.socket))
