"""A folder of ImageCache manifests: ``*.yaml``, ``*.yml`` and ``*.json``, read whenever something changes.

It is looked at every few seconds, by names, sizes and times alone; a changed file is read when it has stayed
the same for one more look, so a file that is being written is let alone. Invariants: one bad file stops no
other; what a file declared before it broke stands until it is mended or removed; of two files that declare
one name the first by name counts, and the other is told so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imagecached.aio import Bell, finish
from imagecached.caches.declared import Declared
from imagecached.events import EventLog
from imagecached.imagecache import ImageCache, Parsed, Problem, parse_manifests

log = logging.getLogger(__name__)

SUFFIXES: Final = (".yaml", ".yml", ".json")
FILE_BYTES: Final = 1 << 20
MOST_FILES: Final = 1000
LOOK_SECONDS: Final = 2.0

Stamp = tuple[int, int, int]
"""What tells that a file has changed: inode, size, time."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the folder says. ``unclear``: files with a problem."""

    declared: Mapping[str, Declared]
    unclear: frozenset[str]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


OnReading = Callable[[Reading], None]


class Folder:
    """The folder at ``path``, which may be missing; ``on_reading`` hears what it says when that changes."""

    def __init__(self, path: Path, on_reading: OnReading, events: EventLog) -> None:
        self.path = path
        self._events = events
        self.reading = Reading({}, frozenset())
        self._on_reading = on_reading
        self._seen: Mapping[Path, Stamp] = {}
        self._read: Mapping[Path, Stamp] | None = None
        self._parsed: dict[Path, tuple[Stamp, Parsed]] = {}
        self._bell = Bell()
        self._looking = asyncio.Lock()

    def wake(self) -> None:
        """Look now, and read what there is without waiting for it to settle."""
        self._seen, self._read = {}, None
        self._bell.ring()

    async def run(self) -> None:
        """Look for ever; the first look reads at once."""
        while True:
            await self.look()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def look(self) -> None:
        """Look once, and read if something has changed and is settled."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        present = await finish(_stamps, self.path)
        settled = present == self._seen or self._read is None
        self._seen = present
        if settled and present != self._read:
            self._read = present
            reading = await finish(self._read_all, present)
            if reading != self.reading:
                self._tell(reading)
                self.reading = reading
            self._on_reading(reading)

    def _tell(self, now: Reading) -> None:
        """Each problem once, when it comes."""
        before = self.reading
        for problem in now.problems:
            if problem not in before.problems:
                self._events.emit("imagecache_refused", problem.source, problem=str(problem))
                log.warning("manifest refused", extra={"problem": str(problem)})
        for warning in now.warnings:
            if warning not in before.warnings:
                log.info("manifest accepted with a warning", extra={"warning": str(warning)})

    def _read_all(self, present: Mapping[Path, Stamp]) -> Reading:
        """In a thread: files that are as they were are not parsed again."""
        for file, stamp in present.items():
            known = self._parsed.get(file)
            if known is None or known[0] != stamp:
                self._parsed[file] = (stamp, read_file(file))
        self._parsed = {file: parsed for file, parsed in self._parsed.items() if file in present}
        return merged({file: parsed for file, (_, parsed) in self._parsed.items()})


def read_file(file: Path) -> Parsed:
    """What one file says; what keeps it from being read is a problem."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not stop us
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return _refused(file, "must be a file")
            text = stream.read(FILE_BYTES + 1)
    except OSError as error:
        return _refused(file, error.strerror or str(error))
    if len(text) > FILE_BYTES:
        return _refused(file, f"must have at most {FILE_BYTES} bytes")
    return parse_manifests(text, str(file))


def merged(files: Mapping[Path, Parsed]) -> Reading:
    """All files together. Pure."""
    declared: dict[str, Declared] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    unclear: set[str] = set()
    for file in sorted(files):
        parsed = files[file]
        problems += parsed.problems
        warnings += parsed.warnings
        if parsed.problems:
            unclear.add(str(file))
        for cache in parsed.caches:
            if (other := declared.get(cache.name)) is not None:
                problems.append(_twice(file, cache, other))
            else:
                declared[cache.name] = Declared(cache, origin=str(file))
    return Reading(declared, frozenset(unclear), tuple(problems), tuple(warnings))


def _twice(file: Path, cache: ImageCache, other: Declared) -> Problem:
    text = f"{cache.name!r} is declared by {other.origin} already, which counts"
    return Problem(str(file), "metadata.name", text)


def _refused(file: Path, why: str) -> Parsed:
    return Parsed(problems=(Problem(str(file), "", why),))


def _stamps(folder: Path) -> Mapping[Path, Stamp]:
    return dict(sorted(_each(folder)))


def _each(folder: Path) -> Iterator[tuple[Path, Stamp]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # missing, or no folder: nothing is declared
        return
    for path in [path for path in entries if path.suffix in SUFFIXES and path.name[0] != "."][:MOST_FILES]:
        try:
            facts = path.stat()
        except OSError:  # a link to nowhere; reading it says so
            yield path, (0, 0, 0)
            continue
        yield path, (facts.st_ino, facts.st_size, facts.st_mtime_ns)
