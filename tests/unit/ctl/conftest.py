"""The client's command line against the real API over fakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagecached.ctl.client import Daemon
from imagecached.ctl.program import run
from tests.fakes.ports import FakePorts, Served, serve_api


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


Ctl = Callable[..., Ended]


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


@pytest.fixture
def alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Ctl:
    """``imagecachectl`` with nobody at the other end."""

    def call(*arguments: str) -> Ended:
        code = run(["--socket", str(tmp_path / "api.sock"), *arguments])
        return Ended(code, *capsys.readouterr())

    return call


@pytest.fixture
def ctl(alone: Ctl, served: Served) -> Ctl:
    """``imagecachectl`` with the API at the other end."""
    return alone
