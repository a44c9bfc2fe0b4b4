"""What is read of a Node, and which nodes a cache is for."""

from __future__ import annotations

from typing import Any

import pytest

from imagecached.errors import InvalidInput
from imagecached.imagecache import Options, Toleration
from imagecached.kube.nodes import Node, platforms, selection, selects
from imagecached.oci.platform import Platform

ID = "imc-" + "a" * 20


def document(name: str = "n1", **parts: Any) -> dict[str, Any]:
    """An ordinary amd64 node that is up; ``parts`` replace labels, taints, conditions and so on."""
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": parts.get("labels", {})},
        "spec": {"taints": parts.get("taints"), "unschedulable": parts.get("unschedulable")},
        "status": {
            "conditions": parts.get("conditions", [{"type": "Ready", "status": "True"}]),
            "nodeInfo": {
                "operatingSystem": parts.get("os", "linux"),
                "architecture": parts.get("arch", "amd64"),
            },
        },
    }


def taint(key: str, effect: str = "NoSchedule", value: str = "") -> dict[str, str]:
    return {"key": key, "value": value, "effect": effect}


def test_an_ordinary_node_is_everybody_s() -> None:
    """Without options a cache is for every schedulable Linux node."""
    node = Node.of(document())
    assert node.up
    assert node.platform == Platform("linux", "amd64")
    assert selects(Options(), node)


@pytest.mark.parametrize(
    ("parts", "options", "chosen"),
    [
        ({"os": "windows"}, Options(), False),
        ({"arch": "arm64"}, Options(), True),
        ({"arch": "arm64"}, Options(platform=Platform("linux", "amd64")), False),
        ({"arch": "amd64"}, Options(platform=Platform("linux", "386")), True),
        ({"unschedulable": True}, Options(), False),
        ({"unschedulable": True}, Options(tolerations=(Toleration(operator="Exists"),)), True),
        ({"labels": {"pool": "web"}}, Options(node_selector={"pool": "web"}), True),
        ({"labels": {"pool": "db"}}, Options(node_selector={"pool": "web"}), False),
        ({"taints": [taint("gpu")]}, Options(), False),
        ({"taints": [taint("gpu", "PreferNoSchedule")]}, Options(), True),
        ({"taints": [taint("gpu")]}, Options(tolerations=(Toleration("gpu", "Exists"),)), True),
        ({"taints": [taint("gpu", value="a")]}, Options(tolerations=(Toleration("gpu", value="b"),)), False),
        ({"taints": [taint("gpu", "NoExecute")]}, Options(), False),
        ({"taints": [taint("node.kubernetes.io/not-ready", "NoExecute")], "conditions": []}, Options(), True),
    ],
)
def test_selector_platform_and_taints_decide(parts: dict[str, Any], options: Options, chosen: bool) -> None:
    """The scheduler's rules, but that a node which is only down for the moment still belongs to the cache."""
    assert selects(options, Node.of(document(**parts))) is chosen


@pytest.mark.parametrize(
    "broken",
    [
        {"metadata": {"name": "n1", "labels": []}, "spec": 3, "status": None},
        {"metadata": {"name": "n1", "labels": {"a": 1}}, "spec": {"taints": ["x", {"key": 3}]}},
        {"metadata": {"name": "n1"}, "status": {"conditions": ["Ready", {"type": "Ready"}], "nodeInfo": []}},
    ],
)
def test_a_node_that_makes_no_sense_is_down_and_nobody_s(broken: dict[str, Any]) -> None:
    """It is kept, so that its report is not taken for a stray, and nobody waits for it."""
    node = Node.of(broken)
    assert not node.up
    assert not selects(Options(), node)


def test_a_node_without_name_is_refused() -> None:
    """Nothing can be said about it."""
    with pytest.raises(InvalidInput, match=r"metadata\.name"):
        Node.of({"metadata": {"uid": "x"}})


def test_our_labels_are_told_from_others() -> None:
    """Labels under our prefix that we do not write belong to somebody else."""
    labels = {
        "imagecached.dev/handler": "ready",
        f"imagecached.dev/{ID}": "broken",
        "imagecached.dev/pool": "x",
    }
    node = Node.of(document(labels=labels))
    assert node.placed == {"imagecached.dev/handler"}
    assert node.odd == {f"imagecached.dev/{ID}"}
    assert node.labels == {"imagecached.dev/pool": "x"}


def test_equal_options_select_alike() -> None:
    """Hundreds of caches share one selection of thousands of nodes."""
    one, two = Options(node_selector={"a": "1", "b": "2"}), Options(node_selector={"b": "2", "a": "1"})
    assert selection(one) == selection(two)
    assert selection(one) != selection(Options(node_selector={"a": "1"}))


def test_platforms_are_listed_once_and_in_a_fixed_order() -> None:
    """Registries are asked for each of them."""
    nodes = [
        Node.of(document("a", arch="arm64")),
        Node.of(document("b")),
        Node.of(document("c", arch="x86_64")),
    ]
    assert [str(platform) for platform in platforms(nodes)] == ["linux/amd64", "linux/arm64"]
