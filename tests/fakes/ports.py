"""The HTTP API's ports without anything behind them, and the real API over them on a real socket.

The values are the real ones. A pull ends at once, as told by ``outcomes``, unless its image is in ``held``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from imagecached import api
from imagecached.api.ports import Finding, LayerProgress, LayerSource, PullState
from imagecached.caches import Applied, View
from imagecached.caches.choosing import Choice, container, decide, image_of, only_image, refuse
from imagecached.containers import Bundle, Run
from imagecached.errors import NotFound
from imagecached.events import EventLog
from imagecached.imagecache import (
    Bytes,
    Decision,
    ImageCache,
    ImageStatus,
    PodImages,
    Problem,
    Status,
    is_cache_id,
    parse_manifests,
    phases,
)
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.media_types import OCI_CONFIG, OCI_MANIFEST
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.store import FsckReport, GcReport, Image, ImageRecord, Layer, Snapshot, Usage

DIFF_IDS = (Digest.of(b"lower"), Digest.of(b"upper"))
CHAIN_IDS = chain_ids(DIFF_IDS)
BLOBS = (Digest.of(b"lower blob"), Digest.of(b"upper blob"))
_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def manifest() -> bytes:
    """A manifest with the two blobs, 100 and 50 bytes."""
    layers = [
        {"mediaType": _GZIP, "digest": blob, "size": size}
        for blob, size in zip(BLOBS, (100, 50), strict=True)
    ]
    config = {"mediaType": OCI_CONFIG, "digest": Digest.of(b"config"), "size": 6}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
    return msgspec.json.encode(document, enc_hook=str)


def image(name: str, **changes: Any) -> ImageRecord:
    """A record of an image with both layers."""
    raw = manifest()
    facts: dict[str, Any] = {
        "name": name,
        "target": Descriptor(OCI_MANIFEST, Digest.of(raw), len(raw)),
        "manifest_digest": Digest.of(raw),
        "platform": Platform("linux", "amd64"),
        "diff_ids": DIFF_IDS,
        "chain_id": CHAIN_IDS[-1],
        "created": 1_700_000_000.0,
        "last_used": 1_700_000_500.5,
        "disk_bytes": 3000,
        "manifest": raw,
        "config": b"config",
    }
    return ImageRecord(**{**facts, **changes})


class FakeStore:
    """Two layers, two snapshots, and the images put into ``records``."""

    def __init__(self, *records: ImageRecord) -> None:
        self.records = {record.name: record for record in records}
        self.report = FsckReport((), 2, 3000)
        self.fsck_error: Exception | None = None
        self.steps: list[tuple[int, int]] = []
        self.checked = threading.Event()
        self.checked.set()

    def images(self) -> Sequence[Image]:
        return tuple(self.records.values())

    def image(self, name: str) -> ImageRecord | None:
        return self.records.get(name)

    def layers(self) -> Sequence[Layer]:
        return tuple(filter(None, map(self.layer, DIFF_IDS)))

    def layer(self, diff_id: Digest) -> Layer | None:
        if diff_id not in DIFF_IDS:
            return None
        sizes = (2000, 2500, 2048) if diff_id == DIFF_IDS[0] else (1000, 1400, 1024)
        return Layer(diff_id, Path("/x"), *sizes, 7, 1_700_000_000.0, 1_700_000_000.0)

    def snapshots(self) -> Sequence[Snapshot]:
        return (
            Snapshot(CHAIN_IDS[0], None, DIFF_IDS[0], seam=False, disk_bytes=2048, created=1_700_000_000.0),
            Snapshot(
                CHAIN_IDS[1], CHAIN_IDS[0], DIFF_IDS[1], seam=True, disk_bytes=3072, created=1_700_000_000.0
            ),
        )

    def usage(self) -> Usage:
        return Usage(3072, 6144, 10**9, 10**10, 2, len(self.records), 2, over_high=False)

    async def remove_image(self, name: str) -> None:
        if self.records.pop(name, None) is None:
            raise NotFound(f"image {name} is not here")

    async def gc(self, *, dry_run: bool = False) -> GcReport:
        return GcReport(layers=(DIFF_IDS[1],), orphans=("ingest/x",), freed_bytes=1024, dry_run=dry_run)

    async def fsck(
        self, *, repair: bool = False, on_progress: Callable[[int, int], None] | None = None
    ) -> FsckReport:
        for step in self.steps:
            if on_progress:
                on_progress(*step)
        while not self.checked.is_set():
            await asyncio.sleep(0)
        if self.fsck_error:
            raise self.fsck_error
        return self.report


@dataclass(slots=True)
class FakeLayer:
    digest: Digest
    diff_id: Digest
    size: int
    source: LayerSource | None = None
    done: int = 0


@dataclass(slots=True)
class FakeTransfer:
    image: str
    state: PullState = "resolving"
    layers: Sequence[LayerProgress] = ()
    seconds: dict[str, float] = field(
        default_factory=lambda: {"resolve": 0.25, "fetch": 1.5, "prepare": 0.004, "total": 1.754}
    )


@dataclass(frozen=True, slots=True)
class FakeResult:
    manifest_digest: Digest
    chain_id: Digest


class FakePull:
    def __init__(self, images: FakeImages, name: str) -> None:
        self._images = images
        self._transfer = FakeTransfer(name)
        self.ended = asyncio.Event()

    def fetch(self, done: int) -> None:
        """The lower layer was here, ``done`` bytes of the upper one have come."""
        self._transfer.state = "fetching"
        self._transfer.layers = (
            FakeLayer(BLOBS[0], DIFF_IDS[0], 100, "present", 100),
            FakeLayer(BLOBS[1], DIFF_IDS[1], 50, "fetched", done),
        )

    def progress(self) -> FakeTransfer:
        return self._transfer

    async def wait(self) -> FakeResult:
        await self.ended.wait()
        error = self._images.outcomes.get(self._transfer.image)
        if error is not None:
            self._transfer.state = "failed"
            raise error
        self.fetch(50)
        self._transfer.state = "ready"
        self._images.store.records.setdefault(self._transfer.image, image(self._transfer.image))
        return FakeResult(Digest.of(manifest()), CHAIN_IDS[-1])

    def leave(self) -> None:
        self._images.left.add(self._transfer.image)
        self._images.somebody_left.set()


class FakeImages:
    """Remembers the ``pulls`` and who ``left``."""

    def __init__(self, store: FakeStore) -> None:
        self.store = store
        self.outcomes: dict[str, Exception] = {}
        self.held: set[str] = set()
        self.pulls: dict[str, FakePull] = {}
        self.platforms: list[str | None] = []
        self.left: set[str] = set()
        self.somebody_left = threading.Event()

    def pull(self, reference: str, platform: str | None = None) -> FakePull:
        self.platforms.append(platform)
        pull = self.pulls[reference] = FakePull(self, reference)
        if reference not in self.held:
            pull.ended.set()
        return pull


class FakeContainers:
    """Remembers what was asked; images must be in the store."""

    def __init__(self, store: FakeStore, runtime: Path) -> None:
        self._store = store
        self._runtime = runtime
        self.mounts: dict[Path, tuple[str, bool]] = {}
        self.runs: list[tuple[str, tuple[str, ...], bool, int, Run]] = []
        self.released: list[str] = []
        self.release_error: Exception | None = None

    async def mount(self, image: str, target: Path, *, read_write: bool) -> None:
        self._need(image)
        self.mounts[target] = (image, read_write)

    async def umount(self, target: Path) -> None:
        if self.mounts.pop(target, None) is None:
            raise NotFound(f"{target}: nothing of ours is mounted there")

    async def bundle(
        self, image: str, command: Sequence[str], *, terminal: bool, client: int, settings: Run
    ) -> Bundle:
        self._need(image)
        self.runs.append((image, tuple(command), terminal, client, settings))
        return Bundle("0123456789ab", Path("/bundle"), str(self._runtime))

    async def release(self, container_id: str) -> None:
        self.released.append(container_id)
        if self.release_error:
            raise self.release_error

    def _need(self, image: str) -> None:
        if self._store.image(image) is None:
            raise NotFound(f"image {image} is not here: pull it")


@dataclass(frozen=True, slots=True)
class RegistrationState:
    state: Literal["registered", "pending", "failed"]
    reason: str
    pinned: bool | None
    since: float


@dataclass(slots=True)
class FakeRegistration:
    """States that a test sets, and what was unregistered; blobs come as images do."""

    images: FakeImages
    states: dict[str, RegistrationState] = field(default_factory=dict)
    unregistered: list[str] = field(default_factory=list)

    def state(self, name: str) -> RegistrationState | None:
        return self.states.get(name)

    async def unregister(self, *names: str) -> None:
        self.unregistered += names

    def fetch_blobs(self, name: str) -> FakePull:
        return self.images.pull(name)


class FakeCaches:
    """The ImageCaches put into ``views``, as they are; the decisions are the real ones."""

    def __init__(self) -> None:
        self.views: dict[str, View] = {}
        self.errors: dict[str, Exception] = {}
        self.chosen: list[tuple[str, Mapping[str, str]]] = []
        self.changes: asyncio.Queue[View | str] = asyncio.Queue()

    def put(self, view: View) -> None:
        """As if the cache were like this now, for lists and for those who watch."""
        self.views[view.id] = view
        self.changes.put_nowait(view)

    async def apply(self, caches: Iterable[ImageCache]) -> Mapping[str, Applied]:
        outcome: dict[str, Applied] = {}
        for cache in caches:
            if cache.name in self.errors:
                raise self.errors[cache.name]
            outcome[cache.name] = "configured" if cache.id in self.views else "created"
            self.put(view(cache))
        return outcome

    async def delete(self, name: str) -> View:
        found = self.view(name)
        if found.name in self.errors:
            raise self.errors[found.name]
        return self.views.pop(found.id)

    def view(self, name: str) -> View:
        for one in self.list():
            if name in (one.id, one.name):
                return one
        raise NotFound(f"no ImageCache {name}")

    def list(self) -> Sequence[View]:
        return sorted(self.views.values(), key=lambda one: one.name)

    async def watch(self, name: str | None = None) -> AsyncGenerator[View | str, None]:
        for one in self.list():
            if name in (None, one.id, one.name):
                yield one
        while True:
            change = await self.changes.get()
            if name is None or isinstance(change, str) or name in (change.id, change.name):
                yield change

    def decide(self, pod: PodImages) -> Decision:
        return decide(pod, self.list())

    async def choose(self, image: str, annotations: Mapping[str, str]) -> Choice:
        self.chosen.append((image, annotations))
        if is_cache_id(image):
            return Choice(only_image(self.view(image)))
        decision = self.decide(container(image, annotations))
        refuse(decision)
        return Choice(image_of(decision, image), decision)


def cache(name: str, *images: str, labels: Mapping[str, str] | None = None, **spec: Any) -> ImageCache:
    """An ImageCache as a file declares it."""
    document = {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": {"name": name, "labels": dict(labels or {})},
        "spec": {"images": list(images), **spec},
    }
    parsed = parse_manifests(msgspec.json.encode(document), "test")
    assert parsed.problems == ()
    return parsed.caches[0]


def view(cache: ImageCache, *acts: Callable[[ImageCache, Status], Status]) -> View:
    """The cache as others see it after ``acts``, such as :func:`built`."""
    status = phases.begin(cache, Status(), 1_700_000_000.0)
    for act in acts:
        status = act(cache, status)
    names = {image.image: f"{Reference.parse(image.image).name}@{image.digest}" for image in status.serving}
    settled = status.phase in ("Ready", "Failed", "UpdateFailed")
    return View(cache.id, cache.name, "api", "", status, cache, names, settled)


def resolved(cache: ImageCache, status: Status) -> Status:
    """Its images are known, and 50 of 150 bytes are here."""
    images = [
        ImageStatus(image, Digest.of(image.encode()), (Digest.of(manifest()),), 3000)
        for image in cache.images
    ]
    known = phases.resolve(cache, status, images, 1_700_000_001.0)
    return phases.advance(cache, known, 1_700_000_002.0, moved=Bytes(150, 50, 20, 30))


def built(cache: ImageCache, status: Status) -> Status:
    """It is Ready."""
    moved = phases.advance(cache, resolved(cache, status), 1_700_000_003.0, moved=Bytes(150, 150, 20, 130))
    return phases.finish(cache, moved, 1_700_000_060.0)


def failed(cache: ImageCache, status: Status) -> Status:
    """It has failed."""
    return phases.fail(cache, status, 1_700_000_060.0, reason="ImageNotFound", message="no such tag")


@dataclass(slots=True)
class FakePorts:
    """All of them, for a test to arrange and to look at."""

    folder: Path
    store: FakeStore = field(default_factory=FakeStore)
    events: EventLog = field(default_factory=lambda: EventLog(clock=lambda: 1_700_000_000.0))
    caches: FakeCaches = field(default_factory=FakeCaches)
    problems: Sequence[Problem] = ()
    findings: Sequence[Finding] = ()
    told: bool = True  # is there a containerd to tell of images
    registration: FakeRegistration = field(init=False)
    images: FakeImages = field(init=False)
    containers: FakeContainers = field(init=False)

    def __post_init__(self) -> None:
        self.images = FakeImages(self.store)
        self.registration = FakeRegistration(self.images)
        self.containers = FakeContainers(self.store, self.folder / "runtime")

    def ports(self) -> api.Ports:
        """What the API gets."""
        return api.Ports(
            images=self.images,
            caches=self.caches,
            problems=lambda: self.problems,
            store=self.store,
            containers=self.containers,
            events=self.events,
            registration=self.registration if self.told else None,
            examine=lambda: self.findings,
            why_not_ready=lambda: None,
            root=self.folder,
            mount_method="directio",
            started=1_700_000_000.0,
        )


class Served:
    """An API that answers on ``socket`` from a thread of its own."""

    def __init__(self, socket: Path, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        self.socket = socket
        self._loop = loop
        self._stop = stop

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Run ``function`` on the API's event loop, and wait for it."""

        async def act() -> None:
            function(*arguments)

        asyncio.run_coroutine_threadsafe(act(), self._loop).result(10)

    def stop(self) -> None:
        """Begin the shutdown, if that has not happened."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._stop.set)


@contextmanager
def serve_api(fakes: FakePorts, socket: Path, group: str = "") -> Iterator[Served]:
    """The real API over ``fakes`` for the length of the body."""
    ready = threading.Event()
    served: list[Served] = []

    async def main() -> None:
        stop = asyncio.Event()
        try:
            async with (
                asyncio.TaskGroup() as tasks,
                api.serve(fakes.ports(), tasks, path=socket, group=group),
            ):
                served.append(Served(socket, asyncio.get_running_loop(), stop))
                ready.set()
                await stop.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield served[0]
    finally:
        for each in served:
            each.stop()
        thread.join(20)
        assert not thread.is_alive()
