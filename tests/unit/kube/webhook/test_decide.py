"""What becomes of a pod, and what is done besides; the patch applied by another program."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import Limits
from imagecached.kube.recorder import About
from imagecached.kube.webhook.decide import (
    UNTOUCHED,
    Observed,
    Rules,
    Seen,
    Told,
    decide,
    is_explicit,
    observe,
    wanted,
)
from imagecached.kube.webhook.review import Request
from tests.unit.imagecache.building import cache, candidate, digest, edited, status
from tests.unit.imagecache.building import pod as pod_document
from tests.unit.kube.webhook.reviewing import AUTO, ECI, OURS, after, asking, decided, known, naming, request

PINNED = f"docker.io/library/nginx:1@{digest('index of nginx:1')}"
CACHE = cache("c", "nginx:1")
TERM = {
    "weight": 50,
    "preference": {"matchExpressions": [{"key": OURS + CACHE.id, "operator": "In", "values": ["ready"]}]},
}
FIELD = "preferredDuringSchedulingIgnoredDuringExecution"


def test_a_hit() -> None:
    """RuntimeClass, the image by digest, a preference for nodes that hold it, and what was decided."""
    asked = asking("nginx:1")
    admitted = decided(asked)
    pod = after(asked, admitted)
    assert admitted.answer.allowed
    assert pod["spec"]["runtimeClassName"] == "imagecached"
    assert pod["spec"]["containers"][0]["image"] == PINNED
    assert pod["spec"]["affinity"] == {"nodeAffinity": {FIELD: [TERM]}}
    assert pod["metadata"]["annotations"] == {
        **AUTO,
        OURS + "cache-id": CACHE.id,
        OURS + "match-degree": "full 1/1",
        OURS + "images-as-written": "nginx:1",
    }
    assert admitted.outcome == "full"
    assert admitted.answer.audit == {"decision": f"c ({CACHE.id}) holds 1 of 1 image"}


def test_nothing_else_changes() -> None:
    """Everything that the pod said itself is there afterwards."""
    mine = {"weight": 100, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}
    asked = asking(
        "nginx:1",
        "other:2",
        runtimeClassName="imagecached",
        affinity={"podAffinity": {"x": []}, "nodeAffinity": {FIELD: [mine], "requiredX": 1}},
        initContainers=[{"name": "i", "image": "nginx:1", "command": ["x"]}],
        tolerations=[{"operator": "Exists"}],
    )
    before = copy.deepcopy(dict(asked.object))
    pod = after(asked, decided(asked))
    assert pod["spec"].pop("affinity") == {
        "podAffinity": {"x": []},
        "nodeAffinity": {FIELD: [mine, TERM], "requiredX": 1},
    }
    assert pod["spec"]["initContainers"][0] == {"name": "i", "image": PINNED, "command": ["x"]}
    pod["spec"]["initContainers"][0]["image"] = pod["spec"]["containers"][0]["image"] = "nginx:1"
    pod["metadata"] = before["metadata"]
    del before["spec"]["affinity"]
    assert pod == before


@pytest.mark.parametrize(
    "affinity", [None, {}, {"nodeAffinity": None}, {"nodeAffinity": {}}, {"nodeAffinity": {FIELD: []}}]
)
def test_the_preference_is_added_at_any_depth(affinity: Any) -> None:
    """Each level that is missing is made, each that is there is kept."""
    asked = asking("nginx:1", affinity=affinity)
    assert after(asked, decided(asked))["spec"]["affinity"] == {"nodeAffinity": {FIELD: [TERM]}}


def test_knative_digests_stay() -> None:
    """An image that is named by the cached digest matches and is left as it is written."""
    image = f"index.docker.io/library/nginx@{digest('index of nginx:1')}"
    asked = asking(image)
    pod = after(asked, decided(asked))
    assert pod["spec"]["containers"][0]["image"] == image
    assert pod["spec"]["runtimeClassName"] == "imagecached"


def test_a_miss() -> None:
    """The pod starts as it came, with a note; when it is stored a cache is made for the next one."""
    asked = asking("other:1", imagePullSecrets=[{"name": "regcred"}])
    admitted = decided(asked)
    pod = after(asked, admitted)
    create = wanted(pod, known(), Rules())
    assert create is not None
    assert create.images == ("docker.io/library/other:1",)
    assert create.pull_secrets == ("default:regcred",)
    assert pod["metadata"]["annotations"] == {
        **AUTO,
        OURS + "match-degree": "none 0/1",
        OURS + "auto-created": create.name,
    }
    assert pod["spec"] == asked.object["spec"]
    assert admitted.outcome == "none"


def test_a_partial_match() -> None:
    """The best there is is used, and a better one is made."""
    asked = asking("nginx:1", "other:1")
    admitted = decided(asked)
    pod = after(asked, admitted)
    assert [container["image"] for container in pod["spec"]["containers"]] == [PINNED, "other:1"]
    assert pod["metadata"]["annotations"][OURS + "match-degree"] == "partial 1/2"
    create = wanted(pod, known(), Rules())
    assert create is not None
    assert create.images == ("docker.io/library/nginx:1", "docker.io/library/other:1")
    assert pod["metadata"]["annotations"][OURS + "auto-created"] == create.name


def test_automatic_caches_turned_off() -> None:
    """Then a miss makes nothing."""
    asked, rules = asking("other:1"), Rules(limits=Limits(automatic=False))
    pod = after(asked, decided(asked, rules=rules))
    assert OURS + "auto-created" not in pod["metadata"]["annotations"]
    assert wanted(pod, known(), rules) is None


def test_what_is_wanted_follows_from_the_stored_pod() -> None:
    """Not from what somebody says of it: its images, its Secrets, and whether anything is lacking by now."""
    asked = asking("other:1")
    pod = after(asked, decided(asked))
    made = candidate(cache("made", "other:1"))
    assert wanted(pod, known(made), Rules()) is None
    assert wanted({}, known(), Rules()) is None
    assert wanted(pod_document("other:1"), known(), Rules()) is None
    pod["metadata"]["annotations"][OURS + "images-as-written"] = "evil.example.com/x:1,UP,other:1"
    create = wanted(pod, known(), Rules())
    assert create is not None
    assert create.images == ("docker.io/library/other:1",)


def test_explicit() -> None:
    """Exactly this cache, whatever it holds; no other is made."""
    other = candidate(cache("other", "busybox:1", size_gib=500))
    asked = naming(other.id, "nginx:1")
    admitted = decided(asked, known(other, candidate(CACHE)))
    pod = after(asked, admitted)
    assert pod["metadata"]["annotations"][OURS + "cache-id"] == other.id
    assert pod["metadata"]["annotations"][OURS + "match-degree"] == "partial 0/1"
    assert pod["spec"]["containers"][0]["image"] == "nginx:1"
    assert admitted.outcome == "explicit"
    assert wanted(pod, known(other), Rules()) is None


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        ("Pending", "Pending"),
        ("Creating", "Creating (0%)"),
        ("Failed", "Failed (AccessDenied: registry refuses)"),
    ],
)
def test_explicit_and_not_ready(phase: str, state: str) -> None:
    """The pod is refused with the cache and its phase, and what made the pod hears of it."""
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "ru", "controller": True}
    asked = naming(CACHE.id, "nginx:1")
    asked.object["metadata"]["ownerReferences"] = [owner]
    admitted = decided(asked, known(candidate(CACHE, phase)))
    message = f"ImageCache c ({CACHE.id}) is {state}, not Ready"
    assert not admitted.answer.allowed
    assert (admitted.answer.reason, admitted.answer.message) == ("ImageCacheNotComplete", message)
    assert admitted.tell == (
        Told(
            About("apps/v1", "ReplicaSet", "rs", "ru", "default"),
            "ImageCacheNotComplete",
            f"[eci.imagecache] {message}",
            "Normal",
        ),
    )


@pytest.mark.parametrize("phase", ["Updating", "UpdateFailed"])
def test_explicit_while_updating(phase: str) -> None:
    """The generation before serves on."""
    assert decided(naming(CACHE.id, "nginx:1"), known(candidate(CACHE, phase))).answer.allowed


def test_explicit_and_unknown() -> None:
    """The same for an id that does not exist."""
    admitted = decided(naming("imc-2ze5tm5gehgtiiga0000", "nginx:1"))
    assert not admitted.answer.allowed
    assert admitted.answer.message == "ImageCache imc-2ze5tm5gehgtiiga0000 does not exist"
    (told,) = admitted.tell
    assert (told.about.name, told.reason, told.kind) == ("p", "ImageCacheNotFound", "Warning")


def test_the_id_overrules_automatic_matching() -> None:
    """With both annotations the id decides, also when another cache would match."""
    both = request(pod_document("nginx:1", annotations={**AUTO, ECI + "eci-image-snapshot-id": "imc-no"}))
    assert not decided(both).answer.allowed


@pytest.mark.parametrize(
    "asked",
    [
        request(pod_document("nginx:1")),
        request(pod_document("nginx:1", annotations={ECI + "eci-auto-imc": "false"})),
        request(pod_document("nginx:1", annotations=AUTO), namespace="kube-system"),
        request(pod_document("nginx:1", annotations=AUTO), namespace="imagecached-system"),
        request(pod_document("nginx:1", annotations=AUTO), operation="UPDATE"),
        request(pod_document("nginx:1", annotations=AUTO), kind="Node"),
        request({"metadata": {"annotations": AUTO}, "spec": {"containers": 5}}),
        request({"metadata": {"annotations": AUTO}}),
        request({}),
    ],
)
def test_untouched(asked: Request) -> None:
    """Pods that ask for nothing, that run, or that are the system's; and what is no pod at all."""
    assert decided(asked) == UNTOUCHED


