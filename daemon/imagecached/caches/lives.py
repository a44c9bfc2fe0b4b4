"""What this node remembers of one cache across restarts, and how that is written down.

Invariants: what was written is read back equal; a document that cannot be read, because a newer daemon wrote
it, means a cache that nobody has looked at: its layers are still here, so looking again costs little.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from imagecached.caches.declared import Source
from imagecached.errors import InvalidInput
from imagecached.imagecache import API_VERSION, ImageCache, Status, parse_status, status_document
from imagecached.imagecache import KIND as OBJECT
from imagecached.oci.digest import Digest

log = logging.getLogger(__name__)

KIND: Final = "imagecache"


@dataclass(frozen=True, slots=True)
class Life:
    """``failures`` of the present build, and when it is tried again.

    ``origin``: the file that declared it. ``looked``: when its tags were last compared with the registry.
    ``over``: the declaration that has had its day (:func:`fingerprint`): until it is edited, nothing is built
    of it. Times are seconds since the epoch.
    """

    id: str
    name: str
    source: Source
    origin: str = ""
    status: Status = field(default_factory=Status)
    failures: int = 0
    retry_at: float = 0.0
    looked: float = 0.0
    over: str = ""

    def owner(self, generation: int) -> str:
        """Who holds the pins of a generation."""
        return f"imagecache/{self.id}/{generation}"


def owner_of(owner: str) -> tuple[str, int] | None:
    """The id and generation of an owner of pins, if it is a cache."""
    parts = owner.split("/")
    if len(parts) != 3 or parts[0] != "imagecache" or not parts[2].isdigit():
        return None
    return parts[1], int(parts[2])


class _Wire(msgspec.Struct, omit_defaults=True):
    name: str
    source: Source
    origin: str = ""
    status: dict[str, Any] = {}
    failures: int = 0
    retry_at: float = 0.0
    looked: float = 0.0
    over: str = ""


def encode(life: Life) -> bytes:
    """The document for the shelf."""
    return msgspec.json.encode(
        _Wire(
            life.name, life.source, life.origin, status_document(life.status), life.failures, life.retry_at,
            life.looked, life.over,
        )
    )  # fmt: skip


def decode(cache_id: str, document: bytes) -> Life | None:
    """What was written; None if it is nothing we know."""
    try:
        wire = msgspec.json.decode(document, type=_Wire)
        status = parse_status(wire.status)
    except (msgspec.MsgspecError, InvalidInput, ValueError) as error:
        log.warning("remembered cache not understood", extra={"cache": cache_id, "reason": str(error)})
        return None
    return Life(
        cache_id,
        wire.name,
        wire.source,
        wire.origin,
        status,
        wire.failures,
        wire.retry_at,
        wire.looked,
        wire.over,
    )


def durable(life: Life) -> Life:
    """What of ``life`` is worth a write: not how far a build is, which the layers on the disk say better."""
    status = replace(life.status, bytes=type(life.status.bytes)(), progress="", last_updated_time=None)
    return replace(life, status=status)


def manifest_of(cache: ImageCache) -> Mapping[str, Any]:
    """The declaration as a document that reads as the same cache again."""
    metadata: dict[str, Any] = {"name": cache.name}
    if cache.annotations:
        metadata["annotations"] = dict(cache.annotations)
    if cache.labels:
        metadata["labels"] = dict(cache.labels)
    spec: dict[str, Any] = {"images": list(cache.images), "imageCacheSize": cache.size_gib}
    if cache.pull_secrets:
        spec["imagePullSecrets"] = [str(secret) for secret in cache.pull_secrets]
    if cache.retention_days is not None:
        spec["retentionDays"] = cache.retention_days
    return {"apiVersion": API_VERSION, "kind": OBJECT, "metadata": metadata, "spec": spec}


def fingerprint(cache: ImageCache) -> str:
    """Another text for every other declaration."""
    return str(Digest.of(msgspec.json.encode(manifest_of(cache), order="sorted")))
