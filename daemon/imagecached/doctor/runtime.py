"""What can be known of a live containerd. It is asked over its own socket, and changes nothing there.

A question that it cannot answer leaves the fact empty: what that means is for :mod:`judge` to say.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from imagecached.containerd import CRI_NAMESPACE, Containerd, Namespace, Plugin, Snapshots
from imagecached.containerd.held import CONFIG, bound, chain, manifests
from imagecached.dropin import NAME, Places, Version
from imagecached.dropin.objections import InUse
from imagecached.dropin.setup import Setup
from imagecached.errors import ImagecachedError, InvalidInput

T = TypeVar("T")

_SECONDS: Final = 20.0
_SNAPSHOT_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.2
_SYSTEMD: Final = Path("/run/systemd/system")
_UNIT: Final = Path("/etc/systemd/system/sockets.target.wants/imagecached-snapshots.socket")
_CRI_PLUGINS: Final = frozenset(
    {
        ("io.containerd.grpc.v1", "cri"),
        ("io.containerd.cri.v1", "images"),
        ("io.containerd.cri.v1", "runtime"),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One containerd at one moment; an empty string says that there is nothing to say."""

    socket: Path
    silent: str = ""  # why it does not answer, and nothing below is known
    version: Version | None = None
    plugin: Plugin | None = None  # ours, as containerd has it
    cri: str = ""  # why it serves no pods
    handlers: Mapping[str, str]  # name → snapshotter, empty for the default one
    default: str = ""  # snapshotter
    sandbox_image: str = ""
    sandbox_here: bool | None = None  # its layers are in our snapshotter; None: unknown
    unanswered: str = ""  # why there are no statistics
    nowhere: int = 0  # containers whose statistics name no disk
    missing: tuple[str, ...] = ()  # disks that statistics name and that do not exist
    socket_unit: bool | None = None  # the snapshots socket is there before containerd; None: no systemd


def look(socket: Path, snapshotter: str = NAME) -> Runtime:
    """Ask everything; blocks for a moment. ``snapshotter``: what containerd calls ours."""
    try:
        return asyncio.run(_within(_look(socket, snapshotter)))
    except (ImagecachedError, TimeoutError) as error:
        return Runtime(socket=socket, silent=str(error) or "it answers too slowly", handlers={})


def is_stale(snapshots: Path, root: Path) -> bool:
    """The drop-in that we installed on this node is not the one that it needs today."""
    with suppress(ImagecachedError, OSError, ValueError):
        return Setup().is_stale(Places(snapshots, root))
    return False


def in_use(socket: Path) -> InUse | None:
    """What a change of the default snapshotter would break; None if containerd does not answer."""
    try:
        return asyncio.run(_within(_in_use(socket)))
    except (ImagecachedError, TimeoutError):
        return None


def why_no_pods(socket: Path, patience_seconds: float) -> str:
    """Why it does not serve pods from us, asked until it does or a while is over."""
    try:
        return asyncio.run(_until_it_serves(socket, patience_seconds))
    except TimeoutError:
        return look(socket).silent or "it does not serve pods with the new settings"


async def _until_it_serves(socket: Path, patience_seconds: float) -> str:
    async with asyncio.timeout(patience_seconds):
        while True:
            with suppress(ImagecachedError):
                async with _connected(socket) as containerd:
                    return await _why_not_from_us(containerd)
            await asyncio.sleep(_PAUSE_SECONDS)


async def _why_not_from_us(containerd: Containerd) -> str:
    """Asks nothing that containerd would ask us: our daemon may start only after this."""
    plugins = await containerd.plugins()
    if why := _why_no_cri(plugins):
        return why
    await containerd.cri_status()
    ours = _ours(plugins, NAME)
    return f"it has no snapshotter {NAME}" if ours is None or ours.error else ""


async def _within(work: Awaitable[T]) -> T:
    async with asyncio.timeout(_SECONDS):
        return await work


@asynccontextmanager
async def _connected(socket: Path) -> AsyncIterator[Containerd]:
    containerd = Containerd(socket)
    try:
        yield containerd
    finally:
        await containerd.close()


