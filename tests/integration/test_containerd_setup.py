"""Setting containerd up and taking it back, judged by real containerds that read the files."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from imagecached.dropin import Mode, Places
from imagecached.dropin.objections import InUse
from imagecached.dropin.setup import Setup
from imagecached.errors import FailedPrecondition, InvalidInput, Unsupported
from tests.support.containerd import CONTAINERD2, CONTAINERD17, STABLE

pytestmark = [pytest.mark.containerd]

IDLE = InUse(0)
OLD = "# mine\nversion = 2\n[plugins.'io.containerd.grpc.v1.cri']\n  sandbox_image = 'pause:mine'\n"
VERSIONS = [
    pytest.param((STABLE, "default"), id="1-default"),
    pytest.param((CONTAINERD17, "handler"), id="1.7-handler", marks=pytest.mark.containerd17),
    pytest.param((CONTAINERD2, "handler"), id="2-handler", marks=pytest.mark.containerd2),
]


@pytest.fixture(params=VERSIONS)
def kind(request: pytest.FixtureRequest) -> tuple[str, Mode]:
    """A program and the mode that it is tried in."""
    programs, mode = request.param
    return str(programs / "containerd") if programs else "containerd", mode


@pytest.fixture
def setup(kind: tuple[str, Mode], tmp_path: Path) -> Setup:
    """A node without a configuration."""
    (tmp_path / "etc").mkdir()
    return Setup(tmp_path / "etc/config.toml", tmp_path / "records", kind[0], tmp_path / "data")


def files(setup: Setup) -> dict[str, bytes]:
    """All that lies in the folder of the configuration and in ours."""
    folder = setup.main.parent.parent
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def understood(setup: Setup, kind: tuple[str, Mode]) -> Any:
    """What containerd makes of it."""
    command = [kind[0], "--config", str(setup.main), "config", "dump"]
    return tomllib.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(
    "text", [None, OLD, f'imports = ["conf.d/*.toml"]\n{OLD}'], ids=["none", "plain", "pattern"]
)
def test_there_and_back(setup: Setup, kind: tuple[str, Mode], text: str | None) -> None:
    """The node's settings stay; again changes nothing; the files come back byte for byte."""
    if text is not None:
        setup.main.write_text(text)
        setup.main.chmod(0o640)
    before = files(setup)
    assert setup.install(kind[1], Places(), IDLE) is True
    dump = understood(setup, kind)
    assert dump["proxy_plugins"]["imagecached"]["type"] == "snapshot"
    assert ("pause:mine" in str(dump)) is (text is not None)
    if text is not None:
        assert setup.main.stat().st_mode & 0o777 == 0o640
    there = files(setup)
    assert setup.install(kind[1], Places(), None) is False
    assert files(setup) == there
    assert setup.undo() is True
    assert files(setup) == before
    assert not (setup.main.parent / "conf.d").exists()
    assert setup.undo() is False


def test_statistics_find_our_disk(setup: Setup, kind: tuple[str, Mode]) -> None:
    """Of a containerd that cannot be told where, by a link in its own folder, which goes again."""
    setup.install(kind[1], Places(), IDLE)
    link = setup.main.parent.parent / "data/io.containerd.snapshotter.v1.imagecached"
    if setup.version().has_exports:
        assert (
            understood(setup, kind)["proxy_plugins"]["imagecached"]["exports"]["root"]
            == "/var/lib/imagecached"
        )
        assert not link.is_symlink()
    else:
        assert str(link.readlink()) == "/var/lib/imagecached"
    setup.undo()
    assert not link.is_symlink()


def test_what_the_node_says_may_change(setup: Setup, kind: tuple[str, Mode]) -> None:
    """Then the drop-in is behind, until it is installed again. Without one nothing is."""
    places = Places()
    assert setup.is_stale(places) is False
    setup.main.write_text(OLD)
    setup.install(kind[1], places, IDLE)
    assert setup.is_stale(places) is False
    runtime = "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'other'\n"
    setup.main.write_text(setup.main.read_text() + runtime)
    assert setup.is_stale(places) is True
    setup.install(kind[1], places, IDLE)
    assert setup.is_stale(places) is False


def test_a_change_of_places_is_a_change(setup: Setup, kind: tuple[str, Mode]) -> None:
    """An upgrade writes the drop-in anew and still knows the way back."""
    setup.main.write_text(OLD)
    setup.install(kind[1], Places(), IDLE)
    assert setup.install(kind[1], Places(socket=Path("/other.sock")), IDLE) is True
    assert understood(setup, kind)["proxy_plugins"]["imagecached"]["address"] == "/other.sock"
    setup.undo()
    assert setup.main.read_text() == OLD


def test_what_was_edited_meanwhile_stays(setup: Setup, kind: tuple[str, Mode]) -> None:
    """Only our import goes from a main file that is no longer as we left it."""
    setup.main.write_text(OLD)
    setup.install(kind[1], Places(), IDLE)
    edited = setup.main.read_text() + "  stats_collect_period = 7\n"
    setup.main.write_text(edited)
    setup.undo()
    assert setup.main.read_text() == OLD + "  stats_collect_period = 7\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (OLD + "[", "cannot be read"),
        (
            "version = 2\n[proxy_plugins.imagecached]\ntype = 'snapshot'\naddress = '/x'\n",
            "is defined already",
        ),
        ("version = 2\noom_score = 'much'\n", "failed: "),
    ],
)
def test_a_node_that_cannot_take_it_stays_as_it_was(
    setup: Setup, kind: tuple[str, Mode], text: str, why: str
) -> None:
    """Broken files, another's settings, and whatever containerd itself refuses."""
    setup.main.write_text(text)
    before = files(setup)
    with pytest.raises((FailedPrecondition, InvalidInput), match=why):
        setup.install(kind[1], Places(), IDLE)
    assert files(setup) == before


def test_a_later_import_that_says_otherwise(tmp_path: Path) -> None:
    """What would not be in force is taken back at once: here containerd 1 reads a section after ours."""
    setup = Setup(tmp_path / "etc/config.toml", tmp_path / "records", data=tmp_path / "data")
    last = setup.main.parent / "conf.d/z.toml"
    last.parent.mkdir(parents=True)
    last.write_text(OLD)
    setup.main.write_text(f'version = 2\nimports = ["{last.parent}/*.toml"]\n')
    before = files(setup)
    with pytest.raises(FailedPrecondition, match="later import"):
        setup.install("default", Places(), IDLE)
    assert files(setup) == before


def test_no_containerd(tmp_path: Path) -> None:
    """There is nothing to set up."""
    with pytest.raises(Unsupported, match="no containerd"):
        Setup(tmp_path / "config.toml", tmp_path / "records", str(tmp_path / "none")).install(
            "handler", Places(), IDLE
        )
    assert list(tmp_path.iterdir()) == []
