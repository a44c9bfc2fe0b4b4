"""What a pod asks for, read from every kind of object that makes pods."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.imagecache import PodImages, misplaced
from imagecached.imagecache.pods import quantity
from tests.unit.imagecache.building import GIB
from tests.unit.imagecache.building import pod as pod_document

ECI = "k8s.aliyun.com/"
KNATIVE_AUTO = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: helloworld-go
spec:
  template:
    metadata:
      labels:
        app: helloworld-go
      annotations:
        k8s.aliyun.com/eci-image-cache: "true"
    spec:
      containers:
        - image: registry.cn-hangzhou.aliyuncs.com/knative-sample/helloworld-go:73fbdd56
"""


def read(*images: str, annotations: dict[str, str] | None = None, **spec: Any) -> PodImages:
    return PodImages.of(pod_document(*images, annotations=annotations, **spec))


def owner(kind: str, *path: str, api: str = "apps/v1") -> dict[str, Any]:
    """An object of this kind with a pod template at ``path``."""
    inner = pod_document("nginx:1", annotations={ECI + "eci-auto-imc": "true"})
    template: dict[str, Any] = {"metadata": inner["metadata"], "spec": inner["spec"]}
    for field in reversed(path):
        template = {field: template}
    metadata = {"name": "owner", "namespace": "ns"}
    if not path:
        metadata = {**metadata, "annotations": inner["metadata"]["annotations"]}
    return {"apiVersion": api, "kind": kind, **template, "metadata": metadata}


@pytest.mark.parametrize(
    "document",
    [
        owner("Pod", api="v1"),
        owner("PodTemplate", "template", api="v1"),
        owner("Deployment", "spec", "template"),
        owner("StatefulSet", "spec", "template"),
        owner("DaemonSet", "spec", "template"),
        owner("ReplicaSet", "spec", "template"),
        owner("ReplicationController", "spec", "template", api="v1"),
        owner("Job", "spec", "template", api="batch/v1"),
        owner("CronJob", "spec", "jobTemplate", "spec", "template", api="batch/v1"),
        owner("Service", "spec", "template", api="serving.knative.dev/v1"),
        owner("Configuration", "spec", "template", api="serving.knative.dev/v1"),
        owner("Revision", api="serving.knative.dev/v1"),
    ],
    ids=lambda document: document["kind"],
)
def test_every_kind(document: dict[str, Any]) -> None:
    """The pod template is found wherever the kind keeps it; name and namespace are the object's."""
    found = PodImages.of(document)
    assert (found.images, found.auto, found.kind) == (("nginx:1",), True, document["kind"])
    assert (found.namespace, found.name) == ("ns", "owner")


def test_the_knative_example() -> None:
    """The manifest that ECI's documentation shows."""
    found = PodImages.of(yaml.safe_load(KNATIVE_AUTO))
    assert found.auto
    assert found.images == ("registry.cn-hangzhou.aliyuncs.com/knative-sample/helloworld-go:73fbdd56",)
    explicit = KNATIVE_AUTO.replace(
        'eci-image-cache: "true"', "eci-image-snapshot-id: imc-2ze5tm5gehgtiiga0000"
    )
    found = PodImages.of(yaml.safe_load(explicit))
    assert (found.auto, found.explicit) == (False, "imc-2ze5tm5gehgtiiga0000")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "kind: must be one of Configuration, "),
        ({"kind": "Node"}, "kind: must be one of Configuration, "),
        ({"kind": ["Pod"]}, "kind: must be one of Configuration, "),
        (
            {"kind": "Service", "apiVersion": "v1"},
            "apiVersion: a Service has pods only in serving.knative.dev, not",
        ),
        ({"kind": "Deployment", "spec": {}}, "Deployment: spec.template is missing"),
        ({"kind": "Deployment", "spec": 5}, "Deployment: spec.template is missing"),
        ({"kind": "Pod"}, "Pod: its pod has no containers"),
        ({"kind": "Pod", "spec": {"containers": []}}, "Pod: its pod has no containers"),
        ({"kind": "Pod", "spec": {"containers": 1}}, "Pod: Expected `array | null`, got `int`"),
        ({"kind": "Pod", "spec": {"containers": [{"image": "a"}] * 201}}, "Pod: more than 200 containers"),
        (
            {"kind": "Pod", "metadata": {"annotations": {"a": 1}}, "spec": {}},
            "Pod: Expected `str`, got `int`",
        ),
    ],
)
def test_no_pod(document: Any, message: str) -> None:
    """What makes no pods, or is broken, is refused by name."""
    with pytest.raises(InvalidInput) as caught:
        PodImages.of(document)
    assert str(caught.value).startswith(message)


def test_images() -> None:
    """Each image once; containers before init containers, which count as well."""
    found = read("b", "a", "b", initContainers=[{"image": "i"}, {"image": "a"}, {"name": "without"}])
    assert found.images == ("b", "a", "i")
    assert read("a", ephemeralContainers=[{"image": "debug"}]).images == ("a",)


@pytest.mark.parametrize(
    ("annotations", "auto", "explicit"),
    [
        ({}, False, ""),
        ({"eci-auto-imc": "true"}, True, ""),
        ({"eci-image-cache": "true"}, True, ""),
        ({"eci-auto-imc": "false", "eci-image-cache": "true"}, False, ""),
        ({"eci-auto-imc": "yes"}, False, ""),
        ({"eci-imc-id": "imc-a"}, False, "imc-a"),
        ({"eci-image-snapshot-id": " imc-b "}, False, "imc-b"),
        ({"eci-imc-id": "imc-a", "eci-image-snapshot-id": "imc-b", "eci-auto-imc": "true"}, True, "imc-a"),
    ],
)
def test_both_spellings(annotations: dict[str, str], auto: bool, explicit: str) -> None:
    """Each annotation has two names; the current one wins."""
    found = read("a", annotations={ECI + key: value for key, value in annotations.items()})
    assert (found.auto, found.explicit) == (auto, explicit)


