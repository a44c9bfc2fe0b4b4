"""The list of caches that pods are matched with, as the API server's objects come, change and go."""

from __future__ import annotations

from typing import Any

import pytest

from imagecached.imagecache import ImageCache, parse_object, status_document
from imagecached.kube.client import Change
from imagecached.kube.webhook.known import KnownCaches
from tests.unit.imagecache.building import manifest, status


def document(phase: str = "Ready", **metadata: Any) -> dict[str, Any]:
    """An ImageCache of nginx:1 as the API server has it."""
    found = manifest()
    declared: ImageCache = parse_object(found)
    found["metadata"] |= metadata
    return {**found, "status": status_document(status(declared, phase))}


def change(new: dict[str, Any] | None, old: dict[str, Any] | None = None) -> Change:
    return Change(("", "c"), old, new)


def test_it_follows() -> None:
    """Added, changed, deleted."""
    known = KnownCaches()
    known.on_change(change(document("Creating")))
    found = known.candidates.named("c")
    assert found is not None
    assert not found.status.usable
    known.on_change(change(document()))
    found = known.candidates.named(found.id)
    assert found is not None
    assert found.status.usable
    known.on_change(change(None))
    assert len(known.candidates) == 0
    assert known.candidates.named(found.id) is None


@pytest.mark.parametrize(
    "broken",
    [
        {**document(), "spec": {"images": ["UP"]}},
        {**document(), "status": {"phase": "Broken"}},
        document(deletionTimestamp="2026-11-25T10:00:00Z"),
    ],
)
def test_what_cannot_be_used_is_no_candidate(broken: dict[str, Any]) -> None:
    """An object that bypassed the schema, or is on its way out, matches nothing and disturbs no other."""
    known = KnownCaches()
    known.on_change(change(document()))
    known.on_change(change(broken))
    assert len(known.candidates) == 0
