"""Reading what the cluster wants: nothing that lies in an object can stop it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import EVERYBODY, ImageStatus, Status, parse_object, phases, status_document
from imagecached.kube.agent.wishes import Reader, Seen, keep_cache, keep_node, read, wishes_of
from imagecached.kube.nodes import Node
from imagecached.oci.digest import Digest
from tests.unit.kube.agent.conftest import node_object

_DIGEST = Digest.of(b"manifest")
_NODE = Node.of({**node_object(), "metadata": {"name": "n1", "uid": "n"}})
_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)


def _object(version: str = "1", *images: str, **changes: Any) -> dict[str, Any]:
    return {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": {"name": "one", "uid": "u", "resourceVersion": version, "generation": 1,
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"images": list(images) or ["nginx:1"], "imageCacheSize": 20},
        **changes,
    }  # fmt: skip


def _resolved(document: dict[str, Any], *, window: int = EVERYBODY) -> dict[str, Any]:
    cache = parse_object(document)
    status = phases.begin(cache, Status(), 0.0)
    images = [ImageStatus(image, _DIGEST) for image in cache.images]
    status = replace(phases.resolve(cache, status, images, 0.0), rollout_window=window)
    return {**document, "status": status_document(status)}


def test_a_resolved_build_is_wished_for_by_digest() -> None:
    """Each image as written, with the repository and the digest to fetch."""
    seen = read(_resolved(_object("1", "nginx:1", "quay.io/a/b")))
    assert seen.wish is not None
    assert seen.wish.generation == 1
    assert seen.wish.digests == {
        "nginx:1": f"docker.io/library/nginx@{_DIGEST}",
        "quay.io/a/b": f"quay.io/a/b@{_DIGEST}",
    }


def test_what_is_edited_or_half_resolved_is_no_wish() -> None:
    """The controller speaks first."""
    assert read(_object()).wish is None
    edited = {**_resolved(_object()), "spec": {"images": ["nginx:2"], "imageCacheSize": 20}}
    assert read(edited).wish is None
    half = _resolved(_object("1", "a:1", "b:1"))
    del half["status"]["images"][1]["digest"]
    assert read(half).wish is None


def test_a_build_that_the_controller_gave_up_is_not_begun() -> None:
    """It failed wherever it was tried."""
    document = _resolved(_object())
    document["status"]["phase"] = "Failed"
    wish = read(document).wish
    assert wish is not None
    assert wish.given_up


def test_after_a_failed_update_what_serves_is_wished_for() -> None:
    """By its own images and number, for every node: one that joins now is to hold it as well."""
    document = _resolved(_object("1", "nginx:1"))
    serving = document["status"]["images"]
    edited = _resolved({**document, "spec": {"images": ["nginx:2"], "imageCacheSize": 20}}, window=0)
    failed = {"phase": "UpdateFailed", "generation": 2, "serving": serving, "servingGeneration": 1}
    edited["status"].update(failed)
    wish = read(keep_cache(edited)).turn("n1")
    assert wish is not None
    assert (wish.generation, wish.given_up) == (1, False)
    assert wish.digests == {"nginx:1": f"docker.io/library/nginx@{_DIGEST}"}


def test_without_a_wish_what_was_wished_for_before_stands() -> None:
    """And where there was nothing, what is here stays."""
    before = read(_resolved(_object())).turn("n1")
    assert before is not None
    unread = Seen("one", "u", problem="broken")
    assert wishes_of({"u": unread}, _NODE, {"u": before}).wanted == {"u": before}
    nothing = wishes_of({"u": unread}, _NODE, {})
    assert nothing.wanted == {}
    assert nothing.unclear == {"ImageCache one"}


def test_an_object_that_is_being_deleted_is_gone() -> None:
    """Finalizers may hold it for long."""
    document = _resolved(_object())
    document["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert wishes_of({"u": read(document)}, _NODE, {}) == wishes_of({}, _NODE, {})


def test_a_cordoned_node_keeps_what_it_has() -> None:
    """It begins nothing; a node that is not chosen any more gives back."""
    seen = {"u": read(_resolved(_object()))}
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    spec = node_object(unschedulable=True, taints=[taint])
    cordoned = Node.of({**spec, "metadata": {"name": "n1"}})
    kept = wishes_of(seen, cordoned, {})
    assert kept.wanted == {}
    assert kept.unclear == {"ImageCache one"}
    foreign = Node.of(
        {**node_object(taints=[{"key": "gpu", "effect": "NoSchedule"}]), "metadata": {"name": "n1"}}
    )
    assert wishes_of(seen, foreign, {}).unclear == frozenset()


@given(window=st.integers(0, EVERYBODY))
def test_a_window_that_widens_takes_nobody_out(window: int) -> None:
    """Who may begin may begin ever after."""
    document = _object()
    now, later = (read(_resolved(document, window=each)) for each in (window, min(EVERYBODY, window + 100)))
    for node in ("n1", "n2", "n3"):
        assert now.turn(node) is None or later.turn(node) is not None


@given(
    metadata=st.dictionaries(st.sampled_from(["name", "annotations", "labels", "generation"]), _ANYTHING),
    spec=_ANYTHING,
    status=_ANYTHING,
)
def test_whatever_an_object_holds_it_is_read(metadata: dict[str, Any], spec: Any, status: Any) -> None:
    """Either a cache or a problem, never an exception; the same after it was cut for memory."""
    document = _object(spec=spec, status=status)
    document["metadata"].update(metadata)
    seen = read(document)
    assert (seen.cache is None) == bool(seen.problem)
    assert read(keep_cache(document)) == seen


@given(node=st.fixed_dictionaries({"metadata": _ANYTHING, "spec": _ANYTHING, "status": _ANYTHING}))
def test_whatever_a_node_holds_it_is_cut(node: dict[str, Any]) -> None:
    """Its parts stay mappings."""
    assert keep_node(node).keys() == {"metadata", "spec", "status"}


def test_what_is_kept_is_what_is_read() -> None:
    """History, managed fields and kubectl's memory of a manifest do not stay."""
    document = _resolved(_object())
    document["metadata"]["managedFields"] = [{"manager": "x"}]
    document["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "x", "a": "b"}
    kept = keep_cache(document)
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {"a": "b"}
    assert "events" not in kept["status"]


def test_each_version_is_read_once_and_each_problem_said_once() -> None:
    """Hundreds of caches are looked at with each change of one."""
    said: list[Seen] = []
    reader = Reader(said.append)
    good, bad = _resolved(_object()), _object("1", spec=3)
    bad["metadata"]["uid"] = "bad"
    first = reader.read({"a": good, "b": bad})
    assert reader.read({"a": good, "b": bad})["u"] is first["u"]
    assert [seen.uid for seen in said] == ["bad"]
    changed = _resolved(_object("2"))
    assert reader.read({"a": changed})["u"] is not first["u"]