@pytest.mark.parametrize(
    ("annotations", "warning"),
    [
        (
            {"eci-auto-imc": "false", "eci-image-cache": "true"},
            "k8s.aliyun.com/eci-image-cache: 'true' is overruled by k8s.aliyun.com/eci-auto-imc: 'false'",
        ),
        (
            {"eci-auto-imc": "yes"},
            'k8s.aliyun.com/eci-auto-imc must be "true" or "false", not \'yes\'; it is ignored',
        ),
        (
            {"imc-match-count-request": "0"},
            ECI + "imc-match-count-request must be a whole number from 1 to 1000, not '0'; it is ignored",
        ),
        (
            {"eci-extra-ephemeral-storage": "lots"},
            ECI + "eci-extra-ephemeral-storage must be a quantity such as 20Gi, not 'lots'; it is ignored",
        ),
        ({"imc-size": "20"}, "k8s.aliyun.com/imc-size: has no effect on a Pod: it belongs on an ImageCache"),
    ],
)
def test_warnings(annotations: dict[str, str], warning: str) -> None:
    """What makes no sense is told, ignored, and never an error: the pod would fail for it."""
    found = read("a", annotations={ECI + key: value for key, value in annotations.items()})
    assert found.warnings == (warning,)


def test_matching_rules() -> None:
    """Perfect match and match count."""
    found = read("a", annotations={ECI + "imc-perfect-match": "true", ECI + "imc-match-count-request": "2"})
    assert (found.perfect, found.count) == (True, 2)


@pytest.mark.parametrize(
    ("annotation", "requests", "init", "gib"),
    [
        (None, [], [], 30),
        ("20Gi", [], [], 50),
        (None, ["10Gi", "15Gi"], [], 30),
        (None, ["30Gi", "10Gi"], [], 40),
        (None, [], ["45Gi", "40Gi"], 45),
        ("20Gi", ["40Gi"], [], 50),
        ("5Gi", ["40Gi"], [], 40),
        (None, ["nonsense"], [], 30),
        (None, [str(40 << 30)], [], 40),
    ],
)
def test_ephemeral_storage(annotation: str | None, requests: list[str], init: list[str], gib: float) -> None:
    """30 GiB, plus what the annotation adds or the requests ask for beyond it, whichever is more."""

    def container(size: str) -> dict[str, Any]:
        return {"image": "a", "resources": {"requests": {"ephemeral-storage": size}}}

    document = pod_document(
        "a", annotations={ECI + "eci-extra-ephemeral-storage": annotation} if annotation else {}
    )
    document["spec"]["containers"] += [container(size) for size in requests]
    document["spec"]["initContainers"] = [container(size) for size in init]
    assert PodImages.of(document).ephemeral_gib == gib


@pytest.mark.parametrize(
    ("text", "number"),
    [("20Gi", 20 * GIB), ("1k", 1000), ("1.5M", 1.5e6), ("500m", 0.5), ("12e3", 12e3), ("7", 7), ("1E", 1e18),
     ("1Ei", 1 << 60), (".5Ki", 512), ("+3", 3), ("1E3", 1000)],
)  # fmt: skip
def test_quantities(text: str, number: float) -> None:
    """Kubernetes' quantities in all their suffixes."""
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "Gi", "1gi", "1 Gi", "-1Gi", "1e", "0x10", "1Gi\n", "\u0661", "9" * 99])
def test_no_quantity(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidInput):
        quantity(text)


def test_pull_policy_always() -> None:
    """Images for which the kubelet would ask the registry all the same: said so, or ``latest`` by default."""
    document = pod_document("a", "b:1", "c:1", f"d@sha256:{'0' * 64}", "e:latest")
    document["spec"]["containers"][2]["imagePullPolicy"] = "Always"
    document["spec"]["containers"][4]["imagePullPolicy"] = "IfNotPresent"
    assert PodImages.of(document).always == ("a", "c:1")


def test_annotations_in_the_wrong_place() -> None:
    """On the workload itself they do nothing, which nobody would notice otherwise."""
    document = owner("Deployment", "spec", "template")
    document["metadata"]["annotations"] = {ECI + "eci-auto-imc": "true", ECI + "imc-size": "25", "x": "y"}
    (warning,) = misplaced(document)
    assert warning == (
        "k8s.aliyun.com/eci-auto-imc on the Deployment itself has no effect: write it into "
        "spec.template.metadata.annotations"
    )
    assert PodImages.of(document).warnings == (warning,)
    assert misplaced(owner("Pod")) == ()


def test_pull_secrets() -> None:
    """Their names, in the pod's namespace."""
    assert read("a", imagePullSecrets=[{"name": "one"}, {}, {"name": "two"}]).pull_secrets == ("one", "two")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "metadata spec template containers image annotations name initContainers".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(JSON, JSON, st.sampled_from(["Pod", "Deployment", "CronJob", "Service"]))
def test_any_object(metadata: Any, spec: Any, kind: str) -> None:
    """Whatever is sent, it is read, or refused and nothing else."""
    document = {"kind": kind, "apiVersion": "serving.knative.dev/v1", "metadata": metadata, "spec": spec}
    with suppress(InvalidInput):
        assert PodImages.of(document).kind == kind
