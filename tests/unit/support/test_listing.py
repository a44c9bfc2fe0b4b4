"""The comparison sees every kind of difference, and forgives only what it says it forgives."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.listing import GHOST, Facts, Listing, differences, listing

_FILE = Facts("file", 0o644, 1, 2, 5, 10, 1, (0, 0), b"f", None, (), "digest")
_DIRECTORY = Facts("directory", 0o755, 0, 0, 0, 10, 2, (0, 0), None, None, (), None)
_NOW = 1_000


def _differences(ours: Listing, theirs: Listing) -> list[str]:
    return differences(ours, theirs, unpacked_after=_NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "fifo"},
        {"mode": 0o4644},
        {"uid": 2},
        {"gid": 3},
        {"size": 6},
        {"mtime_ns": 11},
        {"nlink": 2},
        {"rdev": (1, 3)},
        {"group": b"e"},
        {"target": b"t"},
        {"xattrs": ((b"user.a", b"1"),)},
        {"content": "other"},
    ],
)
def test_every_fact_counts(change: dict[str, object]) -> None:
    """One line names the path and the fact."""
    (line,) = _differences({b"a\n": _FILE}, {b"a\n": replace(_FILE, **change)})  # type: ignore[arg-type]
    assert line.startswith(f"a\\n: {next(iter(change))}: ours ")


def test_missing_paths_count() -> None:
    """On either side."""
    assert len(_differences({b"a": _FILE}, {b"b": _FILE})) == 2


def test_only_the_reference_may_have_ghosts() -> None:
    """A name that is listed and then denied is no entry, and we should not have it."""
    assert _differences({}, {b"a": GHOST}) == []
    assert len(_differences({b"a": GHOST}, {})) == 1
    assert _differences({b"a": _FILE}, {b"a": GHOST}) != []


def test_moments_of_unpacking_are_forgiven_for_directories_only() -> None:
    """A file's time comes from the archive."""
    assert _differences({b"a": _DIRECTORY}, {b"a": replace(_DIRECTORY, mtime_ns=_NOW + 1)}) == []
    assert _differences({b"a": _DIRECTORY}, {b"a": replace(_DIRECTORY, mtime_ns=_NOW - 1)}) != []
    assert _differences({b"a": _FILE}, {b"a": replace(_FILE, mtime_ns=_NOW + 1)}) != []


def test_merged_directories_have_no_link_count() -> None:
    """Overlayfs says 1 for them; other counts are compared."""
    assert _differences({b"a": _DIRECTORY}, {b"a": replace(_DIRECTORY, nlink=1)}) == []
    assert _differences({b"a": _DIRECTORY}, {b"a": replace(_DIRECTORY, nlink=3)}) != []


def _write_at(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"x")


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda root: _write_at(root / "hole", 150_000), "content"),
        (lambda root: (root / "plain").write_bytes(b"plaiN"), "content"),
        (lambda root: os.truncate(root / "hole", 300_000), "size"),
        (lambda root: (root / "plain").chmod(0o600), "mode"),
        (lambda root: os.utime(root / "plain", ns=(0, 1)), "mtime_ns"),
        (lambda root: (root / "second").hardlink_to(root / "plain"), "nlink"),
    ],
)
def test_listing_sees_a_change(change: Callable[[Path], object], fact: str, tmp_path: Path) -> None:
    """What is done to a file shows in its facts."""
    (tmp_path / "plain").write_bytes(b"plain")
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 200_000)
    before = listing(tmp_path)
    change(tmp_path)
    assert any(f": {fact}: " in line for line in _differences(listing(tmp_path), before))


def test_holes_equal_zeros(tmp_path: Path) -> None:
    """How a file is stored is not its content."""
    for name in ("hole", "zeros"):
        (tmp_path / name).write_bytes(b"" if name == "hole" else bytes(200_000))
        os.truncate(tmp_path / name, 200_000)
    found = listing(tmp_path)
    assert found[b"hole"].content == found[b"zeros"].content
