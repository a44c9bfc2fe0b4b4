"""Every metric of the cluster's controller, on a registry of its own; all names are in this file.

Counters and histograms are told; gauges are read at the scrape, by what :meth:`ClusterMetrics.watch` was
given.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from imagecached import __version__

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class ClusterReadings:
    """What the gauges show. Only the leader knows ``caches`` (by phase) and ``nodes`` (all, up,
    reporting).
    """

    leading: bool = False
    caches: Mapping[str, int] = field(default_factory=dict)
    nodes: Mapping[str, int] = field(default_factory=dict)
    waiting: int = 0


class ClusterMetrics:
    """What the parts of the controller tell, and the text a scrape gets."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second sample per counter that nobody asked for
        self._registry = CollectorRegistry()
        self._gauges = _Gauges()
        self._registry.register(self._gauges)
        ProcessCollector(registry=self._registry)
        Info("imagecached_build", "Version of the controller.", registry=self._registry).info(
            {"version": __version__, "python": platform.python_version()}
        )
        self._requests = Counter(
            "imagecached_cluster_requests",
            "Requests to the API server by verb and status code.",
            ["verb", "code"],
            registry=self._registry,
        )
        self._admissions = Histogram(
            "imagecached_cluster_admission_seconds",
            "Time of the admission webhook by outcome.",
            ["outcome"],
            buckets=_SECONDS,
            registry=self._registry,
        )

    def watch(self, read: Callable[[], ClusterReadings]) -> None:
        """Let the gauges show what ``read`` returns; called at each scrape, on the event loop."""
        self._gauges.read = read

    def requested(self, verb: str, code: str) -> None:
        """Count a request to the API server."""
        self._requests.labels(verb, code).inc()

    def admitted(self, outcome: str, seconds: float) -> None:
        """Record an answer of the webhook; ``outcome`` is one of its few words."""
        self._admissions.labels(outcome).observe(seconds)

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """The scrape's body and its content type, in the form that ``accept`` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Gauges(Collector):
    read: Callable[[], ClusterReadings] | None = None

    def collect(self) -> Iterator[Metric]:
        if self.read is None:
            return
        now = self.read()
        yield GaugeMetricFamily(
            "imagecached_cluster_leading", "1 in the process that leads.", int(now.leading)
        )
        yield GaugeMetricFamily(
            "imagecached_cluster_queue_depth", "ImageCaches that wait for a look.", now.waiting
        )
        caches = GaugeMetricFamily("imagecached_cluster_caches", "ImageCaches by phase.", labels=["phase"])
        nodes = GaugeMetricFamily("imagecached_cluster_nodes", "Nodes by state.", labels=["state"])
        for family, found in ((caches, now.caches), (nodes, now.nodes)):
            for label, count in found.items():
                family.add_metric([label], count)
            yield family
