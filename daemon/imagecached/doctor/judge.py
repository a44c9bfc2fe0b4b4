"""What the facts mean, and what to do. Pure: a table of facts in, findings out.

Verdicts: "fail", something asked of us cannot work; "warn", it works, but costs or risks more than it need;
"ok". Every finding that is not ok has advice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from imagecached.doctor.facts import Facts
from imagecached.mounts import Method

Verdict = Literal["ok", "warn", "fail"]

_NEW_KERNEL: Final = "use Linux 6.12.75 or newer (or 6.1.113, 6.4 and newer with loop devices)"
_FIRST_YEAR: Final = 2025
_LAST_YEAR: Final = 2100
_OTHERS_MODE: Final = 0o007

# What is known of file systems to keep the root on; others are tried and said to be untested.
_GOOD: Final = frozenset({"ext4", "xfs"})
_BAD: Final[dict[str, tuple[Verdict, str]]] = {
    "overlay": ("fail", "writable mounts and runs do not work on an overlay"),
    "tmpfs": ("warn", "layers take memory and are gone after a reboot"),
    "ramfs": ("warn", "layers take memory and are gone after a reboot"),
    "nfs": ("fail", "locks and the database are not safe over a network"),
    "nfs4": ("fail", "locks and the database are not safe over a network"),
    "cifs": ("fail", "locks and the database are not safe over a network"),
    "9p": ("fail", "locks and the database are not safe over a network"),
}
_UNTESTED: Final[tuple[Verdict, str]] = ("warn", "not tested")


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer. ``advice``: what to do; empty if the verdict is "ok"."""

    name: str
    verdict: Verdict
    text: str
    advice: str = ""


def judge(facts: Facts) -> list[Finding]:
    """Every check, in the order in which to put things right."""
    return [check(facts) for check in _CHECKS]


def _rights(facts: Facts) -> Finding:
    if facts.may_mount:
        return Finding("rights", "ok", "may mount (CAP_SYS_ADMIN)")
    advice = "run the daemon as root; in a container, privileged"
    return Finding("rights", "fail", "may not mount: CAP_SYS_ADMIN is missing", advice)


def _kernel(facts: Facts) -> Finding:
    release, faults = facts.kernel.release, facts.kernel.faults()
    if faults:
        text = "; ".join(dict.fromkeys(faults.values()))
        return Finding("kernel", "warn", f"Linux {release}: {text}; avoided", _NEW_KERNEL)
    if not facts.kernel.has_small_blocks and facts.method is None:
        return Finding("kernel", "fail", f"Linux {release}: EROFS takes no blocks of 512 bytes", _NEW_KERNEL)
    return Finding("kernel", "ok", f"Linux {release}")


def _erofs(facts: Facts) -> Finding:
    if facts.erofs:
        return Finding("erofs", "ok", "the kernel knows EROFS")
    advice = "install the kernel's extra modules (Ubuntu: linux-modules-extra), then: modprobe erofs"
    return Finding("erofs", "fail", "the kernel does not know EROFS", advice)


def _layers(facts: Facts) -> Finding:
    reasons = "; ".join(f"{method}: {reason}" for method, reason in facts.refused.items())
    match facts.method:
        case None:
            advice = "put the findings above right first, then try a root on ext4 or xfs"
            return Finding("layers", "fail", facts.unmountable or "no layer file can be mounted", advice)
        case Method.DIRECTIO:
            return Finding("layers", "ok", "file-backed mounts with direct I/O")
        case Method.BUFFERED:
            text = f"file-backed mounts through the page cache, which holds each byte twice ({reasons})"
            return Finding(
                "layers",
                "warn",
                text,
                "works; to save memory use a disk of 512-byte sectors and a newer kernel",
            )
        case Method.LOOP:
            text = f"one loop device per layer ({reasons})"
            return Finding(
                "layers",
                "warn",
                text,
                f"works; for less overhead {_NEW_KERNEL.partition(' (')[0]} and ext4 or xfs",
            )


def _loop(facts: Facts) -> Finding:
    if facts.loop:
        return Finding("loop", "ok", "loop devices can be made")
    if facts.method in (Method.DIRECTIO, Method.BUFFERED):
        return Finding("loop", "ok", "no loop devices, and none are needed")
    return Finding(
        "loop", "fail", "/dev/loop-control is missing", "modprobe loop; in a container, mount the host's /dev"
    )


