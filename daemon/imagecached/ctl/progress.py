"""How far pulls are, on standard error: a live bar per image on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from imagecached.ctl.output import percent, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Final, Self, TextIO

    from rich.progress import TaskID

_LINE_SECONDS: Final = 2.0


class Silent:
    """Shows nothing, for the length of a ``with`` body."""

    def __enter__(self) -> Self:
        return self

    def show(self, progress: Mapping[str, Any]) -> None:
        """Take note of one image's progress."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""


class Lines(Silent):
    """A line for every new state of an image, and every two seconds in between."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._told: dict[str, tuple[str, float]] = {}

    def show(self, progress: Mapping[str, Any]) -> None:
        image, state, now = progress["image"], progress["state"], self._clock()
        told_state, told_at = self._told.get(image, ("", now))
        if state == told_state and now - told_at < _LINE_SECONDS:
            return
        self._told[image] = (state, now)
        print(f"{image}: {_sentence(progress)}", file=self._stream, flush=True)


def _sentence(progress: Mapping[str, Any]) -> str:
    done, total = progress["bytes_done"], progress["bytes_total"]
    layers = progress.get("layers")  # an ImageCache's are not told
    if not layers and (layers is not None or not total):
        return str(progress["state"])
    if layers is None:
        reused = size(progress["bytes_reused"])
        return f"{progress['state']} {percent(done, total)}, {size(done)} of {size(total)}, {reused} reused"
    ready = sum(layer["done_bytes"] == layer["size_bytes"] for layer in layers)
    return (
        f"{progress['state']} {percent(done, total)}, {size(done)} of {size(total)},"
        f" {ready} of {len(layers)} layers, {size(progress['bytes_reused'])} reused"
    )


class Bars(Silent):
    """A bar per image, drawn by rich."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TextColumn("{task.fields[state]}"),
            console=Console(stderr=True),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, progress: Mapping[str, Any]) -> None:
        image, state = progress["image"], progress["state"]
        if image not in self._bars:
            self._bars[image] = self._progress.add_task(image, total=None, state=state)
        total = progress["bytes_total"] if progress.get("layers", True) else None
        self._progress.update(self._bars[image], total=total, completed=progress["bytes_done"], state=state)


def display(*, quiet: bool) -> Silent:
    """The one that suits standard error."""
    if quiet:
        return Silent()
    return Bars() if sys.stderr.isatty() else Lines(sys.stderr)
