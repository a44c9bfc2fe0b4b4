"""Overlays of whole images: on a caller's directory, or as the rootfs of a bundle. Synchronous; any thread.

Invariants: only what this module mounted is unmounted by it; what a running container has as its root is
never removed; a call that fails leaves neither mount nor folder.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from imagecached.containers import target as targets
from imagecached.containers.bundles import Bundle, find_runtime, write_config
from imagecached.containers.spec import Run
from imagecached.containers.workspaces import Workspaces, id_of, new_id, source
from imagecached.errors import FailedPrecondition, ImagecachedError, InvalidInput, NotFound
from imagecached.mounts import Mounter, mountinfo
from imagecached.mounts.failures import translated
from imagecached.mounts.syscalls import MS_NODEV, MS_NOSUID
from imagecached.oci.documents import ImageConfig

log = logging.getLogger(__name__)

_HARMLESS: Final = MS_NOSUID | MS_NODEV


class Trees:
    """The mounted trees of one root; see :class:`imagecached.containers.Containers` for the promises."""

    def __init__(self, mounter: Mounter) -> None:
        self._mounter = mounter
        self._workspaces = Workspaces(mounter.root / "containers")
        self._creating = threading.Lock()  # a folder whose overlay is yet to come must not pass for garbage

    def mount(self, layers: Sequence[Path], target: Path, *, read_write: bool) -> None:
        """Mount on an empty directory of the caller's."""
        with targets.opened(target, outside=self._mounter.root) as held:
            if read_write:
                self._mount_writable(layers, held.handle)
            else:
                self._mounter.overlay(layers, held.handle, source=source(new_id()), flags=_HARMLESS)
            log.info("image mounted", extra={"target": str(held.path), "layers": len(layers)})

    def umount(self, target: Path) -> None:
        """Unmount what :meth:`mount` mounted, and delete what was written."""
        try:
            path = target.resolve()
        except OSError as error:
            raise InvalidInput(f"{target}: {error.strerror}") from error
        mount = mountinfo.topmost(mountinfo.read(), str(path))
        container = id_of(mount) if mount else ""
        if not container or path.is_relative_to(self._mounter.root):
            raise InvalidInput(f"{target}: no image is mounted there")
        self._mounter.umount(path)
        self._remove(container)

    def bundle(self, layers: Sequence[Path], config: ImageConfig, run: Run, client: int) -> Bundle:
        """Make a folder with the image as its rootfs, and the runtime's configuration."""
        runtime = find_runtime()
        with self._undone_on_failure() as container, _translating("make a bundle"):
            bundle = Bundle(container, self._workspaces.path(container), runtime)
            with self._creating:
                self._workspaces.create(container)
                self._workspaces.note_client(container, client)
                rootfs = bundle.dir / "rootfs"
                rootfs.mkdir()
                self._mounter.overlay(layers, rootfs, source=source(container), writable=bundle.dir)
            write_config(bundle, config, run)
        return bundle

    def release(self, container: str) -> None:
        """Unmount and delete the folder of a bundle that nobody runs."""
        path = self._workspaces.path(container)
        if not (path / "rootfs").is_dir():
            raise NotFound(f"no container {container}")
        if self._workspaces.is_running(container):
            raise FailedPrecondition(f"container {container} still runs")
        with suppress(InvalidInput):  # not mounted: a crash or a reboot came between
            self._mounter.umount(path / "rootfs")
        self._remove(container)

    def reap(self) -> list[str]:
        """Delete folders that nobody uses, release bundles whose client is dead."""
        with _translating("tidy up"):
            with self._creating:
                abandoned = self._workspaces.collect()
            self._workspaces.empty_trash()
        released = []
        for container in abandoned:
            try:
                self.release(container)
                released.append(container)
            except ImagecachedError as error:
                log.warning("container cannot be released", extra={"id": container, "reason": str(error)})
        return released

    def _mount_writable(self, layers: Sequence[Path], handle: str) -> None:
        with self._undone_on_failure() as container, self._creating:
            writable = self._workspaces.create(container)
            self._mounter.overlay(
                layers, handle, source=source(container), writable=writable, flags=_HARMLESS
            )

    @contextmanager
    def _undone_on_failure(self) -> Iterator[str]:
        container = new_id()
        try:
            yield container
        except BaseException:
            with suppress(ImagecachedError):
                self._mounter.umount(self._workspaces.path(container) / "rootfs")
            self._remove(container)
            raise

    def _remove(self, container: str) -> None:
        with _translating(f"delete what container {container} wrote"):
            self._workspaces.remove(container)


@contextmanager
def _translating(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise translated(error, what) from error
