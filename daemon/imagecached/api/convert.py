"""Nouns → documents. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from imagecached.api import documents
from imagecached.api.ports import Finding, Progress, PullResult, RegistrationState
from imagecached.events import Event
from imagecached.oci.digest import Digest

if TYPE_CHECKING:
    from imagecached.caches import View
    from imagecached.imagecache import CacheEvent, Condition, Decision, ImageStatus, PodImages
    from imagecached.imagecache import Verdict as CacheVerdict
    from imagecached.oci.documents import Descriptor
    from imagecached.store import FsckReport, GcReport, Image, Layer, Snapshot


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def pull_progress(progress: Progress) -> documents.PullProgress:
    """One line of a pull's stream."""
    layers = [_pulled_layer(layer) for layer in progress.layers]
    return documents.PullProgress(
        image=progress.image,
        state=progress.state,
        bytes_total=sum(layer.size_bytes for layer in layers),
        bytes_done=sum(layer.done_bytes for layer in layers),
        bytes_reused=_reused(layers),
        layers=layers,
    )


def ready_image(progress: Progress, result: PullResult) -> documents.ReadyImage:
    """The end of a pull that succeeded."""
    layers = [_pulled_layer(layer) for layer in progress.layers]
    return documents.ReadyImage(
        image=progress.image,
        manifest_digest=str(result.manifest_digest),
        chain_id=str(result.chain_id),
        bytes_downloaded=sum(layer.done_bytes for layer in layers if layer.source == "fetched"),
        bytes_reused=_reused(layers),
        layers=layers,
        seconds=_phases(progress.seconds),
    )


def _pulled_layer(layer: Any) -> documents.PulledLayer:
    return documents.PulledLayer(
        digest=str(layer.digest),
        diff_id=str(layer.diff_id),
        size_bytes=layer.size,
        done_bytes=layer.done,
        source=layer.source,
    )


def _reused(layers: Iterable[documents.PulledLayer]) -> int:
    return sum(layer.done_bytes for layer in layers if layer.source in ("present", "shared"))


def image_summary(image: Image, registration: RegistrationState | None) -> documents.ImageSummary:
    """One image of the list."""
    return documents.ImageSummary(
        name=image.name,
        manifest_digest=str(image.manifest_digest),
        chain_id=str(image.chain_id),
        platform=str(image.platform),
        layers=len(image.diff_ids),
        disk_bytes=image.disk_bytes,
        damaged=image.damaged,
        created=moment(image.created),
        last_used=moment(image.last_used),
        registration=_registration(registration) if registration else None,
    )


def _registration(found: RegistrationState) -> documents.Registration:
    return documents.Registration(
        state=found.state, reason=found.reason, pinned=found.pinned, since=moment(found.since)
    )


def sharing(images: Iterable[Image]) -> Counter[Digest]:
    """DiffID → how many images use it."""
    return Counter(diff_id for image in images for diff_id in set(image.diff_ids))


def described_layer(
    diff_id: Digest, blob: Descriptor | None, layer: Layer | None, images: int, source: Any
) -> documents.DescribedLayer:
    """One layer of one image."""
    return documents.DescribedLayer(
        diff_id=str(diff_id),
        blob_digest=str(blob.digest) if blob else None,
        blob_bytes=blob.size if blob else None,
        tar_bytes=layer.tar_bytes if layer else None,
        disk_bytes=layer.disk_bytes if layer else None,
        entries=layer.entries if layer else None,
        images=images,
        source=source,
    )


def cache_summary(view: View) -> documents.ImageCacheSummary:
    """One ImageCache."""
    status, cache = view.status, view.cache
    return documents.ImageCacheSummary(
        name=view.name,
        id=view.id,
        phase=status.phase,
        progress=status.progress,
        reason=status.reason,
        message=status.message,
        source=view.source,
        origin=view.origin,
        usable=status.usable,
        settled=view.settled,
        automatic=cache is not None and cache.options.automatic,
        created=_maybe(view.created or None),
        updated=_maybe(status.last_updated_time),
        expires=_maybe(status.expire_date_time),
        last_matched=_maybe(status.last_matched_time),
        retention_days=None if cache is None else cache.retention_days,
        size_gib=None if cache is None else cache.size_gib,
        generation=status.generation,
        serving_generation=status.serving_generation,
        bytes_total=status.bytes.total,
        bytes_done=status.bytes.done,
        bytes_reused=status.bytes.reused,
        bytes_fetched=status.bytes.fetched,
        images=[_cached_image(image, None) for image in status.images],
        serving=[_cached_image(image, view.names.get(image.image)) for image in status.serving],
        drifted_images=list(status.drifted_images),
        conditions=[_condition(condition) for condition in status.conditions],
    )


