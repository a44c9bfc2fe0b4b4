"""What the composition root itself does: tell what was freed."""

from __future__ import annotations

from imagecached import daemon
from imagecached.events import EventLog
from imagecached.oci.digest import Digest
from imagecached.store import GcReport
from imagecached.telemetry import Metrics


def test_what_had_to_go_is_told() -> None:
    """Each image with the reason, the whole in one event, and both in the metrics."""
    metrics, events = Metrics(), EventLog()
    report = GcReport(images=("r.io/a:1", "r.io/b:1"), layers=(Digest.of(b"x"),), freed_bytes=100)
    daemon._freed(metrics, events, report)
    *evicted, collected = events.recent()
    assert [(event.kind, event.subject) for event in evicted] == [
        ("evicted", "r.io/a:1"),
        ("evicted", "r.io/b:1"),
    ]
    assert "unused for the longest time" in evicted[0].facts["reason"]
    assert collected.facts == {"images": ["r.io/a:1", "r.io/b:1"], "layers": 1, "freed_bytes": 100}
    text = metrics.exposition()[0].decode()
    assert "imagecached_images_evicted_total 2.0" in text
    assert "imagecached_gc_freed_bytes_total 100.0" in text
