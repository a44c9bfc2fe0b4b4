"""The door: layer files and overlays, mounted.

Invariants: what was mounted stays so until somebody asks otherwise or :meth:`Mounter.sweep` finds that
nothing uses it; nothing is unmounted lazily, and nothing at exit, so running containers outlive the daemon.
Calls are synchronous and may come from any thread.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from imagecached.errors import InvalidInput
from imagecached.mounts import ladder, mountinfo, syscalls
from imagecached.mounts.failures import translated
from imagecached.mounts.kernel import LADDER, Kernel, Method
from imagecached.mounts.mountinfo import Mount
from imagecached.mounts.overlay import check_path, make_writable, mount_overlay
from imagecached.mounts.points import Points, backing_file, used

log = logging.getLogger(__name__)


class Mounter:
    """The mounts of one root.

    ``method``: the rung of the ladder in use; ``refused``: why not a better one.
    """

    def __init__(self, root: Path, method: Method, refused: Mapping[Method, str] | None = None) -> None:
        self.root = _prepared(root)
        self.method = method
        self.refused = dict(refused or {})
        self._points = Points(self.root / "m")
        self._lock = threading.Lock()
        self._asked_for: set[str] = set()  # mount points handed out since the last sweep looked

    @classmethod
    def probe(cls, root: Path, allowed: Sequence[Method] = LADDER) -> Mounter:
        """A mounter that uses the best way this kernel and this disk have.

        Unsupported with the reason of every method; AccessDenied: not root; OutOfSpace.
        """
        found = ladder.probe(_prepared(root), Kernel.running(), allowed)
        return cls(root, found.method, found.refused)

    def layer(self, file: Path) -> Path:
        """The directory that shows the layer file or seam ``file``, mounted now if it is not yet.

        NotFound; Corrupt: it does not mount. The caller names ``file`` to :meth:`sweep` until it is in use.
        """
        with self._lock:
            return self._layer(file)

    def overlay(
        self,
        layers: Sequence[Path],
        target: str | Path,
        *,
        source: str,
        writable: Path | None = None,
        flags: int = 0,
    ) -> None:
        """Mount an overlay of layer files, top first, on ``target``, in one step that no sweep comes between.

        A layer given more than once counts once, where it is highest: there it covers all that it has further
        down, and the kernel refuses a directory that is twice in one overlay.

        ``source``: its name in the table of mounts. ``writable``: an empty directory that gets ``upper`` and
        ``work``; without it the overlay is read-only. ``flags``: MS_… of :mod:`imagecached.mounts.syscalls`.
        FailedPrecondition: more layers than the kernel takes; Unsupported: ``writable`` cannot lie where it
        does.
        """
        if not layers:
            raise InvalidInput("an overlay needs a layer")
        with self._lock:
            lowers = [self._layer(file) for file in dict.fromkeys(layers)]
            try:
                if writable is not None:
                    make_writable(writable)
                elif len(lowers) == 1:
                    # A bind mount would do, but it shows overlay's own xattrs, and does not bear ``source``.
                    lowers.append(self._points.empty)
                flags |= 0 if writable else syscalls.MS_RDONLY
                base = self._points.directory
                mount_overlay(lowers, target, source=source, writable=writable, flags=flags, base=base)
            except OSError as error:
                raise translated(error, f"mount {len(layers)} layers") from error

    def umount(self, target: str | Path) -> None:
        """Unmount what is on top at ``target``.

        FailedPrecondition: in use; InvalidInput: nothing is mounted.
        """
        try:
            syscalls.umount(target)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise InvalidInput(f"nothing is mounted on {target}") from error
            raise translated(error, f"unmount {target}") from error

    def mounted(self) -> frozenset[Path]:
        """The layer files and seams that are mounted: deleting one takes its name but frees no disk."""
        return frozenset(map(backing_file, self._points.mounts(mountinfo.read())))

    def sweep(self, keep: Collection[Path] = ()) -> frozenset[Path]:
        """Unmount the layer files that no overlay or bind mount uses; returns them.

        ``keep``: files whose directories were handed out to somebody who has not mounted them yet.
        """
        idle = self._idle(keep)
        swept = frozenset(file for mount, file in idle.items() if self._unmount_if_still_idle(mount))
        with self._lock:
            self._points.remove_leftovers()
        if swept:
            log.info("idle layers unmounted", extra={"layers": len(swept)})
        return swept

    def _idle(self, keep: Collection[Path]) -> dict[Mount, Path]:
        with self._lock:
            self._asked_for.clear()
            table = mountinfo.read()
            points = self._points.mounts(table)
            busy = used(table, points)
            files = {mount: backing_file(mount) for mount in points if mount.point not in busy}
        return {mount: file for mount, file in files.items() if file not in keep}

    def _unmount_if_still_idle(self, mount: Mount) -> bool:
        # An unmount may take milliseconds, and a thousand of them seconds: mounts go on in between.
        with self._lock:
            return mount.point not in self._asked_for and self._points.unmount(mount)

    def _layer(self, file: Path) -> Path:
        point = self._points.mount(file, self.method)
        self._asked_for.add(str(point))
        return point


def _prepared(root: Path) -> Path:
    """The true path of ``root``, with the folders that mounting needs."""
    check_path(root)
    root = root.resolve()
    check_path(root)
    for name in ("ingest", "m"):
        (root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    return root