def _cached_image(image: ImageStatus, name: str | None) -> documents.CachedImage:
    digest = None if image.digest is None else str(image.digest)
    return documents.CachedImage(image=image.image, digest=digest, name=name, unpacked_bytes=image.bytes)


def _condition(condition: Condition) -> documents.CacheCondition:
    return documents.CacheCondition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        last_transition=moment(condition.last_transition_time),
    )


def cache_event(event: CacheEvent) -> documents.CacheEventLine:
    """One event of an ImageCache."""
    return documents.CacheEventLine(
        name=event.name,
        type=event.type,
        message=event.message,
        time=moment(event.timestamp),
        count=event.count,
    )


def match(pod: PodImages, decision: Decision) -> documents.Match:
    """Which ImageCache a pod gets."""
    chosen = decision.chosen
    return documents.Match(
        kind=pod.kind,
        namespace=pod.namespace,
        name=pod.name,
        images=list(pod.images),
        outcome=decision.outcome,
        degree=decision.degree,
        reason=decision.reason,
        cache=None if chosen is None else chosen.cache.name,
        cache_id=None if chosen is None else chosen.id,
        pinned=dict(decision.pinned),
        creates=None if decision.create is None else decision.create.name,
        verdicts=[_cache_verdict(verdict) for verdict in decision.verdicts],
        warnings=list(decision.warnings),
    )


def _cache_verdict(verdict: CacheVerdict) -> documents.CacheVerdict:
    return documents.CacheVerdict(
        name=verdict.name,
        id=verdict.id,
        full=verdict.full,
        repositories=verdict.repositories,
        fits=verdict.fits,
        reason=verdict.reason,
    )


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else moment(seconds)


def layer_summary(layer: Layer, images: int) -> documents.LayerSummary:
    """One layer of the list."""
    return documents.LayerSummary(
        diff_id=str(layer.diff_id),
        tar_bytes=layer.tar_bytes,
        file_bytes=layer.file_bytes,
        disk_bytes=layer.disk_bytes,
        entries=layer.entries,
        images=images,
        created=moment(layer.created),
        last_used=moment(layer.last_used),
    )


def snapshot_summary(snapshot: Snapshot) -> documents.SnapshotSummary:
    """One snapshot of the list."""
    return documents.SnapshotSummary(
        chain_id=str(snapshot.chain_id),
        parent=str(snapshot.parent) if snapshot.parent else None,
        diff_id=str(snapshot.diff_id),
        seam=snapshot.seam,
        disk_bytes=snapshot.disk_bytes,
        created=moment(snapshot.created),
    )


def gc_answer(report: GcReport) -> documents.GcAnswer:
    """What gc did."""
    return documents.GcAnswer(
        images=list(report.images),
        snapshots=[str(chain_id) for chain_id in report.snapshots],
        layers=[str(diff_id) for diff_id in report.layers],
        orphans=list(report.orphans),
        freed_bytes=report.freed_bytes,
        dry_run=report.dry_run,
    )


def fsck_done(report: FsckReport) -> documents.FsckDone:
    """What fsck found."""
    faults = [
        documents.Fault(kind=fault.kind, subject=str(fault.subject), text=fault.text, repaired=fault.repaired)
        for fault in report.findings
    ]
    return documents.FsckDone(faults=faults, files=report.files, bytes=report.bytes)


def finding(found: Finding) -> documents.Finding:
    """One answer of doctor."""
    return documents.Finding(name=found.name, verdict=found.verdict, text=found.text, advice=found.advice)


def event_line(event: Event) -> documents.EventLine:
    """One line of the events."""
    return documents.EventLine(
        number=event.number,
        time=moment(event.time),
        kind=event.kind,
        subject=event.subject,
        facts=dict(event.facts),
    )


def _phases(seconds: Mapping[str, float]) -> documents.PhaseSeconds:
    return documents.PhaseSeconds(**{phase: round(spent, 6) for phase, spent in seconds.items()})


def phase_seconds(facts: Mapping[str, Any]) -> documents.PhaseSeconds | None:
    """The timing split that a ``pulled`` event holds."""
    seconds = facts.get("seconds")
    return _phases(seconds) if seconds else None
