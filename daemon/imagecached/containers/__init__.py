"""The use case "use an image": its tree on a directory, or a bundle to run it with runc or crun.

Owns ``<root>/containers``. Knows no HTTP, no SQL and no process of the containers: the client runs the
runtime itself, with its own standard streams, so a container never depends on the daemon. Invariants: only
what this module mounted is unmounted by it; what a running container has as its root is never removed; a
mount that fails leaves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from imagecached import aio
from imagecached.containers.bundles import Bundle
from imagecached.containers.spec import Run
from imagecached.containers.trees import Trees
from imagecached.errors import Corrupt, FailedPrecondition, NotFound
from imagecached.mounts import Mounter
from imagecached.oci.digest import Digest
from imagecached.oci.documents import ImageConfig, Manifest
from imagecached.oci.parse import parse_config, parse_manifest

__all__ = ["Bundle", "Containers", "Run"]


class Image(Protocol):
    """A prepared image; ``manifest`` and ``config`` are the documents as they were sent."""

    @property
    def chain_id(self) -> Digest: ...
    @property
    def manifest(self) -> bytes: ...
    @property
    def config(self) -> bytes: ...
    @property
    def damaged(self) -> bool: ...


class Chain(Protocol):
    """What to mount: the ``seam``, if any, above the ``layers``, top first."""

    @property
    def seam(self) -> Path | None: ...
    @property
    def layers(self) -> tuple[Path, ...]: ...


class Store(Protocol):
    """What this module needs of :class:`imagecached.store.Store`."""

    def image(self, name: str) -> Image | None: ...
    def chain(self, chain_id: Digest) -> Chain: ...
    def touch(self, name: str) -> None: ...
    def hold(self, owner: str, digests: Iterable[Digest] = ()) -> AbstractContextManager[object]: ...


class Containers:
    """Mounts of whole images, and bundles. Images are named by their canonical names."""

    def __init__(self, store: Store, mounter: Mounter) -> None:
        self._store = store
        self._trees = Trees(mounter)

    async def mount(self, image: str, target: Path, *, read_write: bool = False) -> None:
        """Mount the tree of ``image`` on the empty directory ``target``.

        Set-uid bits and devices have no effect there, since any user of the host may reach it. With
        ``read_write`` changes live until :meth:`umount`, or a reboot. NotFound; InvalidInput: the target;
        FailedPrecondition: damaged image.
        """
        with self._held(image) as (_, layers):
            await aio.finish(self._trees.mount, layers, target, read_write=read_write)

    async def umount(self, target: Path) -> None:
        """Undo :meth:`mount` and drop what was written.

        InvalidInput: no mount of ours; FailedPrecondition: in use.
        """
        await aio.finish(self._trees.umount, target)

    async def bundle(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        terminal: bool = False,
        client: int = 0,
        settings: Run | None = None,
    ) -> Bundle:
        """An OCI bundle of ``image``, ready for the runtime; ``command`` replaces the image's Cmd.

        ``client``: the process that runs it and then calls :meth:`release`, 0 if unknown; see :meth:`reap`.
        ``settings``: what else to replace. NotFound; Unsupported: no runtime is installed; InvalidInput: no
        command, unknown user.
        """
        run = replace(settings or Run(), arguments=tuple(command), terminal=terminal)
        with self._held(image) as (found, layers):
            return await aio.finish(self._trees.bundle, layers, _config(found), run, client)

    async def release(self, container_id: str) -> None:
        """Unmount and delete a bundle. NotFound; FailedPrecondition: its container still runs."""
        await aio.finish(self._trees.release, container_id)

    async def reap(self) -> list[str]:
        """Release the bundles of dead clients, delete what a crash or a reboot left. At start, and with gc.

        A container that outlived its client keeps its bundle until it ends. Returns the ids released.
        """
        return await aio.finish(self._trees.reap)

    @contextmanager
    def _held(self, name: str) -> Iterator[tuple[Image, list[Path]]]:
        """The image and its files, top first, safe from gc until the mounts protect them."""
        image = self._store.image(name)
        if image is None:
            raise NotFound(f"image {name} is not here: pull it")
        if image.damaged:
            raise FailedPrecondition(f"image {name} is damaged: pull it again")
        with self._store.hold(f"mount {name}", [image.chain_id]):
            chain = self._store.chain(image.chain_id)
            self._store.touch(name)
            yield image, [*([chain.seam] if chain.seam else []), *chain.layers]


def _config(image: Image) -> ImageConfig:
    manifest = parse_manifest(image.manifest)
    if not isinstance(manifest, Manifest):
        raise Corrupt("the image's manifest is an index")
    return parse_config(image.config, manifest)
