"""judge_runtime: what is known of a live containerd in, findings out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from imagecached.containerd import Plugin
from imagecached.doctor.judge import Finding
from imagecached.doctor.judge_runtime import judge_runtime
from imagecached.doctor.runtime import Runtime
from imagecached.dropin import Mode, Version

SOCKET: Final = Path("/run/imagecached/snapshots.sock")
OURS: Final = Plugin("io.containerd.snapshotter.v1", "imagecached", {"address": str(SOCKET)}, (), "")
GOOD: Final = Runtime(
    socket=Path("/run/containerd/containerd.sock"),
    version=Version(2, 1, 9),
    plugin=OURS,
    handlers={"runc": "", "imagecached": "imagecached"},
    default="overlayfs",
    sandbox_image="pause:1",
    sandbox_here=True,
    socket_unit=True,
)


def judged(runtime: Runtime, mode: Mode = "handler", *, is_stale: bool = False) -> dict[str, Finding]:
    return {finding.name: finding for finding in judge_runtime(runtime, mode, SOCKET, is_stale=is_stale)}


def test_a_good_node() -> None:
    """In either mode, and where there is no systemd; before the first pod nobody knows the pause image."""
    for runtime, mode in (
        (GOOD, "handler"),
        (replace(GOOD, default="imagecached"), "default"),
        (replace(GOOD, socket_unit=None, sandbox_image="", sandbox_here=None), "handler"),
    ):
        findings = judged(runtime, mode)  # type: ignore[arg-type]  # a mode
        assert list(findings) == [
            "containerd", "settings", "plugin", "socket-order", "cri", "mode", "pause", "pins", "statistics",
        ]  # fmt: skip
        assert {finding.verdict for finding in findings.values()} == {"ok"}
        assert {finding.advice for finding in findings.values()} == {""}


def test_a_containerd_that_does_not_answer() -> None:
    """Nothing else is said."""
    silent = Runtime(socket=SOCKET, silent="no such file", handlers={})
    [finding] = judge_runtime(silent, "handler", SOCKET, is_stale=True)
    assert (finding.name, finding.verdict) == ("containerd", "fail")
    assert "no such file" in finding.text


@pytest.mark.parametrize(
    ("name", "verdict", "text", "facts"),
    [
        ("containerd", "warn", "no version", {"version": None}),
        ("containerd", "fail", "too old for handler", {"version": Version(1, 6, 20)}),
        ("containerd", "fail", "too old", {"version": Version(1, 5)}),
        ("plugin", "fail", "knows no snapshotter", {"plugin": None}),
        ("plugin", "fail", "not loaded: why", {"plugin": replace(OURS, error="why")}),
        ("plugin", "fail", "/other", {"plugin": replace(OURS, exports={"address": "/other"})}),
        ("socket-order", "warn", "only while the daemon runs", {"socket_unit": False}),
        ("cri", "fail", "CRI is turned off", {"cri": "CRI is turned off"}),
        ("mode", "fail", "no runtime handler", {"handlers": {"runc": ""}}),
        ("mode", "fail", "another snapshotter", {"handlers": {"imagecached": ""}}),
        ("pause", "warn", "not among our snapshots", {"sandbox_here": False}),
        ("pins", "warn", "may remove", {"version": Version(1, 7, 2)}),
        ("statistics", "fail", "there are none", {"unanswered": "why"}),
        ("statistics", "fail", "2 containers", {"nowhere": 2}),
        ("statistics", "fail", "/nowhere", {"missing": ("/nowhere",)}),
    ],
)
def test_what_is_wrong(name: str, verdict: str, text: str, facts: dict[str, Any]) -> None:
    """The verdict, the reason, and advice."""
    finding = judged(replace(GOOD, **facts))[name]
    assert (finding.verdict, text in finding.text) == (verdict, True), finding
    assert finding.advice


def test_settings_that_changed_since() -> None:
    """The installer brings them up to date."""
    finding = judged(GOOD, is_stale=True)["settings"]
    assert (finding.verdict, "scripts/install" in finding.advice) == ("warn", True)


def test_default_mode_needs_the_default_snapshotter() -> None:
    """What it is instead is told. 1.6 will do."""
    finding = judged(GOOD, "default")["mode"]
    assert (finding.verdict, "overlayfs" in finding.text) == ("fail", True)
    assert judged(replace(GOOD, version=Version(1, 6, 20)), "default")["containerd"].verdict == "ok"
