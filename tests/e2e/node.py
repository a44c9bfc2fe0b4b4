"""The node that this runs on: daemon and controller as processes, the drop-in for containerd, mounts.

For clusters where no image can be built or run. Everything made here is undone by :meth:`Node.restore`, in
any state and more than once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from tests.e2e.cluster import Document, wait_for
from tests.e2e.options import Options
from tests.e2e.report import Failed

BIN: Final = Path(sys.executable).parent
_COMMAND_SECONDS: Final = 180.0
_STOP_SECONDS: Final = 30.0


class Node:
    """This host as a node of the cluster."""

    def __init__(self, options: Options, name: str) -> None:
        self.options, self.name = options, name
        self.folder = Path(tempfile.mkdtemp(prefix="imagecached-e2e-"))
        self.webhook_port, self._daemon_http, self._controller_http = (_free_port() for _ in range(3))
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._changed = False
        self.mounts_before = set(mounts())
        self.files_before = self._files()

    # containerd

    def install_drop_in(self) -> bool:
        """Let containerd know the handler; True if it was restarted for that."""
        changed = self._drop_in("install")
        self._changed = self._changed or changed
        if changed:
            restart_containerd(self.options)
        return changed

    def remove_drop_in(self) -> None:
        """Take it back."""
        if self._changed:
            self._drop_in("remove")
            self._changed = False
            restart_containerd(self.options)

    def _drop_in(self, action: str) -> bool:
        options = self.options
        command: list[str | Path] = [BIN / "imagecached", "containerd", action, "--mode", "handler"]
        command += ["--main", options.containerd_config, "--program", options.containerd_program]
        command += ["--records", self.folder / "containerd"]
        command += ["--snapshots", options.run / "snapshots.sock", "--root", options.root]
        return _run(command, "the drop-in").split() == ["changed"]

    # processes

    def start_daemon(self) -> None:
        """Start the node daemon and wait until it is ready."""
        options = self.options
        options.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        options.run.mkdir(parents=True, exist_ok=True)
        sections: dict[str, dict[str, Any]] = {
            "daemon": {"root": str(options.root), "socket": str(options.run / "imagecached.sock")},
            "http": {"address": f"127.0.0.1:{self._daemon_http}"},
            "snapshotter": {"socket": str(options.run / "snapshots.sock")},
            "containerd": {"socket": str(options.containerd_socket), "mode": "handler"},
            "kubernetes": {"node": self.name, "kubeconfig": str(self._kubeconfig("daemon"))},
            "registry": {"plain_http": list(options.plain_http)},
        }
        self._start("daemon", "serve", sections, self._daemon_http)

    def start_controller(self) -> None:
        """Start the controller, with its webhook on a loopback port, and wait until it is ready."""
        sections: dict[str, dict[str, Any]] = {
            "http": {"address": f"127.0.0.1:{self._controller_http}"},
            "controller": {"address": f"127.0.0.1:{self.webhook_port}"},
            "kubernetes": {"kubeconfig": str(self._kubeconfig("controller"))},
            "registry": {"plain_http": list(self.options.plain_http)},
        }
        self._start("controller", "controller", sections, self._controller_http)

    def log_in(self, process: str, kubeconfig: Document) -> None:
        """How the ``daemon`` or the ``controller`` reaches the cluster from its next start on."""
        path = self._kubeconfig(process)
        path.touch(mode=0o600)
        path.write_text(json.dumps(kubeconfig))  # JSON is YAML, too

    def _kubeconfig(self, process: str) -> Path:
        return self.folder / f"{process}.kubeconfig"

    def kill_daemon(self) -> None:
        """As the kernel does when memory runs out."""
        self._stop("daemon", signal.SIGKILL)

    def stop(self) -> None:
        """Let both end in order."""
        for name in list(self._processes):
            self._stop(name, signal.SIGTERM)

    def logs(self) -> str:
        """The end of what the processes said."""
        return "; ".join(
            f"{log.stem}: {log.read_text(errors='replace')[-800:]}"
            for log in sorted(self.folder.glob("*.log"))
        )

    def daemon_resident_bytes(self) -> int:
        """Memory of the daemon now."""
        status = Path(f"/proc/{self._processes['daemon'].pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _start(self, name: str, command: str, sections: dict[str, dict[str, Any]], port: int) -> None:
        config = self.folder / f"{name}.toml"
        # JSON's strings, numbers and arrays are TOML's too.
        lines = [
            line
            for section, keys in sections.items()
            for line in (f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items()))
        ]
        config.write_text("\n".join(lines) + "\n")
        argv: list[str | Path] = [BIN / "imagecached", command, "--config", config]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C ends the scenarios, and these then end it in order
            )
        self._processes[name] = process
        wait_for(lambda: self._ready(name, port), f"the {name} is ready", self.options.patience, self.logs)

    def _ready(self, name: str, port: int) -> bool | None:
        if self._processes[name].poll() is not None:
            raise Failed(f"the {name} ended: {self.logs()}")
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200) or None
        except (URLError, OSError):
            return None

    def _stop(self, name: str, number: int) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    # the way back

    def restore(self) -> None:
        """No process, no drop-in, no mount and no file of ours."""
        self._stop("controller", signal.SIGTERM)
        self.remove_drop_in()  # while the daemon lives: containerd lets go of its snapshots
        self.stop()
        for point in reversed([*mounts(self.options.root), *mounts(self.options.run)]):
            _run(["umount", point], f"unmount {point}")
        for folder in (self.options.root, self.options.run):
            # Not shutil.rmtree: it would follow a mount that somebody made meanwhile.
            _run(["rm", "-rf", "--one-file-system", folder], f"remove {folder}")

    def close(self) -> None:
        """Forget the logs."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def left_behind(self) -> list[str]:
        """What is on the node now and was not there before, or is otherwise than it was."""
        left = [
            f"mount {point}" for point in mounts() if point not in self.mounts_before and self._ours(point)
        ]
        left += [f"folder {folder}" for folder in (self.options.root, self.options.run) if folder.exists()]
        after = self._files()
        changed = {path for path, _ in self.files_before.items() ^ after.items()}
        return left + [f"configuration {path}" for path in sorted(changed)]

    def _ours(self, point: str) -> bool:
        return any(
            point == str(folder) or point.startswith(f"{folder}/")
            for folder in (self.options.root, self.options.run)
        )

    def _files(self) -> dict[str, bytes]:
        """containerd's configuration as it is: every byte of it."""
        folder = self.options.containerd_config.parent
        if not folder.is_dir():
            return {}
        return {str(path): path.read_bytes() for path in folder.rglob("*.toml") if path.is_file()}


def restart_containerd(options: Options) -> None:
    """The containerd of this host, as the user said; returns when it answers."""
    _run(["bash", "-c", options.containerd_restart], "--containerd-restart")
    wait_for(
        lambda: _answers(options.containerd_socket), "containerd answers after a restart", options.patience
    )


def restart_kubelet(options: Options) -> None:
    """The kubelet of this host, as the user said."""
    _run(["bash", "-c", options.kubelet_restart], "--kubelet-restart")


def _answers(path: Path) -> bool | None:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return None
    return True


def mounts(below: Path | None = None) -> Iterator[str]:
    """Mount points of the host as we see it, in their order; those at or below a folder."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split(" ")[4]
        if below is None or point == str(below) or point.startswith(f"{below}/"):
            yield point


def _run(command: list[str | Path], what: str) -> str:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{what}: {error}") from error
    if done.returncode:
        shown = " ".join(map(str, command))
        raise Failed(f"{what}: {shown} ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
