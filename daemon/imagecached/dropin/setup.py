"""Puts the drop-in into a node's containerd configuration, and takes it out again.

Everything is tried on a copy by containerd itself before the node sees it. Each file is replaced in one step,
the original of a changed one is kept, and a record tells how to go back; none of it starts or stops anything.
Invariants: a failure leaves the files as they were; :meth:`Setup.undo` restores an unchanged main file byte
for byte, and changes no more than one line of one that somebody edited meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from imagecached.dropin.imports import covers, with_import, without_import
from imagecached.dropin.objections import InUse, objections
from imagecached.dropin.settings import NAME, Cri, Mode, Places, check, explained, section
from imagecached.dropin.version import Version
from imagecached.dropin.written import Written, read
from imagecached.errors import FailedPrecondition, ImagecachedError, InvalidInput, Unsupported

MAIN: Final = Path("/etc/containerd/config.toml")
ADDRESS: Final = Path("/run/containerd/containerd.sock")
DATA: Final = Path("/var/lib/containerd")
RECORDS: Final = Path("/opt/imagecached/containerd")
_FOLDER: Final = "conf.d"
_ENTRY: Final = f"{_FOLDER}/99-{NAME}.toml"
_TRIAL: Final = f".{NAME}-trial"
_DUMP_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Record:
    """How to go back. ``main_digest``: of the main file as we left it; empty if we did not touch it."""

    main_digest: str = ""
    made_main: bool = False
    made_folder: bool = False
    link: str = ""


class Setup:
    """One node: its ``main`` file, our ``records``, the ``program`` that reads them, and where its ``data``
    are unless the files say otherwise.
    """

    def __init__(
        self, main: Path = MAIN, records: Path = RECORDS, program: str = "containerd", data: Path = DATA
    ) -> None:
        self.main = main
        self._data = data
        self.drop_in = main.parent / _ENTRY
        self._records = records
        self._record = records / "record.json"
        self._backup = records / "config.toml"
        self._program = program

    def version(self) -> Version:
        """Of the containerd that is installed. Unsupported: there is none."""
        return Version.parse(self._run("--version"))

    def written(self) -> Written:
        """What the node's files say without us."""
        return read(self.main, self.version(), without=self.drop_in)

    def address(self) -> Path:
        """The socket of this node's containerd."""
        return Path(str(section(self.written().document, "grpc").get("address") or ADDRESS))

    def install(self, mode: Mode, places: Places, in_use: InUse | None) -> bool:
        """Have containerd start pods from us when it starts next; False if that is so already.

        FailedPrecondition: it would break something, with all reasons.
        """
        version, written, before = self.version(), self.written(), self._before()
        text, main = self.check(mode, places, in_use), self._main_text(version)
        if main is None and before == text.encode():
            return False
        link = self._link(version, written)
        if main is not None or not self._record.exists():
            self._keep(main, link)
        if link:
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(places.root)
        self.drop_in.parent.mkdir(exist_ok=True)
        _replace(self.drop_in, text.encode())
        if main is not None:
            _replace(self.main, main.encode(), like=self._backup)
        try:
            self._understood(self.main, mode, places)
        except ImagecachedError:
            if main is None and before is not None:
                _replace(self.drop_in, before)
            else:
                self.undo()
            raise
        return True

    def check(self, mode: Mode, places: Places, in_use: InUse | None) -> str:
        """The drop-in, tried by containerd. FailedPrecondition, Unsupported: it would break something."""
        version, written = self.version(), self.written()
        check(version, mode)
        if reasons := objections(version, mode, written, in_use, _mode(self._before())):
            raise FailedPrecondition("; ".join(reasons))
        text = explained(version, mode, written, places)
        self._try(text, mode, places)
        return text

    def is_stale(self, places: Places) -> bool:
        """What we would write today is not what is there: containerd or the node's settings changed."""
        before = self._before()
        mode = _mode(before)
        if before is None or mode is None:
            return False
        return explained(self.version(), mode, self.written(), places).encode() != before

    def undo(self) -> bool:
        """Take back what :meth:`install` did; False if there is nothing to take back."""
        record = self._known()
        if record is None:
            return False
        if record.main_digest and self.main.exists():
            self._restore_main(record)
        self.drop_in.unlink(missing_ok=True)
        if record.made_folder and not any(self.drop_in.parent.iterdir()):
            self.drop_in.parent.rmdir()
        if record.link and Path(record.link).is_symlink():
            Path(record.link).unlink()
        for path in (self._record, self._backup):
            path.unlink(missing_ok=True)
        self._records.rmdir()
        return True

    def _main_text(self, version: Version) -> str | None:
        """The main file with our import; None if it has it."""
        if not self.main.exists():
            return with_import(f"version = {3 if version.merges else 2}\n", _ENTRY)
        if covers(_loaded(self.main), self.main, self.drop_in, version):
            return None
        return with_import(self.main.read_text(), _ENTRY)

    def _try(self, text: str, mode: Mode, places: Places) -> None:
        """Let containerd read it all, beside the real files, and look at what it understood."""
        drop_in, main = (self.main.parent / f"{_TRIAL}{part}" for part in ("-drop-in", ""))
        old = self.main.read_text() if self.main.exists() else f"version = {tomllib.loads(text)['version']}\n"
        if self.drop_in.exists():  # an older one of ours, which the new one is to replace
            old = without_import(old, _ENTRY)
        self.main.parent.mkdir(parents=True, exist_ok=True)
        try:
            drop_in.write_text(text)
            main.write_text(with_import(old, drop_in.name))
            self._understood(main, mode, places)
        finally:
            for path in (drop_in, main):
                path.unlink(missing_ok=True)

    def _understood(self, main: Path, mode: Mode, places: Places) -> None:
        """FailedPrecondition: containerd makes something else of these files."""
        understood = tomllib.loads(self._run("--config", str(main), "config", "dump"))
        plugin = understood.get("proxy_plugins", {}).get(NAME, {})
        if plugin.get("address") != str(places.socket) or not _in_force(understood, mode):
            raise FailedPrecondition(
                f"containerd does not understand {main} as it is meant: does a later import say otherwise?"
            )

    def _link(self, version: Version, written: Written) -> Path | None:
        """Where a containerd that cannot be told of our root has statistics look for our disk.

        None if nothing is to be made there.
        """
        data = Path(str(written.document.get("root") or self._data))
        link = data / f"io.containerd.snapshotter.v1.{NAME}"
        return None if version.has_exports or os.path.lexists(link) else link

    def _keep(self, main: str | None, link: Path | None) -> None:
        """The record and the original, before anything is changed."""
        self._records.mkdir(parents=True, exist_ok=True)
        if main is not None and self.main.exists():
            _replace(self._backup, self.main.read_bytes(), like=self.main)
        before = self._known() or Record()
        record = Record(
            main_digest="" if main is None else sha256(main.encode()).hexdigest(),
            made_main=main is not None and not self.main.exists(),
            made_folder=before.made_folder or not self.drop_in.parent.exists(),
            link=str(link or before.link),
        )
        _replace(self._record, json.dumps(asdict(record)).encode())

    def _before(self) -> bytes | None:
        """The drop-in that is there."""
        return self.drop_in.read_bytes() if self.drop_in.exists() else None

    def _known(self) -> Record | None:
        """What was done before, if anything was."""
        if not self._record.exists():
            return None
        try:
            return Record(**json.loads(self._record.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise FailedPrecondition(f"{self._record}: cannot be read: {error}") from error

    def _restore_main(self, record: Record) -> None:
        content = self.main.read_bytes()
        if sha256(content).hexdigest() != record.main_digest:
            _replace(self.main, without_import(content.decode(), _ENTRY).encode(), like=self.main)
        elif record.made_main:
            self.main.unlink()
        else:
            _replace(self.main, self._backup.read_bytes(), like=self._backup)

    def _run(self, *arguments: str) -> str:
        command = [self._program, *arguments]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                timeout=_DUMP_SECONDS,
                stdin=subprocess.DEVNULL,
            )
        except FileNotFoundError:
            raise Unsupported("no containerd is installed here") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FailedPrecondition(f"{' '.join(command)} failed: {error}") from error
        if done.returncode:
            said = done.stderr.strip().splitlines()
            raise FailedPrecondition(f"{' '.join(command)} failed: {said[-1] if said else done.returncode}")
        return done.stdout


def _in_force(understood: Mapping[str, Any], mode: Mode) -> bool:
    plugins = understood.get("plugins", {})
    old = plugins.get("io.containerd.grpc.v1.cri", {}).get("containerd", {})
    images = plugins.get("io.containerd.cri.v1.images", old)
    runtime = plugins.get("io.containerd.cri.v1.runtime", {}).get("containerd", old)
    if mode == "default":
        return bool(images.get("snapshotter") == NAME)
    return bool(runtime.get("runtimes", {}).get(NAME, {}).get("snapshotter") == NAME)


def _mode(drop_in: bytes | None) -> Mode | None:
    """Which one a drop-in of ours is for."""
    if drop_in is None:
        return None
    return "default" if Cri.of(tomllib.loads(drop_in.decode())).snapshotter == NAME else "handler"


def _loaded(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error


def _replace(path: Path, content: bytes, like: Path | None = None) -> None:
    """Whole or not at all, with the owner and rights of ``like`` if that exists."""
    new = path.with_name(f".{path.name}.{NAME}")
    with new.open("wb") as file:
        if like is not None and like.exists():
            status = like.stat()
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
