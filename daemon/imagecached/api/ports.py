"""What the HTTP API needs of the rest: Protocols for use cases, values as the lower levels define them.

The composition root fills :class:`Ports`. Every method raises the classes of ``errors`` only.
Synchronous methods answer within a millisecond; they are called on the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from imagecached.events import EventLog
from imagecached.oci.digest import Digest

if TYPE_CHECKING:
    from imagecached.caches import Applied, View
    from imagecached.caches.choosing import Choice
    from imagecached.containers.spec import Run
    from imagecached.imagecache import Decision, ImageCache, PodImages, Problem
    from imagecached.store.records import FsckReport, GcReport, Image, ImageRecord, Layer, Snapshot, Usage

PullState = Literal["resolving", "fetching", "preparing", "ready", "failed"]
LayerSource = Literal["present", "fetched", "shared"]
Verdict = Literal["ok", "warn", "fail"]
RegistrationName = Literal["registered", "pending", "failed"]


class LayerProgress(Protocol):
    """One layer of one pull; ``size`` and ``done`` count bytes of the blob.

    ``source``: "present" before the pull began, "fetched" by this pull, "shared" with another pull that
    fetched it; None while it is not known.
    """

    @property
    def digest(self) -> Digest: ...
    @property
    def diff_id(self) -> Digest: ...
    @property
    def size(self) -> int: ...
    @property
    def source(self) -> LayerSource | None: ...
    @property
    def done(self) -> int: ...


class Progress(Protocol):
    """How far a pull is. ``image``: the canonical name; ``seconds``: of resolve, fetch, prepare and total."""

    @property
    def image(self) -> str: ...
    @property
    def state(self) -> PullState: ...
    @property
    def layers(self) -> Sequence[LayerProgress]: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...


class PullResult(Protocol):
    """What a pull made present; the rest is told by its last :class:`Progress`."""

    @property
    def manifest_digest(self) -> Digest: ...
    @property
    def chain_id(self) -> Digest: ...


class Pull(Protocol):
    """One caller's part in a pull."""

    def progress(self) -> Progress:
        """How far it is, at any time, after the end as well."""
        ...

    async def wait(self) -> PullResult:
        """The result, or the error of the pull. Cancelling the wait alone does not leave."""
        ...

    def leave(self) -> None:
        """This caller wants it no more; nobody else wanting it either cancels it. Harmless after the end."""
        ...


class Images(Protocol):
    """``imagecached.images.Images``."""

    def pull(self, reference: str, platform: str | None = None) -> Pull:
        """Start or join a pull. InvalidInput for what is no reference or no platform."""
        ...


class Store(Protocol):
    """What is asked of ``imagecached.store.Store``."""

    def images(self) -> Sequence[Image]: ...
    def image(self, name: str) -> ImageRecord | None: ...
    def layers(self) -> Sequence[Layer]: ...
    def layer(self, diff_id: Digest) -> Layer | None: ...
    def snapshots(self) -> Sequence[Snapshot]: ...
    def usage(self) -> Usage: ...
    async def remove_image(self, name: str) -> None: ...
    async def gc(self, *, dry_run: bool = False) -> GcReport: ...
    async def fsck(
        self, *, repair: bool = False, on_progress: Callable[[int, int], None] | None = None
    ) -> FsckReport: ...


class RegistrationState(Protocol):
    """Whether containerd knows an image; ``reason`` is one line, empty if it does.

    ``pinned``: whether the kubelet's garbage collection leaves it alone, None where that is not known.
    """

    @property
    def state(self) -> RegistrationName: ...
    @property
    def reason(self) -> str: ...
    @property
    def pinned(self) -> bool | None: ...
    @property
    def since(self) -> float: ...


class Registration(Protocol):
    """What is asked of ``imagecached.registration.Registration``; names are canonical."""

    def state(self, name: str) -> RegistrationState | None: ...
    async def unregister(self, *names: str) -> None:
        """Undo what was registered of images that leave the store. Never fails."""
        ...

    def fetch_blobs(self, name: str) -> Pull:
        """Begin or join bringing the blobs of an image's layers into containerd; told of as a pull is."""
        ...


class Bundle(Protocol):
    """An OCI bundle: ``dir`` holds config.json and the mounted rootfs; ``runtime``: the program to run it."""

    @property
    def id(self) -> str: ...
    @property
    def dir(self) -> Path: ...
    @property
    def runtime(self) -> str: ...


class Containers(Protocol):
    """What is asked of ``imagecached.containers.Containers``; ``image`` is a canonical name, or NotFound."""

    async def mount(self, image: str, target: Path, *, read_write: bool) -> None: ...
    async def umount(self, target: Path) -> None: ...
    async def bundle(
        self, image: str, command: Sequence[str], *, terminal: bool, client: int, settings: Run
    ) -> Bundle: ...

    async def release(self, container_id: str) -> None:
        """Unmount and remove a bundle. NotFound."""
        ...


class Caches(Protocol):
    """What is asked of ``imagecached.caches.Caches``."""

    async def apply(self, caches: Iterable[ImageCache]) -> Mapping[str, Applied]: ...
    async def delete(self, name: str) -> View: ...
    def view(self, name: str) -> View: ...
    def list(self) -> Sequence[View]: ...
    def watch(self, name: str | None = None) -> AsyncGenerator[View | str, None]: ...
    def decide(self, pod: PodImages) -> Decision: ...
    async def choose(self, image: str, annotations: Mapping[str, str]) -> Choice: ...


class Finding(Protocol):
    """One answer of doctor; ``advice`` is empty when there is nothing to do."""

    @property
    def name(self) -> str: ...
    @property
    def verdict(self) -> Verdict: ...
    @property
    def text(self) -> str: ...
    @property
    def advice(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything the API talks to.

    ``registration``: None where no containerd is told of images. ``problems``: of the files of ImageCaches.
    ``examine`` is run in a thread. ``why_not_ready``: None when ready. ``mount_method``: the rung of the
    mount ladder in use. ``started``: seconds since the epoch.
    """

    images: Images
    caches: Caches
    problems: Callable[[], Sequence[Problem]]
    store: Store
    containers: Containers
    events: EventLog
    registration: Registration | None
    examine: Callable[[], Sequence[Finding]]
    why_not_ready: Callable[[], str | None]
    root: Path
    mount_method: str
    started: float
