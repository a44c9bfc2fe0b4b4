"""Fixtures that every folder of tests may use, and the rules of the house.

Tests marked ``root``, ``containerd``, ``containerd17`` or ``containerd2`` are skipped on a machine that
cannot run them; in CI they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.containerd import CONTAINERD2, CONTAINERD17, Containerd, serve_containerd
from tests.support.images import ImageFolder
from tests.support.mounts import unmount_below
from tests.support.registry import Registry, serve_registry

_IN_CI: Final = os.environ.get("CI") == "true"
_TOOLS: Final = Path(__file__).resolve().parents[1] / ".cache/tools/usr"


def pytest_configure() -> None:
    """Find the servers that ``scripts/setup`` unpacked, behind installed ones."""
    os.environ["PATH"] += f":/usr/sbin:/sbin:{_TOOLS}/bin:{_TOOLS}/sbin"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or in CI fail, what this machine cannot do."""
    missing = _missing(item)
    if missing and _IN_CI:
        pytest.fail(f"CI must be able to run this: {missing}", pytrace=False)
    if missing:
        pytest.skip(missing)


def _missing(item: pytest.Item) -> str:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        return "needs root"
    if item.get_closest_marker("containerd") and not (shutil.which("containerd") and shutil.which("ctr")):
        return "needs the package containerd"
    for marker, programs in (("containerd17", CONTAINERD17), ("containerd2", CONTAINERD2)):
        if item.get_closest_marker(marker) and not programs.exists():
            return f"needs {programs}, which scripts/setup fills where apt knows a mirror of Debian"
    return ""


@pytest.fixture(scope="session", autouse=True)
def no_mount_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A run that leaves a mount below its folders fails, and names it."""
    base = tmp_path_factory.getbasetemp()
    yield
    left = unmount_below(base)
    assert left == [], "tests must unmount what they mount"


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry for the whole run; tests use repository names of their own."""
    with serve_registry(tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture(scope="session")
def containerd(registry: Registry) -> Iterator[Containerd]:
    """A real containerd for the whole run that may pull from ``registry``; its users carry both markers."""
    with serve_containerd(plain_http=[registry.address]) as served:
        yield served


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    """An empty folder to build images in."""
    return ImageFolder(tmp_path / "images")
