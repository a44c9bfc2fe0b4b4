"""The client's command line against the real API over fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagecached.ctl.program import run
from tests.fakes.ports import Served


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


Ctl = Callable[..., Ended]


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
