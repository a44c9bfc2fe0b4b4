"""The folders of writable mounts and runs, and who still needs them.

Tree::

    <root>/containers/<id>/    upper, work     the writable half of an overlay
                               rootfs, config.json, client     a run: the OCI bundle, and whom it was made for
    <root>/containers/<id>.trash     on its way out

An overlay made for a folder is called ``imagecached:<id>`` in the kernel's table of mounts, so the table says
which folders are in use: here, or as the ``/`` of a container whoever runs it. Invariant: a folder that
neither has its overlay nor is a container's root is garbage and goes with :meth:`Workspaces.collect`.
"""

from __future__ import annotations

import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from imagecached.errors import InvalidInput
from imagecached.mounts import mountinfo
from imagecached.mounts.mountinfo import Mount

_PREFIX: Final = "imagecached:"
_ID: Final = re.compile(r"[0-9a-f]{12}")
_TRASH: Final = ".trash"
_START_TIME_FIELD: Final = 19  # of /proc/<pid>/stat, counted behind the name


class Workspaces:
    """The folders below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def path(self, container: str) -> Path:
        """Its folder, there or not. InvalidInput: not an id."""
        if not _ID.fullmatch(container):
            raise InvalidInput(f"not the id of a container: {container[:100]!r}")
        return self._directory / container

    def create(self, container: str) -> Path:
        """A new, empty folder."""
        path = self.path(container)
        path.mkdir(mode=0o700)
        return path

    def note_client(self, container: str, pid: int) -> None:
        """Remember the process a run is made for; 0: unknown."""
        (self.path(container) / "client").write_text(f"{pid} {_started(pid)}")

    def is_running(self, container: str) -> bool:
        """Whether any process on this machine has the overlay of ``container`` as its root."""
        return source(container) in mountinfo.process_roots()

    def remove(self, container: str) -> None:
        """Delete a folder, in which nothing must be mounted. Done when it is not there."""
        self._discard(self.path(container))
        self.empty_trash(container)

    def collect(self) -> list[str]:
        """Put aside, for :meth:`empty_trash`, what nobody needs. Nobody may create a folder meanwhile.

        Returns the ids of runs whose client is dead and whose container has ended: the caller releases them.
        """
        table = {id_of(mount): mount for mount in mountinfo.read()}
        running = mountinfo.process_roots()
        abandoned = []
        for path in self._folders():
            if source(path.name) in running:
                continue
            if path.name not in table:
                self._discard(path)
            elif table[path.name].point == str(path / "rootfs") and _client_is_dead(path):
                abandoned.append(path.name)
        return abandoned

    def empty_trash(self, container: str = "*") -> None:
        """Delete what was put aside."""
        for trash in self._directory.glob(container + _TRASH):
            with suppress(FileNotFoundError):  # somebody else is at it
                shutil.rmtree(trash)

    def _folders(self) -> list[Path]:
        return [path for path in self._directory.iterdir() if _ID.fullmatch(path.name)]

    def _discard(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            path.rename(path.with_suffix(_TRASH))


def new_id() -> str:
    """An id that nobody else has."""
    return secrets.token_hex(6)


def source(container: str) -> str:
    """What the overlay of ``container`` is called in the table of mounts."""
    return _PREFIX + container


def id_of(mount: Mount) -> str:
    """The inverse: "" for a mount that is not ours."""
    if mount.filesystem != "overlay" or not mount.source.startswith(_PREFIX):
        return ""
    container = mount.source.removeprefix(_PREFIX)
    return container if _ID.fullmatch(container) else ""


def _started(pid: int) -> str:
    """When process ``pid`` began, in ticks since boot: tells it from a later one of that number. "": none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    return stat.rpartition(b")")[2].split()[_START_TIME_FIELD].decode()


def _client_is_dead(path: Path) -> bool:
    try:
        pid, _, started = (path / "client").read_text().partition(" ")
    except OSError:
        return False
    return pid.isdecimal() and pid != "0" and started != _started(int(pid))
