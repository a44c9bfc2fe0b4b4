"""The status as a document: round trip, tolerance for newer versions, refusal of what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.imagecache import PHASES, Status, parse_status, phases, status_document, timestamp
from imagecached.imagecache.status import Bytes, CacheEvent, Condition, ImageStatus
from imagecached.oci.digest import Digest
from tests.unit.imagecache import building

SECONDS = st.integers(0, 4_000_000_000).map(float)
COUNT = st.integers(0, 1 << 62)
TEXT = st.text(max_size=30)
DIGEST = st.binary(max_size=4).map(Digest.of)
IMAGES = st.lists(
    st.builds(ImageStatus, TEXT, st.none() | DIGEST, st.lists(DIGEST, max_size=2).map(tuple), COUNT),
    max_size=3,
).map(tuple)
STATUS = st.builds(
    Status,
    phase=st.sampled_from(PHASES),
    progress=st.integers(0, 100).map(lambda percent: f"{percent}%"),
    image_cache_id=TEXT,
    start_time=st.none() | SECONDS,
    last_updated_time=st.none() | SECONDS,
    expire_date_time=st.none() | SECONDS,
    reason=TEXT,
    message=TEXT,
    events=st.lists(
        st.builds(CacheEvent, TEXT, TEXT, st.sampled_from(["Normal", "Warning"]), SECONDS, COUNT), max_size=3
    ).map(tuple),
    conditions=st.lists(
        st.builds(Condition, TEXT, st.sampled_from(["True", "False", "Unknown"]), TEXT, TEXT, SECONDS, COUNT),
        max_size=3,
    ).map(tuple),
    observed_generation=COUNT,
    generation=COUNT,
    build=TEXT,
    images=IMAGES,
    serving_generation=COUNT,
    serving=IMAGES,
    bytes=st.builds(Bytes, COUNT, COUNT, COUNT, COUNT),
    nodes_ready=COUNT,
    nodes_total=COUNT,
    rollout_window=COUNT,
    last_matched_time=st.none() | SECONDS,
    drifted_images=st.lists(TEXT, max_size=3).map(tuple),
)


@given(STATUS)
def test_round_trip(status: Status) -> None:
    """What is written is read as the same value, also through JSON."""
    document = status_document(status)
    assert parse_status(document) == status
    assert parse_status(json.loads(json.dumps(document))) == status


def test_every_field_is_written() -> None:
    """The fields that kubectl's columns and ECI's users look for have their documented names."""
    declared = building.cache("c", "nginx", retention_days=1)
    document = status_document(building.status(declared, "Ready"))
    assert document["phase"] == "Ready"
    assert document["progress"] == "100%"
    assert document["imageCacheId"] == declared.id
    assert document["startTime"] == document["lastUpdatedTime"] == timestamp(building.NOW)
    assert document["expireDateTime"] == timestamp(building.NOW + 86_400)
    assert document["images"][0]["image"] == "nginx"
    assert document["images"][0]["digest"] == building.digest("index of nginx")
    assert {event["name"] for event in document["events"]} == {"Declared", "Resolved", "Ready"}
    assert document["conditions"][0] == {
        "type": "Ready",
        "status": "True",
        "reason": "Serving",
        "message": "generation 1 serves",
        "lastTransitionTime": timestamp(building.NOW),
        "observedGeneration": 0,
    }


@pytest.mark.parametrize("document", [None, {}, {"events": None}, {"unknownField": 7}])
def test_an_object_nobody_has_looked_at(document: Any) -> None:
    """An empty status, or one of a newer version, is the beginning."""
    assert parse_status(document) == Status()


@pytest.mark.parametrize(
    "document",
    [
        {"phase": "Broken"},
        {"progress": "101%"},
        {"progress": "5"},
        {"progress": 5},
        {"nodesReady": -1},
        {"generation": 1 << 70},
        {"startTime": "yesterday"},
        {"startTime": "2026-11-25T10:00:00"},
        {"images": [{"image": "a", "digest": "sha256:xyz"}]},
        {"images": [{"image": "a", "digest": "sha256:\n"}]},
        {"images": [{"image": "a"}] * 101},
        {"events": [{"name": "a"}] * 101},
        {"conditions": [{"type": "Ready", "status": "true"}]},
        {"reason": "x" * 70_000},
    ],
)
def test_refused(document: Any) -> None:
    """A status that is none is InvalidInput in one line, and never half read."""
    with pytest.raises(InvalidInput) as caught:
        parse_status(document)
    assert "\n" not in str(caught.value)


def test_a_status_stays_small() -> None:
    """The object of a cache with everything in it is far below what etcd takes: 64 KiB."""
    declared = building.cache("c", *(f"registry.example.com/{'x' * 100}/{n}:tag" for n in range(20)))
    status = building.status(declared, "UpdateFailed")
    for number in range(60):
        status = phases.event(status, building.NOW, "Pulled", f"{number} {'m' * 1000}")
    assert len(json.dumps(status_document(status))) < 64 << 10
