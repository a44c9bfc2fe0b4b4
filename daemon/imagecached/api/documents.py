"""Answers of the HTTP API, and thereby ``imagecachectl -o json``: part of the stable surface.

Names are snake_case, sizes in bytes, durations in seconds (``…_seconds``, or below ``seconds``), times
RFC 3339 in UTC. A field may be added; none changes its meaning.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct

from imagecached.api.ports import LayerSource, PullState, RegistrationName, Verdict


class Done(Struct, frozen=True):
    """It is done, and there is nothing to say."""


class ErrorDetail(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``kind`` says what to do about it (see errors); ``message`` is one line for people."""

    kind: str
    message: str
    retry_after_seconds: float | None = None


class ErrorAnswer(Struct, frozen=True, kw_only=True, tag="error", tag_field="type"):
    """Why there is no answer; also the last line of a stream that failed."""

    error: ErrorDetail


class PhaseSeconds(Struct, frozen=True, kw_only=True):
    """Where the time of a pull went."""

    resolve: float = 0.0
    fetch: float = 0.0
    prepare: float = 0.0
    total: float = 0.0


class PulledLayer(Struct, frozen=True, kw_only=True):
    """A layer of a pull, lowest first. ``size_bytes`` and ``done_bytes`` count the compressed blob."""

    digest: str
    diff_id: str
    size_bytes: int
    done_bytes: int
    source: LayerSource | None


class PullProgress(Struct, frozen=True, kw_only=True, tag="progress", tag_field="type"):
    """How far one image is. ``bytes_done`` includes ``bytes_reused``."""

    image: str
    state: PullState
    bytes_total: int
    bytes_done: int
    bytes_reused: int
    layers: list[PulledLayer]


class ReadyImage(Struct, frozen=True, kw_only=True, tag="ready", tag_field="state"):
    """A pull that succeeded."""

    image: str
    manifest_digest: str
    chain_id: str
    bytes_downloaded: int
    bytes_reused: int
    layers: list[PulledLayer]
    seconds: PhaseSeconds


class FailedImage(Struct, frozen=True, kw_only=True, tag="failed", tag_field="state"):
    """A pull that failed."""

    image: str
    error: ErrorDetail


class PullDone(Struct, frozen=True, kw_only=True, tag="done", tag_field="type"):
    """The last line of a pull: what became of every image, in the order asked for."""

    images: list[ReadyImage | FailedImage]


class Registration(Struct, frozen=True, kw_only=True):
    """Whether containerd knows an image, so that the kubelet need not pull it; if not, ``reason`` says why.

    ``pinned``: whether the kubelet's garbage collection leaves it alone, None where that is not known.
    """

    state: RegistrationName
    reason: str
    pinned: bool | None
    since: datetime


class ImageSummary(Struct, frozen=True, kw_only=True):
    """An image in the store; a damaged one must be pulled again.

    ``disk_bytes`` sums its layers, shared ones too. ``registration`` is None where containerd is not told.
    """

    name: str
    manifest_digest: str
    chain_id: str
    platform: str
    layers: int
    disk_bytes: int
    damaged: bool
    created: datetime
    last_used: datetime
    registration: Registration | None


class ImageList(Struct, frozen=True, kw_only=True):
    """All images, by name."""

    images: list[ImageSummary]


class DescribedLayer(Struct, frozen=True, kw_only=True):
    """One layer of an image, lowest first.

    ``blob_digest`` and ``blob_bytes``: the compressed blob in this image's manifest. ``source``: how the last
    pull got it, if that is remembered. ``images``: how many images share it. Sizes are None where the layer
    file is gone.
    """

    diff_id: str
    blob_digest: str | None
    blob_bytes: int | None
    tar_bytes: int | None
    disk_bytes: int | None
    entries: int | None
    images: int
    source: LayerSource | None


class EventLine(Struct, frozen=True, kw_only=True, tag="event", tag_field="type"):
    """Something that happened."""

    number: int
    time: datetime
    kind: str
    subject: str
    facts: dict[str, Any]


class ImageDescription(Struct, frozen=True, kw_only=True):
    """Everything known of one image; ``seconds`` of its last pull, None if that is forgotten."""

    image: ImageSummary
    target_digest: str
    target_media_type: str
    layers: list[DescribedLayer]
    seconds: PhaseSeconds | None
    events: list[EventLine]


class CachedImage(Struct, frozen=True, kw_only=True):
    """One image of an ImageCache, as it was written.

    ``digest``: what the reference named when the generation was built; ``name``: the image's name in the
    store. Null, or 0 bytes, while that is not known.
    """

    image: str
    digest: str | None
    name: str | None
    unpacked_bytes: int


class CacheCondition(Struct, frozen=True, kw_only=True):
    """A condition as Kubernetes has them."""

    type: str
    status: str
    reason: str
    message: str
    last_transition: datetime


class CacheEventLine(Struct, frozen=True, kw_only=True):
    """Something that happened to an ImageCache; ``time`` of the last of ``count`` times."""

    name: str
    type: str
    message: str
    time: datetime
    count: int


class ImageCacheSummary(Struct, frozen=True, kw_only=True, tag="imagecache", tag_field="type"):
    """An ImageCache.

    ``source``: declared by files, api or cluster; ``origin``: in which file. ``serving`` is what containers
    get, of ``serving_generation``; ``images`` are those of the generation built last. ``usable``: something
    serves. ``settled``: nothing is being done about it. Bytes count compressed blobs, ``bytes_done`` includes
    ``bytes_reused``. ``drifted_images``: their tags name something else by now.
    """

    name: str
    id: str
    phase: str
    progress: str
    reason: str
    message: str
    source: str
    origin: str
    usable: bool
    settled: bool
    automatic: bool
    created: datetime | None
    updated: datetime | None
    expires: datetime | None
    last_matched: datetime | None
    retention_days: int | None
    size_gib: int | None
    generation: int
    serving_generation: int
    bytes_total: int
    bytes_done: int
    bytes_reused: int
    bytes_fetched: int
    images: list[CachedImage]
    serving: list[CachedImage]
    drifted_images: list[str]
    conditions: list[CacheCondition]


