"""What is printed: one line a check, ``ok``, ``FAIL``, ``skip`` or ``note``, and a summary."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

_WIDTH: Final = 14


class Failed(Exception):
    """A check did not hold; the message is what its line says. Ends its scenario."""


class Skipped(Exception):
    """A scenario cannot be tried on this cluster, and the message says why."""


@dataclass(slots=True)
class Report:
    """Prints as it goes; the test that runs it reads :attr:`lines`."""

    scenario: str = ""
    lines: list[str] = field(default_factory=list)
    failures: int = 0
    _began: float = field(default_factory=time.monotonic)

    def ok(self, text: str) -> None:
        """Something that should hold does."""
        self._line("ok", text)

    def fail(self, text: str) -> None:
        """It does not."""
        self.failures += 1
        self._line("FAIL", text)

    def skip(self, text: str) -> None:
        """It could not be tried."""
        self._line("skip", text)

    def note(self, text: str) -> None:
        """A fact worth knowing, or a figure."""
        self._line("note", text)

    def check(self, holds: bool, text: str, otherwise: str = "") -> None:
        """An ``ok`` line, or :class:`Failed` with what was seen instead."""
        if not holds:
            raise Failed(f"{text}: {otherwise}" if otherwise else text)
        self.ok(text)

    def summary(self) -> None:
        """The last line."""
        counts = [f"{self._count(word)} {word}" for word in ("ok", "FAIL", "skip")]
        self.lines.append(f"{', '.join(counts)} in {time.monotonic() - self._began:.0f} s")
        print(self.lines[-1], flush=True)

    def _count(self, word: str) -> int:
        return sum(line.startswith(f"{word} ") for line in self.lines)

    def _line(self, word: str, text: str) -> None:
        one_line = " ".join(text.split())
        self.lines.append(f"{word:<4} {self.scenario:<{_WIDTH}} {one_line}")
        print(self.lines[-1], flush=True)
