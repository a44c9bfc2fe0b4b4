"""What the facts about a live containerd mean, and what to do. Pure; verdicts as in :mod:`judge`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagecached.doctor.judge import Finding
from imagecached.dropin import NAME, Mode

if TYPE_CHECKING:  # at run time it would bring gRPC to hosts that have no containerd
    from imagecached.doctor.runtime import Runtime

_SETTINGS: Final = (
    "scripts/install --containerd MODE; by hand: imagecachectl containerd-config, restart containerd"
)


def judge_runtime(runtime: Runtime, mode: Mode, socket: Path, *, is_stale: bool) -> list[Finding]:
    """``socket``: where our snapshots service listens; ``is_stale``: our drop-in is not what it should be.

    One finding if containerd does not answer.
    """
    if runtime.silent:
        advice = "systemctl status containerd; is containerd.socket in the configuration right?"
        return [Finding("containerd", "fail", f"{runtime.socket}: {runtime.silent}", advice)]
    checks: tuple[Callable[[], Finding], ...] = (
        lambda: _version(runtime, mode),
        lambda: _settings(is_stale=is_stale),
        lambda: _plugin(runtime, socket),
        lambda: _socket_unit(runtime, socket),
        lambda: _cri(runtime),
        lambda: _use(runtime, mode),
        lambda: _sandbox(runtime),
        lambda: _pins(runtime),
        lambda: _statistics(runtime),
    )
    return [check() for check in checks]


def _version(runtime: Runtime, mode: Mode) -> Finding:
    version = runtime.version
    if version is None:
        return Finding(
            "containerd", "warn", "it says no version", "use a release of containerd, 1.7 or newer"
        )
    if not version.supported or (mode == "handler" and not version.has_handlers):
        text = f"containerd {version} is too old for {mode} mode"
        return Finding("containerd", "fail", text, "use containerd 1.7 or newer, or default mode from 1.6 on")
    return Finding("containerd", "ok", f"containerd {version} answers at {runtime.socket}")


def _settings(*, is_stale: bool) -> Finding:
    if not is_stale:
        return Finding("settings", "ok", "no drop-in of ours is behind the node's own settings")
    text = "containerd or its settings changed since it was set up: our drop-in is not what it should be"
    return Finding("settings", "warn", text, _SETTINGS)


def _plugin(runtime: Runtime, socket: Path) -> Finding:
    plugin = runtime.plugin
    if plugin is None:
        return Finding("plugin", "fail", f"containerd knows no snapshotter {NAME}", _SETTINGS)
    if plugin.error:
        return Finding("plugin", "fail", f"the snapshotter {NAME} was not loaded: {plugin.error}", _SETTINGS)
    address = plugin.exports.get("address", str(socket))
    if address != str(socket):
        text = f"containerd looks for our snapshots at {address}, the daemon is at {socket}"
        return Finding(
            "plugin", "fail", text, "make snapshotter.socket and containerd's drop-in say the same"
        )
    return Finding("plugin", "ok", f"containerd has its snapshots from {address}")


def _socket_unit(runtime: Runtime, socket: Path) -> Finding:
    if runtime.socket_unit is None:
        return Finding(
            "socket-order", "ok", "no systemd here: whoever starts the daemon takes care of the order"
        )
    if runtime.socket_unit:
        return Finding(
            "socket-order", "ok", f"{socket} is there before containerd and while the daemon restarts"
        )
    text = f"{socket} is there only while the daemon runs: a containerd that starts earlier may serve no pods"
    return Finding("socket-order", "warn", text, "systemctl enable --now imagecached-snapshots.socket")


def _cri(runtime: Runtime) -> Finding:
    if not runtime.cri:
        return Finding("cri", "ok", "containerd serves pods")
    return Finding(
        "cri",
        "fail",
        f"containerd serves no pods: {runtime.cri}",
        "look at containerd's log, then restart it",
    )


def _use(runtime: Runtime, mode: Mode) -> Finding:
    if mode == "default":
        if runtime.default == NAME:
            return Finding("mode", "ok", "all pods start from our snapshots")
        text = f"default mode is set, but containerd's default snapshotter is {runtime.default or 'unknown'}"
        return Finding("mode", "fail", text, _SETTINGS)
    if runtime.handlers.get(NAME) == NAME:
        return Finding("mode", "ok", f"pods of the runtime handler {NAME} start from our snapshots")
    if NAME in runtime.handlers:
        return Finding("mode", "fail", f"the runtime handler {NAME} uses another snapshotter", _SETTINGS)
    return Finding(
        "mode", "fail", f"containerd has no runtime handler {NAME}: such pods fail to start", _SETTINGS
    )


def _sandbox(runtime: Runtime) -> Finding:
    image = runtime.sandbox_image
    if not image:
        return Finding("pause", "ok", "the pause image is not known before the first pod")
    if runtime.sandbox_here is False:
        text = f"the pause image {image} is not among our snapshots: without its layers no pod of ours starts"
        return Finding("pause", "warn", text, f"imagecachectl pull {image}")
    if runtime.sandbox_here is None:
        return Finding("pause", "ok", f"the pause image {image} is not here yet")
    return Finding("pause", "ok", f"the pause image {image} is among our snapshots")


def _pins(runtime: Runtime) -> Finding:
    if runtime.version is None or runtime.version.honours_pins:
        return Finding("pins", "ok", "the kubelet leaves prepared images alone")
    text = (
        f"containerd {runtime.version} does not tell the kubelet what to keep: it may remove prepared images"
    )
    return Finding("pins", "warn", text, "use containerd 1.7.3 or newer (or 1.6.22 and newer of 1.6)")


def _statistics(runtime: Runtime) -> Finding:
    if runtime.unanswered:
        text = f"there are none, so that the kubelet does not see the disk fill: {runtime.unanswered}"
        return Finding("statistics", "fail", text, "look at containerd's log; is the daemon up?")
    if runtime.nowhere:
        text = (
            f"{runtime.nowhere} containers have statistics without a disk: that stops those of the whole node"
        )
        return Finding("statistics", "fail", text, f"runtime_platforms is missing: {_SETTINGS}")
    if runtime.missing:
        text = f"statistics name {', '.join(runtime.missing)}: not there, so that the kubelet sees no disk"
        return Finding(
            "statistics", "fail", text, f"ln -s ROOT {runtime.missing[0]}, or use containerd 1.7.16 or newer"
        )
    return Finding("statistics", "ok", "statistics of pods and images name disks that exist")
