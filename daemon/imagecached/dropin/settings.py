"""What a drop-in for containerd must say, by its version, the mode, and what the node's files say. Pure.

Each setting was found necessary on a real node:

* ``runtime_platforms``: without it one matched pod breaks the eviction statistics of the whole node.
* ``unpack_config`` naming both snapshotters: without it no pull for the handler finds an unpacker.
* The handler copies the node's default runtime, so that it has the same cgroup driver.
* Where an import replaces whole sections (containerd 1), the node's own CRI section is repeated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from imagecached.dropin.document import render
from imagecached.dropin.version import Version
from imagecached.dropin.written import Written
from imagecached.errors import Unsupported

Mode = Literal["handler", "default"]
Table = dict[str, Any]

NAME: Final = "imagecached"
"""Of our snapshotter in containerd, and of the runtime handler that uses it."""

OLD_CRI: Final = "io.containerd.grpc.v1.cri"
IMAGES: Final = "io.containerd.cri.v1.images"
RUNTIME: Final = "io.containerd.cri.v1.runtime"
TRANSFER: Final = "io.containerd.transfer.v1.local"

_OVERLAYFS: Final = "overlayfs"
_RUNC: Final = "runc"
_RUNC_TYPE: Final = "io.containerd.runc.v2"
_DOWNLOADS: Final = 3  # containerd's own default


_COMMENTS: Final = {
    ("proxy_plugins", NAME): "The snapshots service of imagecached.",
    (
        "proxy_plugins",
        NAME,
        "exports",
    ): "Where statistics look for the disk; and layers come with their image's name.",
    (
        "plugins",
        OLD_CRI,
        "containerd",
        "disable_snapshot_annotations",
    ): "Layers come with the name of their image.",
    ("plugins", IMAGES, "disable_snapshot_annotations"): "Layers come with the name of their image.",
    (
        "plugins",
        IMAGES,
        "runtime_platforms",
    ): "Without this one pod of the handler breaks the statistics of all pods.",
    ("plugins", RUNTIME, "containerd", "runtimes", NAME): "The default runtime again, on our snapshots.",
    ("plugins", OLD_CRI, "containerd", "runtimes", NAME): "The default runtime again, on our snapshots.",
    ("plugins", TRANSFER, "unpack_config"): "Whoever may be asked to unpack a pulled image.",
}


@dataclass(frozen=True, slots=True)
class Places:
    """Where the snapshots service listens and where the daemon keeps its data."""

    socket: Path = Path("/run/imagecached/snapshots.sock")
    root: Path = Path("/var/lib/imagecached")


@dataclass(frozen=True, slots=True)
class Cri:
    """CRI's settings, whichever form they are written in: about images, about runtimes, about the rest."""

    images: Mapping[str, Any]
    runtime: Mapping[str, Any]
    old: Mapping[str, Any]

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Cri:
        """As far as ``written`` says."""
        old = section(written, "plugins", OLD_CRI)
        below = section(old, "containerd")
        return cls(
            images={**old, **below, **section(written, "plugins", IMAGES)},
            runtime={**below, **section(written, "plugins", RUNTIME, "containerd")},
            old=old,
        )

    @property
    def snapshotter(self) -> str:
        """The default one."""
        return str(self.images.get("snapshotter") or _OVERLAYFS)

    @property
    def stock(self) -> tuple[str, Mapping[str, Any]]:
        """The default runtime: its name and settings."""
        name = str(self.runtime.get("default_runtime_name") or _RUNC)
        return name, section(self.runtime, "runtimes", name) or {"runtime_type": _RUNC_TYPE}

    def pulls_locally(self, version: Version) -> bool:
        """CRI pulls by itself, not by the transfer service."""
        says = self.images.get
        registry = section(self.images, "registry")
        return not version.transfers or bool(
            says("use_local_image_pull")
            or says("disable_snapshot_annotations") is False
            or says("discard_unpacked_layers")
            or says("image_pull_with_sync_fs")
            or says("max_concurrent_downloads", _DOWNLOADS) != _DOWNLOADS
            or any(registry.get(key) for key in ("mirrors", "configs", "auths"))
        )


