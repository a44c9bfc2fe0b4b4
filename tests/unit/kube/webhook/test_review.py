"""AdmissionReviews: what is read, what is refused, what an answer looks like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.kube.webhook.review import Answer, answer_document, parse_review
from tests.unit.imagecache.building import pod
from tests.unit.kube.webhook.reviewing import response_of, review


def test_read() -> None:
    """What matters of an API server's question."""
    asked = parse_review(msgspec.json.encode(review(pod("a"), dryRun=True)))
    assert (asked.kind, asked.operation, asked.namespace, asked.dry_run) == ("Pod", "CREATE", "default", True)
    assert asked.object == pod("a")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "Pod"),
        ({"kind": {"group": "apps", "version": "v1", "kind": "Pod"}}, ""),
        ({"subResource": "ephemeralcontainers"}, ""),
        ({"kind": {"group": "", "version": "v1", "kind": "Node"}}, "Node"),
    ],
)
def test_kinds(fields: dict[str, Any], kind: str) -> None:
    """Only core/v1 objects themselves have a kind here; subresources are something else."""
    assert parse_review(msgspec.json.encode(review(pod("a"), **fields))).kind == kind


def without(*path: str) -> dict[str, Any]:
    document = review(pod("a"))
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return document


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not an AdmissionReview: Input data was truncated"),
        (b"{}", "not an AdmissionReview: Object missing required field `apiVersion`"),
        (b"[]", "not an AdmissionReview: Expected `object`, got `array`"),
        (b"\xff", "not an AdmissionReview: JSON is malformed"),
        (b'{"apiVersion": "\xff"}', "not an AdmissionReview: "),
        (b"[" * 100_000, "not an AdmissionReview: "),
        (without("request"), "not an AdmissionReview: Object missing required field `request`"),
        (
            without("request", "uid"),
            "not an AdmissionReview: Object missing required field `uid` - at `$.request`",
        ),
        (
            review(pod("a"), uid=""),
            "not an AdmissionReview: Expected `str` of length >= 1 - at `$.request.uid`",
        ),
        (review(pod("a"), object=[]), "not an AdmissionReview: Expected `object | null`, got `array`"),
        (review(pod("a"), namespace="x" * 2000), "not an AdmissionReview: Expected `str` of length <= 1024"),
        (
            {**review(pod("a")), "apiVersion": "admission.k8s.io/v1beta1"},
            "must be an AdmissionReview of admission.k8s.io/v1, not 'AdmissionReview' of 'admission.k8s",
        ),
        (
            {**review(pod("a")), "kind": "Pod"},
            "must be an AdmissionReview of admission.k8s.io/v1, not 'Pod' of ",
        ),
    ],
)
def test_refused(body: Any, message: str) -> None:
    """What is no review is one line that says where."""
    data = body if isinstance(body, bytes) else msgspec.json.encode(body)
    with pytest.raises(InvalidInput) as caught:
        parse_review(data)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_answers() -> None:
    """Allowed, changed, warned and refused."""
    assert response_of(answer_document("u", Answer())) == {"uid": "u", "allowed": True}
    patch = [{"op": "add", "path": "/spec/runtimeClassName", "value": "imagecached"}]
    changed = response_of(answer_document("u", Answer(patch=patch, audit={"decision": "x"}, warnings=("w",))))
    assert changed == {
        "uid": "u",
        "allowed": True,
        "patch": patch,
        "patchType": "JSONPatch",
        "warnings": ["w"],
        "auditAnnotations": {"decision": "x"},
    }
    refused = response_of(
        answer_document("u", Answer(allowed=False, reason="ImageCacheNotFound", message="m"))
    )
    assert refused["status"] == {
        "status": "Failure",
        "code": 403,
        "reason": "ImageCacheNotFound",
        "message": "m",
    }


def test_warnings_are_bounded() -> None:
    """The API server drops what is too long or too much; it is cut before, visibly."""
    warnings = response_of(answer_document("u", Answer(warnings=("x" * 300,) * 20)))["warnings"]
    assert len(warnings) == 10
    assert warnings[0] == "x" * 255 + "…"


@given(st.binary(max_size=100) | st.text(alphabet='{}[]":,abuid0', max_size=50).map(str.encode))
def test_any_bytes(body: bytes) -> None:
    """Nothing but InvalidInput comes out of what is no review."""
    with pytest.raises(InvalidInput):
        parse_review(body)
