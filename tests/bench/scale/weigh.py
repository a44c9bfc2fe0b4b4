"""The real controller process on a cluster as it stands: memory, and what it costs to start there."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support.apiserver import ApiServer
from tests.support.daemon import BIN
from tests.support.processes import await_true

_PATIENCE_SECONDS = 600.0
_SETTLE_SECONDS = 30.0


def controller(server: ApiServer) -> dict[str, Any]:
    """Start it, wait until it leads and knows every node, let it settle, read its accounts, end it."""
    return asyncio.run(_weighed(server))


async def _weighed(server: ApiServer) -> dict[str, Any]:
    server.traffic.reset()
    with tempfile.TemporaryDirectory() as folder:
        async with server:
            kubeconfig = server.kubeconfig(Path(folder) / "kubeconfig")
            measured = await asyncio.get_running_loop().run_in_executor(None, _process, kubeconfig, folder)
    listed = sum(count for name, count in server.traffic.sent.items() if name.startswith("list"))
    asked = {name: count for name, count in server.traffic.requests.items() if "leases" not in name}
    return {**measured, "start_list_mb": round(listed / 1e6, 1), "start_requests": asked}


def _process(kubeconfig: Path, folder: str) -> dict[str, Any]:
    config = Path(folder) / "config.toml"
    config.write_text(
        f'[kubernetes]\nkubeconfig = "{kubeconfig}"\n'
        '[http]\naddress = ""\n[controller]\naddress = ""\n[log]\nformat = "json"\n'
    )
    argv: list[str | Path] = ["setpriv", "--pdeathsig", "KILL", "--", BIN / "imagecached", "controller"]
    log = Path(folder) / "log"
    with log.open("ab") as output:
        child = subprocess.Popen([*argv, "--config", config], stdout=output, stderr=output)
    try:
        await_true(
            lambda: '"event": "synced"' in log.read_text(),  # asking it would cost it more than its work
            what="the controller",
            deadline_seconds=_PATIENCE_SECONDS,
            alive=lambda: child.poll() is None,
        )
        start = _cpu(child.pid)
        try:
            child.wait(_SETTLE_SECONDS)
        except subprocess.TimeoutExpired:
            return {
                "controller_rss_mb": round(_rss(child.pid) / 1e6, 1),
                "start_cpu_seconds": round(start, 1),
            }
        raise AssertionError("the controller ended by itself")
    finally:
        child.terminate()
        child.wait()


def _rss(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