@pytest.mark.parametrize(
    ("spec", "warning"),
    [
        ({"runtimeClassName": "gvisor"}, "the pod has RuntimeClass gvisor, not imagecached"),
        ({"os": {"name": "windows"}}, "they are for linux, not for windows"),
        ({"nodeSelector": {"kubernetes.io/os": "windows"}}, "they are for linux, not for windows"),
        ({"nodeName": "n1"}, "node n1, to which the pod is bound, lacks the runtime handler"),
        ({"nodeSelector": {"pool": "gpu"}}, "every node the pod may run on lacks the runtime handler"),
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchFields": [
                                        {"key": "metadata.name", "operator": "In", "values": ["n2"]}
                                    ]
                                }
                            ]
                        }
                    }
                }
            },
            "node n2, to which the pod is bound, lacks the runtime handler",
        ),
    ],
)
def test_pods_that_cannot_start_from_snapshots(spec: dict[str, Any], warning: str) -> None:
    """They keep their way of starting, and are told why; an id that is not Ready is refused even so."""
    rules = Rules(can_start=lambda selector, node: not selector and not node)
    for asked in (asking("nginx:1", **spec), naming(CACHE.id, "nginx:1", **spec)):
        admitted = decided(asked, rules=rules)
        assert admitted.answer.patch == ()
        assert admitted.answer.warnings == (f"image caches are not used: {warning}",)
    assert not decided(naming("imc-unknown", "nginx:1", **spec), rules=rules).answer.allowed


