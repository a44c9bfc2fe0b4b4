"""Platforms and which of an index's manifests suits this machine best.

Normal forms and the order of preference are containerd's (github.com/containerd/platforms: Normalize,
Only), so that both choose the same manifest. Pure but for :meth:`Platform.host`, which asks the C library.
"""

from __future__ import annotations

import platform as system
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from imagecached.errors import InvalidInput

_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_MACHINES: Final = {
    **dict.fromkeys(("i386", "i486", "i586", "i686"), "386"),
    "armv8l": "arm/v8",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "armv5tel": "arm/v5",
    "loongarch64": "loong64",
}
_NEWEST_ARM: Final = 9
_V9_LIKE_V8: Final = 5  # Armv9.n includes Armv8.(n+5)
_V8_LAST: Final = 9


@dataclass(frozen=True, slots=True)
class Platform:
    """``os/architecture[/variant]`` in containerd's normal form.

    ``os_features`` of an offered platform must all be there on the host.
    """

    os: str
    architecture: str
    variant: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "", os_features: tuple[str, ...] = ()) -> Platform:
        """The normal form: ``x86_64`` is ``amd64``, ``arm64/v8`` is ``arm64``, ``arm`` is ``arm/v7``."""
        os = os.lower()
        architecture, variant = _normal(architecture.lower(), variant.lower())
        return cls("darwin" if os == "macos" else os, architecture, variant, os_features)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """``linux/arm64/v8`` as people write it; InvalidInput."""
        words = text.split("/")
        if len(words) not in (2, 3) or not all(_WORD.fullmatch(word) for word in words):
            raise InvalidInput(f"not a platform (os/architecture[/variant]): {text[:150]!r}")
        return cls.of(words[0], words[1], words[2] if len(words) == 3 else "")

    @classmethod
    def host(cls) -> Platform:
        """The machine this runs on."""
        machine = system.machine()
        return cls.parse(f"linux/{_MACHINES.get(machine, machine)}")

    def suitable(self) -> tuple[Platform, ...]:
        """What this machine can run, best first: itself, then older variants and 32-bit companions."""
        return tuple(
            Platform(self.os, architecture, variant)
            for architecture, variant in _companions(self.architecture, self.variant)
        )

    def rank(self, offered: Platform) -> int | None:
        """How well ``offered`` suits this machine: 0 is best, None not at all."""
        if not set(offered.os_features) <= set(self.os_features):
            return None
        plain = replace(offered, os_features=())
        return next((rank for rank, fit in enumerate(self.suitable()) if fit == plain), None)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def _normal(architecture: str, variant: str) -> tuple[str, str]:
    match architecture, variant:
        case ("i386", _):
            return "386", ""
        case ("x86_64" | "x86-64" | "amd64", _):
            return "amd64", "" if variant == "v1" else variant
        case ("aarch64" | "arm64", "8" | "v8" | "v8.0"):
            return "arm64", ""
        case ("aarch64" | "arm64", "9" | "9.0" | "v9.0"):
            return "arm64", "v9"
        case ("aarch64", _):
            return "arm64", variant
        case ("armhf", _) | ("arm", "" | "7"):
            return "arm", "v7"
        case ("armel", _):
            return "arm", "v6"
        case ("arm", "5" | "6" | "8"):
            return "arm", f"v{variant}"
    return architecture, variant


def _companions(architecture: str, variant: str) -> Iterator[tuple[str, str]]:
    match architecture:
        case "amd64":
            yield architecture, variant
            yield from (_normal(architecture, f"v{older}") for older in range(_number(variant) - 1, 0, -1))
            yield "386", ""
        case "arm":
            yield architecture, variant
            yield from ((architecture, f"v{older}") for older in range(_number(variant) - 1, 4, -1))
        case "arm64":
            yield from (_normal(architecture, version) for version in _arm64_versions(variant or "v8"))
            yield from (("arm", f"v{older}") for older in range(8, 4, -1))
        case _:
            yield architecture, variant


def _number(variant: str) -> int:
    digits = variant.removeprefix("v")
    return int(digits) if digits.isdecimal() and len(digits) == 1 else 0


def _arm64_versions(variant: str) -> Iterator[str]:
    match = re.fullmatch(r"v([89])(?:\.([0-9]))?", variant)
    if match is None:
        yield variant
        return
    major, minor = int(match[1]), int(match[2] or 0)
    yield from (f"v{major}.{older}" for older in range(minor, -1, -1))
    if major == _NEWEST_ARM:
        yield from (f"v8.{older}" for older in range(min(minor + _V9_LIKE_V8, _V8_LAST), -1, -1))
