"""Every metric of the daemon, on a registry of its own; all names are in this file.

Counters and histograms are told; gauges are read at the scrape, by what :meth:`Metrics.watch` was given.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from imagecached import __version__
from imagecached.errors import ERROR_CLASSES, ImagecachedError

log = logging.getLogger(__name__)

Phase = Literal["resolve", "fetch", "inflate", "commit", "register"]
Source = Literal["registry", "mirror", "reused"]
MissResult = Literal["pulled", "left"]
CacheResult = Literal["ready", "failed"]
MatchResult = Literal["explicit", "full", "partial", "missed", "refused"]

REMOVALS: Final = ("Deleted", "Expired", "Failed", "Unused", "Idle", "TooMany", "DiskPressure")
WATCH_RESTARTS: Final = ("ended", "expired", "resync", "error")
CACHE_PHASES: Final = ("Pending", "Creating", "Ready", "Failed", "Updating", "UpdateFailed")
_CACHE_RESULTS: Final[tuple[CacheResult, ...]] = get_args(CacheResult)
_MATCH_RESULTS: Final[tuple[MatchResult, ...]] = get_args(MatchResult)
_PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
_SOURCES: Final[tuple[Source, ...]] = get_args(Source)
_SECONDS: Final = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


@dataclass(frozen=True, slots=True)
class Readings:
    """What the gauges show; sizes in bytes.

    ``logical_bytes`` sums every image's layers, shared ones as often as they are used: divided by
    ``layer_bytes`` it is the gain of sharing.
    ``waiting``: pulls and layers that wait for their turn. ``caches``: how many are in each phase.
    ``registrations``: images by how far containerd knows them; empty where it is not told.
    ``connected``: does the cluster's API server answer; None where there is no cluster.
    """

    layer_files: int
    layer_bytes: int
    logical_bytes: int
    mounts: int
    disk_used_bytes: int
    disk_budget_bytes: int
    waiting_images: int = 0
    waiting_layers: int = 0
    caches: Mapping[str, int] = field(default_factory=dict)
    registrations: Mapping[str, int] = field(default_factory=dict)
    connected: bool | None = None


class Metrics:
    """What the parts of the daemon tell, and the text a scrape gets."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second sample per counter that nobody asked for
        self._registry = CollectorRegistry()
        self._gauges = _Gauges()
        self._registry.register(self._gauges)
        ProcessCollector(registry=self._registry)
        Info("imagecached_build", "Version of the daemon.", registry=self._registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._pulls = Counter(
            "imagecached_pulls", "Pulls ended.", ["result", "reason"], registry=self._registry
        )
        self._phases = Histogram(
            "imagecached_phase_seconds",
            "Time by phase.",
            ["phase"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._bytes = Counter(
            "imagecached_blob_bytes", "Compressed bytes obtained.", ["source"], registry=self._registry
        )
        self._snapshot_calls = Histogram(
            "imagecached_snapshot_rpc_seconds",
            "Time of the snapshots service by method and gRPC code.",
            ["method", "code"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._misses = Counter(
            "imagecached_snapshot_misses",
            "Layers the runtime asked for that were not here: pulled in time, or left to the runtime.",
            ["result", "reason"],
            registry=self._registry,
        )
        self._requests = Counter(
            "imagecached_cluster_requests",
            "Requests to the API server by verb and status code.",
            ["verb", "code"],
            registry=self._registry,
        )
        self._watch_restarts = Counter(
            "imagecached_cluster_watch_restarts",
            "Watches of the API server that were begun anew.",
            ["reason"],
            registry=self._registry,
        )
        self._gc_runs = Counter("imagecached_gc_runs", "Runs of gc.", registry=self._registry)
        self._gc_freed = Counter(
            "imagecached_gc_freed_bytes", "Bytes freed by gc and to make room.", registry=self._registry
        )
        self._evicted = Counter(
            "imagecached_images_evicted",
            "Images that went because the disk was needed.",
            registry=self._registry,
        )
        self._cache_builds = Counter(
            "imagecached_cache_builds", "Builds of ImageCaches ended.", ["result"], registry=self._registry
        )
        self._cache_removals = Counter(
            "imagecached_cache_removals", "ImageCaches that have gone.", ["reason"], registry=self._registry
        )
        self._cache_matches = Counter(
            "imagecached_cache_matches",
            "Pods and containers that asked for an ImageCache, by what they got.",
            ["result"],
            registry=self._registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Every label exists from the start, so that a rate over the first event is not lost."""
        self._pulls.labels("ready", "none")
        self._pulls.labels("cancelled", "none")
        for error in ERROR_CLASSES:
            self._pulls.labels("failed", error.kind)
            self._misses.labels("left", error.kind)
        self._misses.labels("pulled", "none")
        self._misses.labels("left", "remembered")
        for phase in _PHASES:
            self._phases.labels(phase)
        for result in _CACHE_RESULTS:
            self._cache_builds.labels(result)
        for match in _MATCH_RESULTS:
            self._cache_matches.labels(match)
        for cause in REMOVALS:
            self._cache_removals.labels(cause)
        for source in _SOURCES:
            self._bytes.labels(source)
        for reason in WATCH_RESTARTS:
            self._watch_restarts.labels(reason)

    def watch(self, read: Callable[[], Readings]) -> None:
        """Let the gauges show what ``read`` returns; called at each scrape, on the event loop."""
        self._gauges.read = read

    def pull_ended(self, error: BaseException | None) -> None:
        """Count a pull: ready, cancelled, or failed by the kind of ``error``."""
        if error is None:
            self._pulls.labels("ready", "none").inc()
        elif isinstance(error, asyncio.CancelledError):
            self._pulls.labels("cancelled", "none").inc()
        else:
            kind = error.kind if isinstance(error, ImagecachedError) else ImagecachedError.kind
            self._pulls.labels("failed", kind).inc()

    def phase_ended(self, phase: Phase, seconds: float) -> None:
        """Record how long a phase of a pull, or of one layer, took."""
        self._phases.labels(phase).observe(seconds)

    def obtained(self, source: Source, size: int) -> None:
        """Count ``size`` bytes of blobs that came from ``source``."""
        self._bytes.labels(source).inc(size)

    def snapshot_call_ended(self, method: str, code: str, seconds: float) -> None:
        """Record a call of the snapshots service; ``method`` and ``code`` are names of the contract."""
        self._snapshot_calls.labels(method, code).observe(seconds)

    def miss_ended(self, result: MissResult, reason: str) -> None:
        """Count a layer that was not here when it was asked for. ``reason``: an error's kind, ``remembered``
        for one of a short while ago, ``none``.
        """
        self._misses.labels(result, reason).inc()

    def cache_built(self, result: CacheResult) -> None:
        """Count a build of an ImageCache's generation."""
        self._cache_builds.labels(result).inc()

    def cache_removed(self, cause: str) -> None:
        """Count an ImageCache that has gone; ``cause`` is one of :data:`REMOVALS`."""
        self._cache_removals.labels(cause).inc()

    def cache_matched(self, result: MatchResult) -> None:
        """Count a pod, or a container, that asked for an ImageCache."""
        self._cache_matches.labels(result).inc()

    def requested(self, verb: str, code: str) -> None:
        """Count a request to the API server; ``code`` is ``none`` when nothing came back."""
        self._requests.labels(verb, code).inc()

    def watch_restarted(self, reason: str) -> None:
        """Count a watch that was begun anew; ``reason`` is one of :data:`WATCH_RESTARTS`."""
        self._watch_restarts.labels(reason).inc()

    def gc_ended(self) -> None:
        """Count a run of gc."""
        self._gc_runs.inc()

    def freed(self, freed_bytes: int, images: int) -> None:
        """Count what gc freed, or a pull that needed the room, and the images that had to go for it."""
        self._gc_freed.inc(freed_bytes)
        self._evicted.inc(images)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The scrape's body and its content type, in the form that ``accept`` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Gauges(Collector):
    read: Callable[[], Readings] | None = None

    def collect(self) -> Iterator[Metric]:
        if self.read is None:
            return
        try:
            now = self.read()
        except (ImagecachedError, OSError):
            log.warning("gauges could not be read", exc_info=True)
            return
        yield GaugeMetricFamily("imagecached_layer_files", "Layer files stored.", now.layer_files)
        yield GaugeMetricFamily("imagecached_layer_bytes", "Bytes of layer files on disk.", now.layer_bytes)
        yield GaugeMetricFamily(
            "imagecached_layer_logical_bytes",
            "Bytes of all images' layers, were none shared.",
            now.logical_bytes,
        )
        yield GaugeMetricFamily("imagecached_mounts", "Mounts of layer files and images.", now.mounts)
        yield GaugeMetricFamily("imagecached_disk_used_bytes", "Disk used by the store.", now.disk_used_bytes)
        yield GaugeMetricFamily(
            "imagecached_disk_budget_bytes", "Disk the store may use.", now.disk_budget_bytes
        )
        if now.connected is not None:
            yield GaugeMetricFamily(
                "imagecached_cluster_connected", "1 while the API server answers.", float(now.connected)
            )
        depth = GaugeMetricFamily("imagecached_queue_depth", "Waiting for their turn.", labels=["queue"])
        depth.add_metric(["images"], now.waiting_images)
        depth.add_metric(["layers"], now.waiting_layers)
        yield depth
        caches = GaugeMetricFamily("imagecached_caches", "ImageCaches by phase.", labels=["phase"])
        for phase in CACHE_PHASES:
            caches.add_metric([phase], now.caches.get(phase, 0))
        yield caches
        if now.registrations:
            known = GaugeMetricFamily(
                "imagecached_registrations", "Images that containerd is told of.", labels=["state"]
            )
            for state, count in now.registrations.items():
                known.add_metric([state], count)
            yield known
