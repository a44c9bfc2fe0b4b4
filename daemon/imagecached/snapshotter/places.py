"""The directories of ordinary snapshots: what the runtime unpacks by itself and what its containers write.

    <root>/s/<n>/fs, work      upper and work of an overlay; <n> is the record's number in base 36
    <root>/s/<n>.trash         on its way out, until no mount shows it any more

Names are short, as all options of an overlay share a page. Invariants: a directory is made before its record
and goes after it; one without record is garbage; a number is never used again while its directory is there,
so that the kernel's table, which names directories as they were given, tells whether trash is in use.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from imagecached.mounts import mountinfo
from imagecached.mounts.failures import translated
from imagecached.mounts.mountinfo import Mount

log = logging.getLogger(__name__)

_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME: Final = re.compile(r"([0-9a-z]{1,12})(\.trash)?")
_SHOWN: Final = re.compile(r"(?:^|/s/|^s/)([0-9a-z]{1,12})(?:\.trash)?/fs/*(?://deleted)?$")
"""Ours by the directory ``s``, however the root is spelled; a path that begins with the number may be."""
_TRASH: Final = ".trash"


class Places:
    """The directories below ``<root>/s``. Synchronous; any thread."""

    def __init__(self, root: Path, taken: Iterable[int]) -> None:
        self.directory = root / "s"
        self.directory.mkdir(mode=0o700, exist_ok=True)
        present = [number for number, _ in self._entries()]
        self._numbering = threading.Lock()
        self.last_number = max((*taken, *present), default=0)
        self._emptying = threading.Lock()

    def next_number(self) -> int:
        """A number that nobody has."""
        with self._numbering:
            self.last_number += 1
            return self.last_number

    def upper(self, number: int) -> Path:
        """The directory that holds the content of a snapshot."""
        return self.directory / _base36(number) / "fs"

    def work(self, number: int) -> Path:
        """What overlayfs wants beside the upper directory."""
        return self.directory / _base36(number) / "work"

    def make(self, number: int) -> None:
        """Make them. The upper one is the root of the tree: 0755 whatever the umask. OutOfSpace."""
        with _translating(f"make the directory of snapshot {number}"):
            (self.directory / _base36(number)).mkdir(mode=0o700)
            upper = self.upper(number)
            upper.mkdir()
            upper.chmod(0o755)
            self.work(number).mkdir(mode=0o711)

    def discard(self, number: int) -> None:
        """Put the directory aside, at once; done when there is none."""
        path = self.directory / _base36(number)
        with suppress(FileNotFoundError), _translating(f"put {path} aside"):
            path.rename(path.with_suffix(_TRASH))

    def discard_unknown(self, known: frozenset[int]) -> int:
        """Put aside every directory whose number is not ``known``; how many there were. Only at start."""
        unknown = [number for number, is_trash in self._entries() if not is_trash and number not in known]
        for number in unknown:
            self.discard(number)
        return len(unknown)

    def empty_trash(self) -> None:
        """Delete what was put aside and is shown by no mount."""
        with self._emptying:
            trash = [number for number, is_trash in self._entries() if is_trash]
            shown = numbers_shown(mountinfo.read()) if trash else frozenset()
            for number in trash:
                if number in shown:
                    log.info("removed snapshot is still mounted", extra={"number": number})
                else:
                    self._delete(number)

    def _delete(self, number: int) -> None:
        path = (self.directory / _base36(number)).with_suffix(_TRASH)
        try:
            shutil.rmtree(path)
        except OSError as error:  # tried again the next time
            log.warning("snapshot not deleted", extra={"path": str(path), "reason": str(error)})

    def _entries(self) -> Iterator[tuple[int, bool]]:
        """(number, whether it is trash) of every directory."""
        with os.scandir(self.directory) as entries:
            matches = [match for entry in entries if (match := _NAME.fullmatch(entry.name))]
        yield from ((int(match[1], 36), match[2] is not None) for match in matches)


def numbers_shown(table: Iterable[Mount]) -> frozenset[int]:
    """Numbers of directories that a mount of ``table`` shows. Pure; rather one too many than one too few."""
    return frozenset(int(number, 36) for mount in table for number in _shown_by(mount))


def _shown_by(mount: Mount) -> Iterator[str]:
    """A relative lower directory may be anybody's, unless the upper one is not ours."""
    paths = [mount.root]
    if mount.filesystem == "overlay":
        options = (option.partition("=") for option in mount.super_options)
        uppers = [value for name, _, value in options if name == "upperdir"]
        foreign = any(not _SHOWN.search(path) for path in uppers)
        paths = [*uppers, *(path for path in mount.lowers if path.startswith("/") or not foreign)]
    yield from (match[1] for path in paths if (match := _SHOWN.search(path)))


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits or "0"


@contextmanager
def _translating(what: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise translated(error, what) from error
