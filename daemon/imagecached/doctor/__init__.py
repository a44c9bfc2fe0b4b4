"""Is this host able to do it, and what to do if not.

Gathering facts (:mod:`facts`, which tries mounts in a folder that it removes again) is apart from judging
them (:mod:`judge`, pure); likewise for a live containerd (:mod:`runtime`, :mod:`judge_runtime`), whose
client is loaded only where there is one. Needs no running daemon and changes nothing that stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from imagecached.config import Config
from imagecached.doctor.facts import gather
from imagecached.doctor.judge import Finding, judge

if TYPE_CHECKING:
    from imagecached.dropin.objections import InUse

__all__ = ["Finding", "examine", "in_use", "why_no_pods"]


def examine(config: Config) -> list[Finding]:
    """Every check, in order of importance. Takes a fraction of a second, blocks: call it in a thread."""
    findings = judge(gather(config))
    if config.containerd.socket:
        from imagecached.doctor import runtime
        from imagecached.doctor.judge_runtime import judge_runtime

        section, socket = config.containerd, Path(config.snapshotter.socket)
        seen = runtime.look(Path(section.socket), section.snapshotter)
        findings += judge_runtime(
            seen, section.mode, socket, is_stale=runtime.is_stale(socket, config.daemon.root)
        )
    return findings


def in_use(socket: Path) -> InUse | None:
    """What a change of containerd's default snapshotter would break here; None if it does not answer."""
    from imagecached.doctor import runtime

    return runtime.in_use(socket)


def why_no_pods(socket: Path, patience_seconds: float = 60.0) -> str:
    """Why a containerd that was just started does not serve pods from us; empty if it does. Takes a while."""
    from imagecached.doctor import runtime

    return runtime.why_no_pods(socket, patience_seconds)
