"""What is wrong with a document, or odd about it: one line each, for the person who wrote it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

_MAX_SHOWN: Final = 60
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./-]{1,120}")


@dataclass(frozen=True, slots=True)
class Problem:
    """``source``: the file or object. ``where``: document and field. ``message``: what is allowed there."""

    source: str
    where: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.source, self.where, self.message)))


@dataclass(slots=True)
class Findings:
    """Collects while a document is read. A problem refuses the document, a warning does not."""

    source: str
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def refuse(self, where: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(self.source, where, message))

    def warn(self, where: str, message: str) -> None:
        """Note a warning."""
        self.warnings.append(Problem(self.source, where, message))


def shown(value: Any) -> str:
    """``value`` on one short line, whatever it is."""
    if isinstance(value, dict):
        return f"a mapping of {len(value)}"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}"
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        return "a number far out of range"
    text = repr(value[: _MAX_SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def named(key: Any) -> str:
    """A field's name as part of a path: itself if it is an ordinary one."""
    plain = (
        isinstance(key, str)
        and key.isascii()
        and key.replace("-", "").replace("/", "").replace(".", "").isalnum()
    )
    return str(key) if plain and len(str(key)) <= _MAX_SHOWN else shown(key)