class ImageCacheList(Struct, frozen=True, kw_only=True):
    """All ImageCaches, by name; ``problems`` of files that declare some."""

    imagecaches: list[ImageCacheSummary]
    problems: list[str]


class ImageCacheGone(Struct, frozen=True, kw_only=True, tag="gone", tag_field="type"):
    """An ImageCache that is no more."""

    id: str


class AppliedCache(Struct, frozen=True, kw_only=True):
    """What became of a manifest: created, configured, unchanged, or a failed build begun anew."""

    name: str
    id: str
    outcome: Literal["created", "configured", "unchanged", "restarted"]


class ApplyAnswer(Struct, frozen=True, kw_only=True):
    """What was applied, in the order of the documents, and what is wrong with or odd about the others."""

    applied: list[AppliedCache]
    problems: list[str]
    warnings: list[str]


class DescribedCacheImage(Struct, frozen=True, kw_only=True):
    """One image that serves; ``seconds`` of its last pull, null if that is forgotten."""

    image: str
    name: str
    digest: str | None
    manifest_digest: str | None
    unpacked_bytes: int
    layers: list[DescribedLayer]
    seconds: PhaseSeconds | None


class ImageCacheDescription(Struct, frozen=True, kw_only=True):
    """Everything known of one ImageCache."""

    imagecache: ImageCacheSummary
    images: list[DescribedCacheImage]
    events: list[CacheEventLine]


class CacheVerdict(Struct, frozen=True, kw_only=True):
    """What was thought of one ImageCache; ``full`` images match, ``repositories`` in another version."""

    name: str
    id: str
    full: int
    repositories: int
    fits: bool
    reason: str


class Match(Struct, frozen=True, kw_only=True):
    """Which ImageCache a pod would get.

    ``outcome``: explicit, full, partial, none, not-found, not-complete (the pod would be refused), or off.
    ``pinned``: image as written → by digest. ``creates``: the automatic ImageCache that would be made.
    """

    kind: str
    namespace: str
    name: str
    images: list[str]
    outcome: str
    degree: str
    reason: str
    cache: str | None
    cache_id: str | None
    pinned: dict[str, str]
    creates: str | None
    verdicts: list[CacheVerdict]
    warnings: list[str]


class MatchAnswer(Struct, frozen=True, kw_only=True):
    """One match per pod, in the order of the documents; what is wrong with the others."""

    matches: list[Match]
    problems: list[str]


class ImageChoice(Struct, frozen=True, kw_only=True):
    """The image to mount or run. ``match``: how it was found, null if no annotation asked for a cache."""

    image: str
    match: Match | None


class LayerSummary(Struct, frozen=True, kw_only=True):
    """A layer file. ``images``: how many images use it."""

    diff_id: str
    tar_bytes: int
    file_bytes: int
    disk_bytes: int
    entries: int
    images: int
    created: datetime
    last_used: datetime


class LayerList(Struct, frozen=True, kw_only=True):
    """All layer files."""

    layers: list[LayerSummary]


class SnapshotSummary(Struct, frozen=True, kw_only=True):
    """A committed snapshot: the layers of ``parent`` and ``diff_id`` above. ``seam``: it needed a seam."""

    chain_id: str
    parent: str | None
    diff_id: str
    seam: bool
    disk_bytes: int
    created: datetime


class SnapshotList(Struct, frozen=True, kw_only=True):
    """All snapshots."""

    snapshots: list[SnapshotSummary]


class ContainerBundle(Struct, frozen=True, kw_only=True):
    """An OCI bundle, ready for ``RUNTIME run --bundle DIR ID``; ``runtime`` is a program's path."""

    id: str
    dir: str
    runtime: str


class GcAnswer(Struct, frozen=True, kw_only=True):
    """What gc removed, or would."""

    images: list[str]
    snapshots: list[str]
    layers: list[str]
    orphans: list[str]
    freed_bytes: int
    dry_run: bool


class FsckProgress(Struct, frozen=True, kw_only=True, tag="progress", tag_field="type"):
    """How far fsck is."""

    bytes_done: int
    bytes_total: int


class Fault(Struct, frozen=True, kw_only=True):
    """One thing that fsck found wrong."""

    kind: str
    subject: str
    text: str
    repaired: bool


class FsckDone(Struct, frozen=True, kw_only=True, tag="done", tag_field="type"):
    """The last line of fsck."""

    faults: list[Fault]
    files: int
    bytes: int


class Finding(Struct, frozen=True, kw_only=True):
    """What doctor says of one thing; ``advice`` is empty when there is nothing to do."""

    name: str
    verdict: Verdict
    text: str
    advice: str


class Diagnosis(Struct, frozen=True, kw_only=True):
    """What doctor found."""

    findings: list[Finding]


class Version(Struct, frozen=True, kw_only=True):
    """Which daemon answers."""

    version: str
    python: str
    api: Literal["v1"]


class Status(Struct, frozen=True, kw_only=True):
    """How the daemon is. ``why_not_ready`` is None when it is ready."""

    version: str
    pid: int
    root: str
    mount_method: str
    started: datetime
    uptime_seconds: float
    why_not_ready: str | None
    images: int
    snapshots: int
    layers: int
    disk_used_bytes: int
    disk_budget_bytes: int
    disk_free_bytes: int
    logical_bytes: int
