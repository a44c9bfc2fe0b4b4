"""Nodes with our runtime handler, and pods that may run on them."""

from __future__ import annotations

from typing import Any

import pytest

from imagecached.kube.webhook.handlers import bare, can_start


def node(name: str, **labels: str) -> dict[str, Any]:
    return bare(
        {"metadata": {"name": name, "uid": "u", "labels": labels, "annotations": {"x": "y"}}, "spec": {}}
    )


NODES = {("", "a"): node("a", pool="web"), ("", "b"): node("b", pool="web", disk="ssd")}


@pytest.mark.parametrize(
    ("selector", "bound_to", "expected"),
    [
        ({}, "", True),
        ({"pool": "web"}, "", True),
        ({"pool": "web", "disk": "ssd"}, "", True),
        ({"disk": "hdd"}, "", False),
        ({}, "a", True),
        ({"disk": "ssd"}, "a", False),
        ({}, "c", False),
    ],
)
def test_can_start(selector: dict[str, str], bound_to: str, expected: bool) -> None:
    """By labels, and by name where the pod is bound to one node."""
    assert can_start(NODES, selector, bound_to) == expected


def test_no_node() -> None:
    """Where nothing is prepared nothing can start from it."""
    assert not can_start({}, {}, "")


def test_little_is_kept() -> None:
    """Thousands of nodes are held in memory: names, versions and labels only."""
    assert node("a", pool="web") == {
        "metadata": {"name": "a", "uid": "u", "resourceVersion": "", "labels": {"pool": "web"}}
    }
