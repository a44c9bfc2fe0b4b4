"""imagecachectl: numbers, ages and tables for people; progress without a terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest

from imagecached.ctl import output
from imagecached.ctl.progress import Bars, Lines


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1048575, "1.0 MiB"),
        (387 << 20, "387.0 MiB"),
        (1 << 40, "1.0 TiB"),
        (1 << 62, "4096.0 PiB"),
    ],
)
def test_sizes(count: int | None, text: str) -> None:
    """In powers of 1024, never four digits before the point while there is a greater unit."""
    assert output.size(count) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [(0, "0 ms"), (0.0044, "4 ms"), (1.234, "1.23 s"), (12.34, "12.3 s"), (95.4, "95 s")],
)
def test_durations(duration: float, text: str) -> None:
    """About three digits."""
    assert output.seconds(duration) == text


@pytest.mark.parametrize(
    ("passed", "text"),
    [
        (-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (599, "9m59s"), (600, "10m"),
        (3 * 3600 - 1, "179m"), (3 * 3600, "3h"), (4 * 3600 + 1800, "4h30m"), (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"), (48 * 3600, "2d"), (75 * 3600, "3d3h"), (8 * 86400, "8d"),
        (729 * 86400, "729d"), (730 * 86400, "2y"), (800 * 86400, "2y70d"), (9 * 365 * 86400, "9y"),
    ],
)  # fmt: skip
def test_ages(passed: int, text: str) -> None:
    """As kubectl prints them, two units while they matter; a clock that was set back is no age."""
    assert output.age("2023-11-14T22:13:20Z", now=1_700_000_000 + passed) == text


@pytest.mark.parametrize(
    ("done", "total", "text"), [(0, 0, "100%"), (999, 1000, "99%"), (1000, 1000, "100%")]
)
def test_percentages(done: int, total: int, text: str) -> None:
    """Only the whole is 100%."""
    assert output.percent(done, total) == text


def test_digests_are_shortened() -> None:
    """To what people compare."""
    assert output.short("sha256:0123456789abcdef") == "0123456789ab"
    assert output.short(None) == "-"


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """No trailing blanks; an empty table is its head."""
    output.print_table(("A", "LONGER"), [("a longer cell", "x"), ("b", "")])
    assert capsys.readouterr().out == "A               LONGER\na longer cell   x\nb\n"
    output.print_table(("A", "B"), [])
    assert capsys.readouterr().out == "A   B\n"


def test_progress_lines_come_now_and_then() -> None:
    """With every new state, and every two seconds in between."""
    now = 0.0
    stream = io.StringIO()
    lines = Lines(stream, clock=lambda: now)

    def show(state: str, done: int, layers: int = 2) -> None:
        parts: list[dict[str, Any]] = [{"done_bytes": done, "size_bytes": 1000}] * layers
        lines.show(
            {
                "image": "a",
                "state": state,
                "bytes_done": done,
                "bytes_total": 1000,
                "bytes_reused": 0,
                "layers": parts,
            }
        )

    show("resolving", 0, layers=0)
    for done in (1, 2, 500):
        show("fetching", done)
        now += 1
    show("ready", 1000)
    assert stream.getvalue().splitlines() == [
        "a: resolving",
        "a: fetching 0%, 1 B of 1000 B, 0 of 2 layers, 0 B reused",
        "a: fetching 50%, 500 B of 1000 B, 0 of 2 layers, 0 B reused",
        "a: ready 100%, 1000 B of 1000 B, 2 of 2 layers, 0 B reused",
    ]


def test_bars_count_bytes() -> None:
    """One per image or ImageCache; without a total it only says that something goes on."""
    bars = Bars()
    numbers = {"bytes_total": 0, "bytes_done": 0, "bytes_reused": 0}
    bars.show({"image": "demo", "state": "Pending", **numbers})
    bars.show({"image": "a", "state": "resolving", "layers": [], **numbers})
    numbers = {"bytes_total": 150, "bytes_done": 50, "bytes_reused": 20}
    bars.show({"image": "demo", "state": "Creating", **numbers})
    layers = [{"size_bytes": 150, "done_bytes": 50}]
    bars.show({"image": "a", "state": "fetching", "layers": layers, **numbers})
    shown = [
        (task.description, task.total, task.completed, task.fields["state"]) for task in bars._progress.tasks
    ]
    assert shown == [("demo", 150, 50, "Creating"), ("a", 150, 50, "fetching")]
