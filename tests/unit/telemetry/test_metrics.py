"""metrics: names, closed labels, gauges read at the scrape."""

from __future__ import annotations

import asyncio
import re

import pytest

from imagecached import __version__
from imagecached.errors import ERROR_CLASSES, AccessDenied, ImagecachedError, Unavailable
from imagecached.telemetry import Metrics, Readings


def scrape(metrics: Metrics) -> dict[str, float]:
    """Sample with labels → value."""
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain")
    samples = (line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def test_every_label_begins_at_zero() -> None:
    """A rate over the first event needs the zero before it; all kinds of errors are there."""
    samples = scrape(Metrics())
    for error in ERROR_CLASSES:
        assert samples[f'imagecached_pulls_total{{reason="{error.kind}",result="failed"}}'] == 0
    assert samples['imagecached_pulls_total{reason="none",result="ready"}'] == 0
    assert samples['imagecached_blob_bytes_total{source="mirror"}'] == 0
    assert samples['imagecached_phase_seconds_count{phase="inflate"}'] == 0
    assert samples["imagecached_gc_runs_total"] == 0


@pytest.mark.parametrize(
    ("error", "labels"),
    [
        (None, 'reason="none",result="ready"'),
        (asyncio.CancelledError(), 'reason="none",result="cancelled"'),
        (Unavailable("no"), 'reason="unavailable",result="failed"'),
        (AccessDenied("no"), 'reason="access_denied",result="failed"'),
        (ImagecachedError("no"), 'reason="failed",result="failed"'),
        (ZeroDivisionError(), 'reason="failed",result="failed"'),
    ],
)
def test_pulls_are_counted_by_result_and_reason(error: BaseException | None, labels: str) -> None:
    """Every end of a pull counts once, under labels from the closed set."""
    metrics = Metrics()
    before = scrape(metrics)
    metrics.pull_ended(error)
    after = scrape(metrics)
    pulls = {name for name, value in after.items() if "pulls_total" in name and value != before[name]}
    assert pulls == {f"imagecached_pulls_total{{{labels}}}"}
    assert before.keys() == after.keys()


def test_bytes_seconds_and_gc_add_up() -> None:
    """Counters add what they are told."""
    metrics = Metrics()
    metrics.obtained("registry", 5)
    metrics.obtained("registry", 7)
    metrics.phase_ended("fetch", 0.3)
    metrics.gc_ended()
    metrics.freed(1000, 2)
    samples = scrape(metrics)
    assert samples['imagecached_blob_bytes_total{source="registry"}'] == 12
    assert samples['imagecached_phase_seconds_bucket{le="0.25",phase="fetch"}'] == 0
    assert samples['imagecached_phase_seconds_bucket{le="0.5",phase="fetch"}'] == 1
    assert (samples["imagecached_gc_runs_total"], samples["imagecached_gc_freed_bytes_total"]) == (1, 1000)
    assert samples["imagecached_images_evicted_total"] == 2


def test_gauges_are_read_at_the_scrape() -> None:
    """Each scrape asks anew."""
    metrics = Metrics()
    mounts = 0

    def read() -> Readings:
        return Readings(2, 100, 300, mounts, 120, 1000, waiting_images=3, waiting_layers=4)

    metrics.watch(read)
    assert scrape(metrics)["imagecached_mounts"] == 0
    mounts = 7
    samples = scrape(metrics)
    assert samples["imagecached_mounts"] == 7
    assert samples["imagecached_layer_files"] == 2
    assert samples["imagecached_layer_bytes"] == 100
    assert samples["imagecached_layer_logical_bytes"] == 300
    assert (samples["imagecached_disk_used_bytes"], samples["imagecached_disk_budget_bytes"]) == (120, 1000)
    assert samples['imagecached_queue_depth{queue="images"}'] == 3
    assert samples['imagecached_queue_depth{queue="layers"}'] == 4
    assert not any("registrations" in name for name in samples)


def test_what_containerd_knows_is_counted() -> None:
    """By state, with the states that no image is in."""
    metrics, counts = Metrics(), {"registered": 2, "failed": 0}
    metrics.watch(lambda: Readings(0, 0, 0, 0, 0, 0, registrations=counts))
    samples = scrape(metrics)
    assert samples['imagecached_registrations{state="registered"}'] == 2
    assert samples['imagecached_registrations{state="failed"}'] == 0


def test_a_scrape_survives_a_gauge_that_fails() -> None:
    """What cannot be read is left out; everything else is there."""
    metrics = Metrics()

    def read() -> Readings:
        raise OSError("gone")

    metrics.watch(read)
    samples = scrape(metrics)
    assert "imagecached_mounts" not in samples
    assert "imagecached_gc_runs_total" in samples


def test_who_and_what_is_running() -> None:
    """Version and process are there; nothing doubles as a creation time."""
    body = Metrics().exposition()[0].decode()
    assert f'version="{__version__}"' in body
    assert "process_resident_memory_bytes" in body
    assert not re.search(r"_created", body)


def test_openmetrics_on_request() -> None:
    """A scraper that accepts OpenMetrics gets it."""
    body, content_type = Metrics().exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
