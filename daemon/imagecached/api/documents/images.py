"""Pulls and images: progress, results, what is here and what containerd knows of it."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from imagecached.api.documents.results import ErrorDetail, EventLine
from imagecached.api.ports import LayerSource, PullState, RegistrationName


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


class ImageDescription(Struct, frozen=True, kw_only=True):
    """Everything known of one image; ``seconds`` of its last pull, None if that is forgotten."""

    image: ImageSummary
    target_digest: str
    target_media_type: str
    layers: list[DescribedLayer]
    seconds: PhaseSeconds | None
    events: list[EventLine]
