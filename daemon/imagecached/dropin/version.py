"""Versions of containerd, and what each is the first to understand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from imagecached.errors import InvalidInput

_NUMBERS: Final = re.compile(r"(?:^|[\sv:])(\d{1,4})\.(\d{1,4}|x)(?:\.(\d{1,4}|x))?(?![\d.])")


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """``str`` is ``2.1.9``. A part that nobody said is 0, so that only the certain is counted on."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """Of ``2.1.9``, ``v1.7``, ``2.x`` or what ``containerd --version`` prints. InvalidInput."""
        found = _NUMBERS.search(text)
        if found is None:
            raise InvalidInput(
                f"{text[:80]!r} names no version of containerd; expected for example 1.7 or 2.x"
            )
        major, minor, patch = (int(part) if part and part != "x" else 0 for part in found.groups())
        if found[2] == "x" and major == 2:
            return cls(2, 1)  # what clusters run; 2.0 is over
        return cls(major, minor, patch)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def supported(self) -> bool:
        """It has the snapshots service that we speak."""
        return self >= Version(1, 6)

    @property
    def has_handlers(self) -> bool:
        """A runtime handler may have a snapshotter of its own."""
        return self >= Version(1, 7)

    @property
    def honours_pins(self) -> bool:
        """CRI tells the kubelet which images it must keep."""
        return self >= Version(1, 7, 3) or Version(1, 6, 22) <= self < Version(1, 7)

    @property
    def has_exports(self) -> bool:
        """A proxy plugin can say where its data lies."""
        return self >= Version(1, 7, 16) or Version(1, 6, 32) <= self < Version(1, 7)

    @property
    def finds_relative_patterns(self) -> bool:
        """A pattern among the imports counts from the folder of its file."""
        return self >= Version(1, 7, 16)

    @property
    def merges(self) -> bool:
        """An imported file adds to a plugin's section; before, it replaces all of it."""
        return self >= Version(2, 0)

    @property
    def transfers(self) -> bool:
        """CRI pulls by the transfer service unless told otherwise."""
        return self >= Version(2, 1)
