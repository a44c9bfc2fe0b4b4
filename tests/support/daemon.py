"""The daemon as users start it: a process with a root, a socket and a configuration of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.mounts import unmount_below
from tests.support.processes import NotStarted, await_true

BIN: Final = Path(sys.executable).parent
_PATIENCE_SECONDS: Final = 30.0


class Daemon:
    """One root and its daemon; :meth:`start` and :meth:`stop` may be repeated."""

    def __init__(
        self, directory: Path, *, env: Mapping[str, str] | None = None, **sections: Mapping[str, Any]
    ) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.socket = directory / "api.sock"
        self.log = directory / "daemon.log"
        self._config = directory / "config.toml"
        self._env = {**os.environ, **(env or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._handed: socket.socket | None = None
        directory.mkdir(parents=True, exist_ok=True)
        alone = {"dir": str(directory / "caches.d"), "secrets_dir": str(directory / "secrets")}
        self._write_config({"http": {"address": ""}, "caches": alone, **sections})

    def hand_over(self, listener: socket.socket) -> None:
        """Give the daemon this socket whenever it starts, as systemd does with that of a socket unit."""
        self._handed = listener

    def start(self) -> None:
        """Start and wait until it answers."""
        process = self.launch()
        try:
            await_true(
                lambda: self.ctl("get", "images", check=False).returncode == 0,
                what="the daemon",
                deadline_seconds=_PATIENCE_SECONDS,
                alive=lambda: process.poll() is None,
            )
        except NotStarted as error:
            raise NotStarted(f"{error}: {self.log.read_text()[-2000:]}") from None

    def launch(self) -> subprocess.Popen[bytes]:
        """Start without waiting."""
        argv: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", "--", BIN / "imagecached", "serve"]
        argv += ["--root", self.root, "--socket", self.socket, "--config", self._config]
        inherited: tuple[int, ...] = ()
        if self._handed is not None:
            inherited = (self._handed.fileno(),)
            script = f'exec 3<&{inherited[0]}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
            argv = ["bash", "-c", script, "bash", *argv]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inherited
            )
        return self.process

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(_PATIENCE_SECONDS)
        self.process = None
        return status

    def ctl(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run imagecachectl; with ``check`` a failure is an error that shows what it said."""
        argv = [BIN / "imagecachectl", "--socket", self.socket, *arguments]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise AssertionError(
                f"imagecachectl {arguments} ended with {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done

    def ask(self, *arguments: str | Path) -> Any:
        """What imagecachectl answers with ``-o json``."""
        return json.loads(self.ctl("-o", "json", *arguments).stdout)

    def _write_config(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        lines = []
        for section, keys in sections.items():
            # JSON's strings, numbers and arrays are TOML's too.
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        self._config.write_text("\n".join(lines) + "\n")


@contextmanager
def serve_daemon(directory: Path, **sections: Mapping[str, Any]) -> Iterator[Daemon]:
    """A running daemon; at the end it is stopped and what it mounted below ``directory`` is unmounted."""
    daemon = Daemon(directory, **sections)
    daemon.start()
    try:
        yield daemon
    finally:
        if daemon.process is not None:
            daemon.stop()
        unmount_below(directory)
