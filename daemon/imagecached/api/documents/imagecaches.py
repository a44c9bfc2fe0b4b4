"""ImageCaches: what they are, how far, why not; and which of them a pod would get."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from imagecached.api.documents.images import DescribedLayer, PhaseSeconds


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