def settings(version: Version, mode: Mode, written: Mapping[str, Any], places: Places) -> Table:
    """The drop-in as tables. Unsupported: this containerd cannot do it."""
    check(version, mode)
    new = version.merges and written.get("version", 3) >= 3
    return {
        "version": 3 if new else 2,
        "proxy_plugins": {NAME: _proxy(places)},
        "plugins": {
            **(_new_form if new else _old_form)(version, mode, Cri.of(written)),
            **(_transfer(written) if version.transfers else {}),
        },
    }


def explained(version: Version, mode: Mode, written: Written, places: Places) -> str:
    """The drop-in as the text of a file."""
    document = settings(version, mode, written.document, places)
    head = f"{mode.capitalize()} mode of imagecached for containerd {version}."
    if not version.merges and section(written.document, "plugins", OLD_CRI):
        head += (
            f"\nIt repeats the CRI section of {written.main}, because containerd 1 lets an imported file"
            "\nreplace a whole section: make it anew after you change something there."
        )
    return render(document, head, _COMMENTS)


def check(version: Version, mode: Mode) -> None:
    """Unsupported: this containerd cannot do it."""
    if not version.supported:
        raise Unsupported(f"containerd {version} is too old: 1.6 is the first that works")
    if mode == "handler" and not version.has_handlers:
        raise Unsupported(
            f"containerd {version} has one snapshotter for all pods: handler mode needs 1.7; use default mode"
        )


def _proxy(places: Places) -> Table:
    # Versions that know no exports ignore them.
    exports = {"root": str(places.root), "enable_remote_snapshot_annotations": "true"}
    return {"type": "snapshot", "address": str(places.socket), "exports": exports}


def _new_form(version: Version, mode: Mode, cri: Cri) -> Table:
    return {
        IMAGES: {**_image_settings(version, mode, cri), "runtime_platforms": {NAME: {"snapshotter": NAME}}},
        RUNTIME: {"containerd": {"runtimes": {NAME: _handler(version, cri)}}},
    }


def _old_form(version: Version, mode: Mode, cri: Cri) -> Table:
    name, stock = cri.stock
    below = {**_image_settings(version, mode, cri), "runtimes": {NAME: _handler(version, cri)}}
    if version.merges:
        # Converted by containerd, but for the platforms, which its conversion forgets.
        platforms = {"runtime_platforms": {NAME: {"snapshotter": NAME}}}
        return {OLD_CRI: {"containerd": below}, IMAGES: platforms}
    runtimes = {name: stock, **section(cri.old, "containerd", "runtimes"), **below["runtimes"]}
    kept = {**section(cri.old, "containerd"), **below, "runtimes": runtimes}
    return {OLD_CRI: {**cri.old, "containerd": kept}}


def _image_settings(version: Version, mode: Mode, cri: Cri) -> Table:
    chosen: Table = {"snapshotter": NAME} if mode == "default" else {}
    if cri.pulls_locally(version):  # there our snapshotter hears of images only by annotations
        chosen["disable_snapshot_annotations"] = False
    return chosen


def _handler(version: Version, cri: Cri) -> Table:
    _, stock = cri.stock
    return {**stock, **({"snapshotter": NAME} if version.has_handlers else {})}


def _transfer(written: Mapping[str, Any]) -> Table:
    """What is named here replaces containerd's default, which is the default snapshotter alone."""
    there = section(written, "plugins", TRANSFER).get("unpack_config", [])
    named = {each.get("snapshotter") for each in there if isinstance(each, Mapping)}
    wanted = dict.fromkeys((Cri.of(written).snapshotter, NAME))
    missing = [{"platform": "linux", "snapshotter": name} for name in wanted if name not in named]
    return {TRANSFER: {"unpack_config": missing}} if missing else {}


def section(tables: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The table at ``path``; an empty one if there is none."""
    found: Any = tables
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
