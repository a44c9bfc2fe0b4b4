"""judge: facts in, findings out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagecached.doctor.facts import Facts
from imagecached.doctor.judge import judge
from imagecached.mounts import Kernel, Method

GIB = 1 << 30
ROOT = Path("/var/lib/imagecached")

GOOD = Facts(
    may_mount=True,
    kernel=Kernel.parse("7.2.13"),
    erofs=True,
    method=Method.DIRECTIO,
    refused={},
    unmountable="",
    overlay="",
    loop=True,
    namespace="host",
    root=ROOT,
    place=ROOT,
    filesystem="ext4",
    disk_bytes=100 * GIB,
    free_bytes=50 * GIB,
    floor_bytes=5 * GIB,
    year=2026,
    synchronised=True,
    socket=Path("/run/imagecached/imagecached.sock"),
    socket_state="answers",
    socket_mode=0o660,
    runtime="/usr/sbin/runc",
)


def test_a_good_host() -> None:
    """Twelve times ok, and nothing to do."""
    findings = judge(GOOD)
    assert {finding.verdict for finding in findings} == {"ok"}
    assert [finding.advice for finding in findings] == [""] * len(findings)
    assert [finding.name for finding in findings] == [
        "rights", "kernel", "erofs", "loop", "layers", "overlay", "visibility", "filesystem", "disk", "clock",
        "socket", "runtime",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "verdict", "text", "facts"),
    [
        ("rights", "fail", "CAP_SYS_ADMIN", {"may_mount": False}),
        ("kernel", "warn", "CVE-2026-23224", {"kernel": Kernel.parse("6.12.50")}),
        ("kernel", "fail", "512", {"kernel": Kernel.parse("5.15.0-100-generic"), "method": None}),
        (
            "kernel",
            "ok",
            "6.1.0",
            {"kernel": Kernel.parse("6.1.0"), "method": Method.LOOP},
        ),  # the probe knows better
        ("erofs", "fail", "does not know", {"erofs": False}),
        ("loop", "ok", "none are needed", {"loop": False}),
        ("loop", "fail", "loop-control", {"loop": False, "method": None}),
        ("layers", "fail", "no way", {"method": None, "unmountable": "no way at all"}),
        (
            "layers",
            "warn",
            "twice (directio: EIO)",
            {"method": Method.BUFFERED, "refused": {Method.DIRECTIO: "EIO"}},
        ),
        ("layers", "warn", "loop device", {"method": Method.LOOP, "refused": {Method.BUFFERED: "ENOTBLK"}}),
        ("overlay", "fail", "Invalid argument", {"overlay": "[Errno 22] Invalid argument"}),
        ("visibility", "ok", "shared", {"namespace": "shared"}),
        ("visibility", "warn", "only", {"namespace": "private"}),
        ("filesystem", "ok", "xfs", {"filesystem": "xfs"}),
        ("filesystem", "warn", "not tested", {"filesystem": "btrfs"}),
        ("filesystem", "warn", "memory", {"filesystem": "tmpfs"}),
        ("filesystem", "fail", "overlay", {"filesystem": "overlay"}),
        ("filesystem", "fail", "network", {"filesystem": "nfs4"}),
        ("filesystem", "fail", "network", {"filesystem": "fuse.sshfs"}),
        ("filesystem", "warn", "nothing known", {"filesystem": ""}),
        ("disk", "fail", "nothing can be pulled", {"free_bytes": 5 * GIB}),
        ("disk", "warn", "9.0 GiB of 100.0 GiB free", {"free_bytes": 9 * GIB}),
        ("clock", "fail", "1970", {"year": 1970}),
        ("clock", "warn", "NTP", {"synchronised": False}),
        ("clock", "ok", "unknown", {"synchronised": None}),
        ("socket", "warn", "everyone", {"socket_mode": 0o666}),
        ("socket", "warn", "no daemon", {"socket_state": "absent"}),
        ("socket", "warn", "died", {"socket_state": "refused"}),
        ("socket", "warn", "denied", {"socket_state": "denied"}),
        ("socket", "fail", "does not answer", {"socket_state": "silent"}),
        ("runtime", "warn", "neither", {"runtime": ""}),
    ],
)
def test_each_finding(name: str, verdict: str, text: str, facts: dict[str, Any]) -> None:
    """The verdict and what it says; whatever is not ok comes with advice."""
    findings = {finding.name: finding for finding in judge(replace(GOOD, **facts))}
    assert (findings[name].verdict, text in findings[name].text) == (verdict, True), findings[name]
    assert all(bool(finding.advice) == (finding.verdict != "ok") for finding in findings.values())
