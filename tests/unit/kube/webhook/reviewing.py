"""Pods, reviews and answers for the tests of this folder."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from imagecached.imagecache import Candidate, Candidates
from imagecached.kube.webhook.decide import Admitted, Rules, decide
from imagecached.kube.webhook.review import Request
from tests.support.apiserver.patches import json_patch
from tests.unit.imagecache.building import cache, candidate
from tests.unit.imagecache.building import pod as pod_document

ECI = "k8s.aliyun.com/"
OURS = "imagecached.dev/"
AUTO = {ECI + "eci-auto-imc": "true"}

Document = dict[str, Any]


def known(*candidates: Candidate) -> Candidates:
    """Candidates, or one Ready cache of nginx:1 called ``c``."""
    return Candidates(candidates or (candidate(cache("c", "nginx:1")),))


def request(document: Mapping[str, Any], **fields: Any) -> Request:
    """The question for this pod's creation."""
    asked: dict[str, Any] = {"uid": "u", "kind": "Pod", "operation": "CREATE", "namespace": "default"}
    return Request(**{**asked, "object": document, **fields})


def asking(*images: str, annotations: Mapping[str, str] | None = None, **spec: Any) -> Request:
    """A pod with automatic matching, and more annotations."""
    return request(pod_document(*images, annotations={**AUTO, **(annotations or {})}, **spec))


def naming(cache_id: str, *images: str, **spec: Any) -> Request:
    """A pod that asks for one cache."""
    return request(pod_document(*images, annotations={ECI + "eci-imc-id": cache_id}, **spec))


def decided(asked: Request, candidates: Candidates | None = None, rules: Rules | None = None) -> Admitted:
    """What is decided, by default with one cache of nginx:1."""
    return decide(asked, candidates if candidates is not None else known(), rules or Rules())


def after(asked: Request, admitted: Admitted) -> Document:
    """The pod as the answer leaves it, patched by another program than ours."""
    changed: Document = json_patch(dict(asked.object), list(admitted.answer.patch))
    return changed


def review(document: Mapping[str, Any], **fields: Any) -> Document:
    """An AdmissionReview as an API server sends it."""
    asked = {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "namespace": "default",
        "operation": "CREATE",
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": document,
        "oldObject": None,
        "dryRun": False,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {**asked, **fields}}


def response_of(body: bytes) -> Document:
    """The response in an answer; its patch decoded."""
    document = msgspec.json.decode(body)
    assert (document["apiVersion"], document["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Document = document["response"]
    if "patch" in response:
        assert response["patchType"] == "JSONPatch"
        response["patch"] = msgspec.json.decode(base64.b64decode(response["patch"]))
    return response
