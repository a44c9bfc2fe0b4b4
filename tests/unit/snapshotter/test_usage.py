"""usage: what a directory takes, bounded in time."""

from __future__ import annotations

import os
from pathlib import Path

from imagecached.snapshotter.usage import Gauge, Usage, measure


class Clock:
    """Moves on by ``step`` at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def fill(directory: Path, files: int) -> Path:
    """A directory with a subdirectory per file."""
    for number in range(files):
        (directory / str(number)).mkdir()
        (directory / str(number) / "f").write_bytes(b"x" * 10_000)
    return directory


def test_bytes_on_disk_and_inodes(tmp_path: Path) -> None:
    """Holes take nothing, a file with two names counts once, links are not followed."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/data").write_bytes(b"x" * 100_000)
    (tmp_path / "again").hardlink_to(tmp_path / "d/data")
    (tmp_path / "link").symlink_to("/usr")
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 30)
    found = measure(tmp_path, Clock(), 1)
    assert found.whole
    assert found.usage.inodes == 5
    assert 100_000 <= found.usage.size < 200_000


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    """A snapshot may be removed under the walk."""
    assert measure(tmp_path / "gone", Clock(), 1).usage == Usage()


def test_a_walk_ends_in_time(tmp_path: Path) -> None:
    """It gives what it has counted; the next one gives no less than was known."""
    clock, gauge = Clock(), None
    gauge = Gauge(clock, limit_seconds=3)
    fill(tmp_path, 10)
    whole = gauge.measure(1, tmp_path)
    assert whole.whole
    clock.step = 1
    part = gauge.measure(1, tmp_path)
    assert not part.whole
    assert part.usage == whole.usage
    assert measure(tmp_path, Clock(1), 3).usage.size < whole.usage.size


def test_a_figure_is_kept_for_as_long_as_it_was_dear(tmp_path: Path) -> None:
    """Cheap ones for seconds, dear ones for minutes; forgotten at once when told so."""
    clock = Clock()
    gauge = Gauge(clock)
    assert gauge.recent(1) is None
    usage = gauge.measure(1, tmp_path).usage
    clock.now += 4
    assert gauge.recent(1) == usage
    clock.now += 2
    assert gauge.recent(1) is None
    clock.step = 0.5  # the walk looks at the clock three times
    gauge.measure(1, tmp_path)
    clock.step = 0
    clock.now += 40
    assert gauge.recent(1) is not None
    gauge.forget(1)
    assert gauge.recent(1) is None


def test_devices_are_counted_not_opened(tmp_path: Path) -> None:
    """A pipe blocks whoever opens it."""
    os.mkfifo(tmp_path / "pipe")
    assert measure(tmp_path, Clock(), 1).usage.inodes == 2
