"""Which kernel this is, and which ways of mounting a layer file are known to be faulty on it. Pure.

Facts, not guesses: each row of the table names the fault and where it was fixed. Kernels that a distribution
keeps under one number while it mends them (6.12.0-….el10, 6.17.0-…-generic) are judged by that number when
they tell no better one: too careful costs a little memory, too bold a panic.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

Version = tuple[int, int, int]


class Method(StrEnum):
    """A rung of the mount ladder, best first."""

    DIRECTIO = "directio"
    """File-backed with the option ``directio``: the page cache holds each byte once."""
    BUFFERED = "buffered"
    """File-backed through the page cache of the layer file: it holds each byte twice."""
    LOOP = "loop"
    """A loop device with 512-byte sectors, buffered."""


LADDER: Final = tuple(Method)
_FILE_BACKED: Final = (Method.DIRECTIO, Method.BUFFERED)


@dataclass(frozen=True, slots=True)
class Fault:
    """``methods`` must not be tried on kernels from ``first`` up to, without, ``fixed``."""

    first: Version
    fixed: Version
    methods: tuple[Method, ...]
    reason: str


_PANIC: Final = "file-backed mounts of 512-byte blocks panic (CVE-2024-56750)"
_FREED: Final = "directio uses memory after it was freed (CVE-2026-23224)"
_STACKED: Final = "file-backed mounts count as a stacking level, so overlays inside containers fail"

FAULTS: Final = (
    Fault((6, 12, 0), (6, 12, 2), _FILE_BACKED, _PANIC),
    Fault((6, 12, 63), (6, 12, 66), _FILE_BACKED, _STACKED),
    Fault((6, 17, 13), (6, 18, 0), _FILE_BACKED, _STACKED),
    Fault((6, 18, 2), (6, 18, 6), _FILE_BACKED, _STACKED),
    Fault((6, 12, 0), (6, 12, 72), (Method.DIRECTIO,), _FREED),
    Fault((6, 13, 0), (6, 18, 11), (Method.DIRECTIO,), _FREED),
    Fault((6, 19, 0), (6, 19, 1), (Method.DIRECTIO,), _FREED),
)


@dataclass(frozen=True, slots=True)
class Kernel:
    """``release``: what uname says; ``version``: that of the upstream kernel, as far as it tells."""

    release: str
    version: Version

    @classmethod
    def running(cls) -> Kernel:
        """The kernel of this machine."""
        uname = os.uname()
        try:
            signature = Path("/proc/version_signature").read_text()  # Ubuntu only
        except OSError:
            signature = ""
        return cls.parse(uname.release, uname.version, signature)

    @classmethod
    def parse(cls, release: str, build: str = "", signature: str = "") -> Kernel:
        """``build``: uname -v (Debian tells the version there); ``signature``: Ubuntu's file of that name."""
        debian = re.search(r"\bDebian (\d+\.\d+\.\d+)", build)
        ubuntu = re.fullmatch(r"Ubuntu \S+ (\d+\.\d+\.\d+)\s*", signature)
        told = debian or ubuntu
        return cls(release, _version(told[1] if told else release))

    def faults(self) -> dict[Method, str]:
        """The methods that must not be tried here, each with the reason."""
        found: dict[Method, str] = {}
        for fault in FAULTS:
            if fault.first <= self.version < fault.fixed:
                for method in fault.methods:
                    found.setdefault(method, fault.reason)
        return found

    @property
    def has_small_blocks(self) -> bool:
        """Whether upstream's EROFS of this version takes 512-byte blocks; distributions may know better."""
        return self.version >= (6, 4, 0) or (6, 1, 113) <= self.version < (6, 2, 0)


def _version(text: str) -> Version:
    numbers = [int(number) for number in re.findall(r"\d+", text.partition("-")[0])[:3]]
    major, minor, patch, *_ = [*numbers, 0, 0, 0]
    return major, minor, patch