def _overlay(facts: Facts) -> Finding:
    if not facts.overlay:
        return Finding("overlay", "ok", f"writable overlays work in {facts.place}")
    advice = "modprobe overlay; keep the root on ext4 or xfs (made with ftype=1)"
    return Finding("overlay", "fail", f"no writable overlay in {facts.place}: {facts.overlay}", advice)


def _visibility(facts: Facts) -> Finding:
    match facts.namespace:
        case "host":
            return Finding("visibility", "ok", "mounts are made in the host's mount namespace")
        case "shared":
            return Finding("visibility", "ok", "mounts are made below a shared mount")
        case "private":
            advice = (
                "a container runtime outside will not see them; systemd: remove options that give the unit a"
                " mount namespace (PrivateTmp, ProtectSystem, …); Kubernetes: mountPropagation: Bidirectional"
            )
            text = "mounts are seen in this mount namespace only, not by the host"
            return Finding("visibility", "warn", text, advice)


def _disk(facts: Facts) -> Finding:
    text = (
        f"{_size(facts.free_bytes)} of {_size(facts.disk_bytes)} free, {_size(facts.floor_bytes)} stay free"
    )
    if facts.free_bytes <= facts.floor_bytes:
        advice = (
            "free some space, lower store.free_bytes and free_percent, or move daemon.root to a larger disk"
        )
        return Finding("disk", "fail", f"{text}: nothing can be pulled", advice)
    if facts.free_bytes < 2 * facts.floor_bytes:
        return Finding("disk", "warn", text, "free some space, or move daemon.root to a larger disk")
    return Finding("disk", "ok", text)


def _filesystem(facts: Facts) -> Finding:
    kind, place = facts.filesystem, facts.place
    if kind in _GOOD:
        return Finding("filesystem", "ok", f"{place} lies on {kind}")
    advice = "move daemon.root to ext4 or xfs"
    verdict, consequence = _BAD.get("nfs" if kind.startswith("fuse") else kind, _UNTESTED)
    text = f"{place} lies on {kind or 'nothing known'}: {consequence}"
    return Finding("filesystem", verdict, text, advice)


def _clock(facts: Facts) -> Finding:
    if not _FIRST_YEAR <= facts.year <= _LAST_YEAR:
        advice = "set the clock: certificates and tokens of registries depend on it"
        return Finding("clock", "fail", f"the year is {facts.year}", advice)
    if facts.synchronised is False:
        advice = "enable systemd-timesyncd or chrony"
        return Finding("clock", "warn", "the clock is not kept by NTP", advice)
    return Finding("clock", "ok", "kept by NTP" if facts.synchronised else "plausible; NTP unknown")


def _socket(facts: Facts) -> Finding:
    path = facts.socket
    match facts.socket_state:
        case "answers" if facts.socket_mode & _OTHERS_MODE:
            text = f"{path} answers, but everyone may use it (mode {facts.socket_mode:o})"
            return Finding("socket", "warn", text, f"chmod o= {path}: its users are as good as root")
        case "answers":
            return Finding("socket", "ok", f"{path} answers")
        case "absent":
            return Finding("socket", "warn", f"{path}: no daemon runs", "systemctl start imagecached")
        case "refused":
            text = f"{path}: nobody listens, the daemon died"
            return Finding("socket", "warn", text, "systemctl restart imagecached, and look at its log")
        case "denied":
            return Finding(
                "socket", "warn", f"{path}: permission denied", "join the socket's group, or use sudo"
            )
        case "silent":
            text = f"{path}: the daemon does not answer"
            return Finding(
                "socket",
                "fail",
                text,
                "look at the daemon's log; systemctl restart imagecached harms no container",
            )


def _runtime(facts: Facts) -> Finding:
    if facts.runtime:
        return Finding("runtime", "ok", f"containers run with {facts.runtime}")
    text = "neither runc nor crun is installed: only the command run needs one"
    return Finding("runtime", "warn", text, "install the package runc or crun")


def _size(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB"


_CHECKS: Final[tuple[Callable[[Facts], Finding], ...]] = (
    _rights,
    _kernel,
    _erofs,
    _loop,
    _layers,
    _overlay,
    _visibility,
    _filesystem,
    _disk,
    _clock,
    _socket,
    _runtime,
)