async def _look(socket: Path, snapshotter: str) -> Runtime:
    async with _connected(socket) as containerd:
        version, plugins = await containerd.version(), await containerd.plugins()
        cri = _why_no_cri(plugins)
        status = {} if cri else _document((await containerd.cri_status()).get("config", ""))
        disks, containers, unanswered = await _statistics(containerd) if not cri else ((), {}, "")
        namespace = containerd.namespace(CRI_NAMESPACE)
        image = str(status.get("sandboxImage", "")) or await _sandbox(namespace)
        return Runtime(
            socket=socket,
            version=_version(version.number),
            plugin=_ours(plugins, snapshotter),
            cri=cri,
            handlers=_handlers(status),
            default=_default(status, plugins, disks),
            sandbox_image=image,
            sandbox_here=await _is_here(namespace, snapshotter, image) if image else None,
            socket_unit=_UNIT.exists() if _SYSTEMD.exists() else None,
            unanswered=unanswered,
            nowhere=sum(1 for disk in containers.values() if not disk),
            missing=tuple(
                sorted({disk for disk in (*disks, *containers.values()) if disk and not _exists(disk)})
            ),
        )


async def _in_use(socket: Path) -> InUse:
    async with _connected(socket) as containerd:
        namespace = containerd.namespace(CRI_NAMESPACE)
        images = await bound(namespace)
        return InUse(
            len(await namespace.containers()),
            only_ours=tuple(sorted(name for name, those in images.items() if those == {NAME})),
            only_others=tuple(sorted(name for name, those in images.items() if NAME not in those)),
        )


async def _statistics(containerd: Containerd) -> tuple[tuple[str, ...], Mapping[str, str], str]:
    """Disks of images and of containers, and why not."""
    try:
        return await containerd.image_disks(), await containerd.container_disks(), ""
    except ImagecachedError as error:
        return (), {}, str(error)


def _why_no_cri(plugins: tuple[Plugin, ...]) -> str:
    parts = [each for each in plugins if (each.type, each.id) in _CRI_PLUGINS]
    if not parts:
        return "CRI is turned off"
    return next((each.error for each in parts if each.error), "")


def _version(number: str) -> Version | None:
    with suppress(InvalidInput):
        return Version.parse(number)
    return None


def _document(text: str) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        document = json.loads(text)
        if isinstance(document, dict):
            return document
    return {}


def _handlers(status: Mapping[str, Any]) -> dict[str, str]:
    runtimes = (status.get("containerd") or {}).get("runtimes") or {}
    return {name: str((each or {}).get("snapshotter") or "") for name, each in runtimes.items()}


def _default(status: Mapping[str, Any], plugins: tuple[Plugin, ...], disks: tuple[str, ...]) -> str:
    """containerd 1 says it; of 2 it shows in the disk that images are on."""
    if said := (status.get("containerd") or {}).get("snapshotter"):
        return str(said)
    found = (each.id for each in plugins if _is_snapshotter(each) and each.exports.get("root") in disks[:1])
    return next(found, "")


def _ours(plugins: tuple[Plugin, ...], snapshotter: str) -> Plugin | None:
    return next((each for each in plugins if _is_snapshotter(each) and each.id == snapshotter), None)


def _is_snapshotter(plugin: Plugin) -> bool:
    return plugin.type == "io.containerd.snapshotter.v1"


def _exists(disk: str) -> bool:
    return Path(disk).is_dir()


async def _sandbox(namespace: Namespace) -> str:
    """The image of any sandbox that is here."""
    return next((each.image for each in await namespace.sandboxes() if each.image), "")


async def _is_here(namespace: Namespace, snapshotter: str, image: str) -> bool | None:
    """Whether our snapshotter has the whole chain of an image; None: containerd cannot say."""
    record = await namespace.images.get(image)
    if record is None:
        return None
    for labels in await manifests(namespace, record.target.digest):
        if links := await chain(namespace, labels[CONFIG]):
            return await _has(namespace.snapshots(snapshotter), links[-1])
    return None


async def _has(snapshots: Snapshots, key: str) -> bool | None:
    """None: containerd waits for our daemon, which is not there."""
    try:
        async with asyncio.timeout(_SNAPSHOT_SECONDS):
            return await snapshots.stat(key) is not None
    except (ImagecachedError, TimeoutError):
        return None
