"""Whether containerd has our runtime handler, from what its CRI says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from imagecached.kube.agent.handler import has_handler


def _config(runtimes: Any, snapshotter: str = "overlayfs") -> dict[str, str]:
    return {"config": json.dumps({"containerd": {"snapshotter": snapshotter, "runtimes": runtimes}})}


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (_config({"imagecached": {"snapshotter": "imagecached"}}), True),
        (_config({"imagecached": {"snapshotter": ""}}), False),
        (_config({"imagecached": {}}, snapshotter="imagecached"), True),
        (_config({"imagecached": {"snapshotter": "overlayfs"}}), False),
        (_config({"runc": {"snapshotter": "imagecached"}}), False),
        (_config(None), False),
        (_config({"imagecached": 3}), False),
        ({}, False),
        ({"config": "{"}, False),
        ({"config": "[" * 100_000}, False),
        ({"config": "3"}, False),
    ],
)
def test_the_handler_and_its_snapshotter(info: dict[str, str], expected: bool) -> None:
    """Both must be right; an answer that makes no sense is a no."""
    assert has_handler(info, "imagecached") is expected
