"""Why a node must not be set up like that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from imagecached.dropin import Mode, Version, Written
from imagecached.dropin.objections import InUse, objections
from imagecached.dropin.settings import IMAGES, OLD_CRI, RUNTIME

MAIN = Path("/etc/containerd/config.toml")
IDLE = InUse(0)
IMAGES4 = ("a:1", "b:1", "c:1", "d:1")


def told(
    mode: Mode,
    document: dict[str, Any],
    *,
    version: str = "2.1",
    in_use: InUse | None = IDLE,
    before: Mode | None = None,
) -> list[str]:
    return objections(Version.parse(version), mode, Written(MAIN, (MAIN,), document), in_use, before)


@pytest.mark.parametrize("mode", ["handler", "default"])
@pytest.mark.parametrize("version", ["1.7", "2.1"])
def test_a_good_node(mode: Mode, version: str) -> None:
    """Nothing against an idle node without a configuration, or with an ordinary one."""
    assert told(mode, {}, version=version) == []
    ordinary = {"version": 2, "plugins": {OLD_CRI: {"containerd": {"snapshotter": "overlayfs"}}}}
    assert told(mode, ordinary, version=version) == []


@pytest.mark.parametrize(
    ("mode", "document", "reason"),
    [
        ("handler", {"version": 2, "disabled_plugins": ["io.containerd.grpc.v1.cri"]}, "CRI is turned off"),
        ("handler", {"disabled_plugins": ["cri"]}, "CRI is turned off"),
        ("handler", {"plugins": {"cri": {}}}, "config migrate"),
        ("handler", {"version": 2, "proxy_plugins": {"imagecached": {}}}, "plugin imagecached is defined"),
        (
            "handler",
            {"version": 2, "plugins": {OLD_CRI: {"containerd": {"runtimes": {"imagecached": {}}}}}},
            "handler",
        ),
        (
            "handler",
            {"version": 3, "plugins": {RUNTIME: {"containerd": {"runtimes": {"imagecached": {}}}}}},
            "handler",
        ),
        (
            "handler",
            {"version": 3, "plugins": {IMAGES: {"runtime_platforms": {"imagecached": {}}}}},
            "handler",
        ),
        ("default", {"version": 3, "plugins": {IMAGES: {"snapshotter": "stargz"}}}, "snapshotter is stargz"),
        (
            "default",
            {"version": 2, "plugins": {OLD_CRI: {"containerd": {"snapshotter": "nydus"}}}},
            "is nydus",
        ),
        (
            "default",
            {"version": 3, "plugins": {IMAGES: {"discard_unpacked_layers": True}}},
            "discard_unpacked",
        ),
    ],
)
def test_what_the_files_say_against_it(mode: Mode, document: dict[str, Any], reason: str) -> None:
    """One reason is enough."""
    assert any(reason in each for each in told(mode, document))


def test_another_tool_may_be_the_default_beside_our_handler() -> None:
    """The handler touches nobody's default."""
    assert told("handler", {"version": 3, "plugins": {IMAGES: {"snapshotter": "stargz"}}}) == []


def test_a_file_for_a_newer_containerd() -> None:
    """Version 3 is not what 1.7 reads."""
    [reason] = told("handler", {"version": 3}, version="1.7")
    assert "containerd 2" in reason


def test_the_default_snapshotter_is_not_changed_under_running_pods() -> None:
    """In either direction; the first few images are named. A handler may come and go."""
    switches: list[tuple[Mode, Mode | None]] = [
        ("default", None), ("default", "handler"), ("handler", "default"),
    ]  # fmt: skip
    for mode, before in switches:
        bound = {"only_others" if mode == "default" else "only_ours": IMAGES4}
        containers, images = told(mode, {}, in_use=InUse(3, **bound), before=before)
        assert "3 containers" in containers
        assert "a:1, b:1, c:1 and 1 more" in images
        [silent] = told(mode, {}, in_use=None, before=before)
        assert "does not answer" in silent
    busy = InUse(3, IMAGES4, IMAGES4)
    assert told("handler", {}, in_use=busy) == told("default", {}, in_use=busy, before="default") == []
    assert told("default", {}, in_use=InUse(0, only_ours=IMAGES4)) == []
