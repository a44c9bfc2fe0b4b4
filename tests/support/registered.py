"""A node whose daemon tells its containerd of the images that are ready."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.containerd import Mode
from tests.support.daemon import Daemon
from tests.support.nodes import Addressed, Node, serve_node
from tests.support.processes import await_true

_PATIENCE_SECONDS = 30.0


@contextmanager
def serve_registered(
    registry: Addressed,
    pause: str,
    mode: Mode,
    programs: Path | None,
    sections: Mapping[str, dict[str, Any]] | None = None,
    **containerd: Any,
) -> Iterator[Node]:
    """Run both for the length of the block. ``containerd``: more keys of that section; ``sections``: others
    of the daemon's configuration.
    """
    folder = Path(tempfile.mkdtemp(prefix="c-")).resolve()
    link = folder / "c.sock"  # the daemon starts first, and finds containerd here as soon as there is one
    section = {"socket": str(link), "mode": mode, **containerd}
    more: dict[str, Any] = dict(sections or {})
    try:
        with serve_node(registry, pause, mode, programs, containerd=section, **more) as node:
            link.symlink_to(node.containerd.socket)
            yield node
    finally:
        shutil.rmtree(folder)


def registration(daemon: Daemon, reference: str) -> dict[str, Any]:
    """What the daemon says of an image's registration."""
    found = daemon.ask("get", "images", reference)["registration"]
    return dict(found or {"state": "none", "reason": ""})


def await_state(daemon: Daemon, reference: str, state: str = "registered") -> dict[str, Any]:
    """Wait until the registration has come to ``state``; what the daemon says of it then."""
    await_true(
        lambda: registration(daemon, reference)["state"] == state,
        what=f"the registration of {reference}",
        deadline_seconds=_PATIENCE_SECONDS,
        alive=lambda: True,
    )
    return registration(daemon, reference)


def await_event(daemon: Daemon, kind: str, subject: str) -> None:
    """Wait until something of this kind has happened to ``subject``."""
    await_true(
        lambda: any(
            json.loads(line)["kind"] == kind and json.loads(line)["subject"] == subject
            for line in daemon.ctl("-o", "json", "events").stdout.splitlines()
        ),
        what=f"{kind} of {subject}",
        deadline_seconds=_PATIENCE_SECONDS,
        alive=lambda: True,
    )
