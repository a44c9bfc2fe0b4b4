"""The OCI runtime configuration (runtime-spec 1.0, config.md) of one run. Pure.

What is not the image's or the caller's is as in containerd's default spec with ``--net-host``: own PID, IPC,
UTS and mount namespaces, the host's network (so resolv.conf and hosts are the host's too), fourteen
capabilities, no new privileges. Different on purpose: no tmpfs over the image's /run. No seccomp filter:
neither has containerd's ``ctr run`` one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from imagecached.containers.users import User
from imagecached.errors import InvalidInput
from imagecached.oci.documents import ImageConfig

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPEN_FILES: Final = 1024
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  a path in the container

_CAPABILITIES: Final = [
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE"
        " SYS_CHROOT KILL AUDIT_WRITE"
    ).split()
]
_MASKED: Final = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
]  # fmt: skip
_READ_ONLY: Final = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def _mount(kind: str, target: str, options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": kind, "options": options.split(",")}


_MOUNTS: Final = [
    _mount("proc", "/proc", "nosuid,noexec,nodev"),
    _mount("tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k"),
    _mount("devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"),
    _mount("tmpfs", _SHARED_MEMORY, "nosuid,noexec,nodev,mode=1777,size=65536k"),
    _mount("mqueue", "/dev/mqueue", "nosuid,noexec,nodev"),
    _mount("sysfs", "/sys", "nosuid,noexec,nodev,ro"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the caller wants of a run; empty fields mean the image's own.

    ``arguments`` replace the image's Cmd and go after its Entrypoint; ``environment`` goes over the image's;
    ``user`` as in an image config.
    """

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = ""
    user: str = ""
    terminal: bool = False

    def __post_init__(self) -> None:
        texts = [*self.arguments, *self.environment, *self.environment.values(), self.working_dir, self.user]
        if any("\0" in text for text in texts):
            raise InvalidInput("arguments, environment, working directory and user must not hold NUL")
        if any(not name or "=" in name for name in self.environment):
            raise InvalidInput("an environment variable needs a name without =")


@dataclass(frozen=True, slots=True)
class Host:
    """``files``: container path → host file, bound read-only."""

    name: str
    files: Mapping[str, str]


def runtime_spec(container: str, config: ImageConfig, run: Run, user: User, host: Host) -> dict[str, Any]:
    """The content of ``config.json``.

    InvalidInput: nothing to run, or a working directory that is not absolute.
    """
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": False},
        "hostname": host.name,
        "process": _process(config, run, user),
        "mounts": [*_MOUNTS, *(_bind(target, source) for target, source in host.files.items())],
        "linux": {
            "cgroupsPath": f"/imagecached/{container}",
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
        },
    }


def _process(config: ImageConfig, run: Run, user: User) -> dict[str, Any]:
    arguments = [*config.entrypoint, *(run.arguments or config.cmd)]
    if not arguments:
        raise InvalidInput("the image names no command: give one")
    directory = run.working_dir or config.working_dir or "/"
    if not directory.startswith("/"):
        raise InvalidInput(f"working directory {directory!r} is not absolute")
    return {
        "terminal": run.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": arguments,
        "env": _environment(config.env, run),
        "cwd": directory,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": _OPEN_FILES, "soft": _OPEN_FILES}],
        "noNewPrivileges": True,
    }


def _environment(image: Iterable[str], run: Run) -> list[str]:
    """Later settings of a name replace earlier ones in their place."""
    settings = [_PATH, *(["TERM=xterm"] if run.terminal else []), *image]
    settings += [f"{name}={value}" for name, value in run.environment.items()]
    named = {setting.partition("=")[0]: setting for setting in settings if "=" in setting}
    return list(named.values())


def _bind(target: str, source: str) -> dict[str, Any]:
    options = ["rbind", "ro", "nosuid", "nodev", "noexec"]
    return {"destination": target, "type": "bind", "source": source, "options": options}
