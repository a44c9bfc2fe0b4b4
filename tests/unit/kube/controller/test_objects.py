"""Labels of nodes and grants of Secrets as objects: pure."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from imagecached.errors import InvalidInput
from imagecached.imagecache import SecretName, cache_id
from imagecached.kube.controller import grants, placement
from imagecached.kube.controller.reports import NodeReport
from tests.unit.kube.controller.building import node, report

LABEL = f"imagecached.dev/{cache_id('uid-web')}"
HANDLER = "imagecached.dev/handler"
PULL = SecretName("team", "pull")


def test_a_node_is_labelled_for_what_it_holds() -> None:
    """Only for caches that there are, and that pods get from this node."""
    caches = {
        "web": report(),
        "gone": report(),
        "anew": report(),
        "coming": report("Creating"),
        "updating": report("Updating", generation=2, serving=1, uid="uid-updating"),
    }
    there = {"web": "uid-web", "anew": "another uid", "coming": "uid-web", "updating": "uid-updating"}
    labels = placement.wanted(NodeReport("n1", "u", True, caches), there)
    assert labels == {HANDLER, LABEL, f"imagecached.dev/{cache_id('uid-updating')}"}


@pytest.mark.parametrize("found", [None, NodeReport("n1", "u", False, {"web": report()})])
def test_a_node_without_the_handler_has_no_label(found: NodeReport | None) -> None:
    """Pods of our RuntimeClass could not run there."""
    assert placement.wanted(found, {"web": "uid-web"}) == set()


def test_a_patch_touches_our_labels_only_and_only_those_that_differ() -> None:
    """One patch adds, mends and removes; none is needed where all is well."""
    old = f"imagecached.dev/{cache_id('old')}"
    labels = {HANDLER: "maybe", old: "ready", "imagecached.dev/pool": "x", "zone": "a"}
    found = placement.patch(node("n1", labels=labels), {HANDLER, LABEL})
    assert found == {"metadata": {"labels": {HANDLER: "ready", LABEL: "ready", old: None}}}
    assert placement.patch(node("n1", labels={HANDLER: "ready", "zone": "a"}), {HANDLER}) == {}


def test_a_role_names_its_secrets() -> None:
    """Get and nothing else; an empty list of names would mean all Secrets."""
    (rule,) = grants.role("team", ["b", "a"])["rules"]
    assert rule == {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["a", "b"],
        "verbs": ["get"],
    }


def test_the_content_of_both_kinds_of_pull_secret_is_found() -> None:
    """The newer and the older form of docker's file."""
    for kind, key in (
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson"),
        ("kubernetes.io/dockercfg", ".dockercfg"),
    ):
        document = {"type": kind, "data": {key: base64.b64encode(b"{}").decode()}}
        assert grants.pull_document(PULL, document) == b"{}"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"type": "Opaque", "data": {".dockerconfigjson": "e30="}},
        {"type": ["kubernetes.io/dockercfg"], "data": {".dockercfg": "e30="}},
        {"type": "kubernetes.io/dockercfg"},
        {"type": "kubernetes.io/dockercfg", "data": []},
        {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": 3}},
        {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "hunter2!"}},
    ],
)
def test_anything_else_is_refused_without_a_word_of_it(document: dict[str, Any]) -> None:
    """Messages go into events that many may read."""
    with pytest.raises(InvalidInput, match="Secret team:pull") as caught:
        grants.pull_document(PULL, document)
    assert "hunter2" not in str(caught.value)