def test_a_node_with_the_handler() -> None:
    """A pod of a DaemonSet is helped where its node can do it."""
    asked = asking("nginx:1", nodeName="n1", nodeSelector={"a": "b"})
    rules = Rules(can_start=lambda selector, node: (selector, node) == ({"a": "b"}, "n1"))
    assert decided(asked, rules=rules).outcome == "full"


def test_static_pods() -> None:
    """What the kubelet started from a file is only mirrored, and a mirror must not differ."""
    asked = asking("nginx:1", annotations={"kubernetes.io/config.mirror": "x"})
    assert decided(asked).answer.patch == ()


def test_warnings() -> None:
    """Pull policy Always of an image that is cached, and annotations that make no sense."""
    asked = asking("nginx:1", "other", annotations={ECI + "imc-match-count-request": "x"})
    asked.object["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    warnings = decided(asked).answer.warnings
    assert warnings == (
        f"{ECI}imc-match-count-request must be a whole number from 1 to 1000, not 'x'; it is ignored",
        (
            "nginx:1 has imagePullPolicy Always: every start asks the registry, although the image is "
            "cached; IfNotPresent does not"
        ),
    )


@pytest.mark.parametrize("asked", [asking("nginx:1"), asking("other:1"), naming("imc-unknown", "nginx:1")])
def test_a_dry_run(asked: Request) -> None:
    """The same answer, and nothing is done besides."""
    rehearsal = request(asked.object, dry_run=True)
    really, only = decided(asked), decided(rehearsal)
    assert really.answer == only.answer
    assert only.tell == ()


def test_is_explicit() -> None:
    """Which pods must not start without an answer."""
    assert is_explicit(naming("imc-x", "a"))
    assert not is_explicit(asking("a"))
    assert not is_explicit(request({"metadata": {"annotations": [ECI + "eci-imc-id"]}}))


def stored(asked: Request) -> Request:
    """The pod after admission, with the name and uid it gets when it is stored."""
    pod = after(asked, decided(asked))
    pod["metadata"] |= {"name": "p-x7", "uid": "pod-uid"}
    return request(pod)


def test_events() -> None:
    """ECI's reasons, on the pod itself, which has its uid when it is observed; and what to look at later."""
    about = About("v1", "Pod", "p-x7", "pod-uid", "default")
    hit = observe(stored(asking("nginx:1")))
    message = f"[eci.imagecache] image cache {CACHE.id} matches: full 1/1 images"
    assert hit.tell == (Told(about, "SuccessfulHitImageCache", message),)
    assert hit.seen == Seen("default", "p-x7", "pod-uid", chosen=CACHE.id)
    missed = observe(stored(asking("other:1")))
    message = "[eci.imagecache] no image cache matches: none 0/1 images"
    assert missed.tell[0] == Told(about, "ImageCacheMissed", message, "Warning")
    assert (missed.tell[1].reason, missed.tell[1].kind) == ("ImageCacheAutoCreated", "Normal")
    assert "[eci.imagecache] image cache auto-create-for-" in missed.tell[1].message
    assert missed.seen is not None
    assert missed.seen.created.startswith("auto-create-for-")


def test_no_events() -> None:
    """Of a dry run, of a pod without uid, of anything else."""
    seen = stored(asking("nginx:1"))
    for nothing in (
        request(seen.object, dry_run=True),
        request(seen.object, kind="Node"),
        request({**seen.object, "metadata": {**seen.metadata, "uid": ""}}),
        request({"metadata": {"name": "p", "uid": "u", "annotations": 5}}),
        request({"metadata": {"name": "p", "uid": "u", "annotations": {OURS + "cache-id": 5}}}),
    ):
        assert observe(nothing) == Observed()


def test_what_serves_is_pinned_during_an_update() -> None:
    """The digests written are those that nodes hold now, not those they will hold."""
    declared = edited(cache("c", "nginx:1"))
    updating = candidate(cache("c", "nginx:1"), "Updating")
    assert status(declared, "Updating").generation == 2
    asked = asking("nginx:1")
    assert after(asked, decided(asked, known(updating)))["spec"]["containers"][0]["image"] == PINNED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from("containers image affinity nodeAffinity nodeName os name matchFields".split()),
            inner,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_valid_pod_with_any_rest(rest: Any) -> None:
    """Whatever else a pod holds, the answer to a valid one is applicable and keeps its containers."""
    asked = asking("nginx:1")
    asked.object["spec"]["x-unknown"] = rest
    pod = after(asked, decide(asked, known(), Rules()))
    assert pod["spec"]["x-unknown"] == rest
    assert len(pod["spec"]["containers"]) == 1
