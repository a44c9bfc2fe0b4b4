"""registration.stuck: which event says that a container waits for layers, and how often that is believed."""

from __future__ import annotations

import pytest

from imagecached.containerd.nouns import Event
from imagecached.oci.digest import Digest
from imagecached.registration.place import EXTRACTS
from imagecached.registration.stuck import FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, Patience, given_up

CHAIN = Digest.of(b"chain")


@pytest.mark.parametrize("snapshotter", ["overlayfs", ""])
def test_a_layer_that_was_not_extracted(snapshotter: str) -> None:
    """The key of an unpacker is removed. containerd 1.6 does not say in which snapshotter."""
    event = Event("k8s.io", "/snapshot/remove", f"extract-12345-aB_c {CHAIN}", snapshotter)
    assert given_up(event, "imagecached") == CHAIN


@pytest.mark.parametrize(
    "event",
    [
        Event("k8s.io", "/snapshot/prepare", f"extract-1-a {CHAIN}", "overlayfs"),
        Event("k8s.io", "/snapshot/remove", f"extract-1-a {CHAIN}", "imagecached"),
        Event("k8s.io", "/snapshot/remove", f"{EXTRACTS}aa {CHAIN}", ""),
        Event("k8s.io", "/snapshot/remove", str(CHAIN), "overlayfs"),
        Event("k8s.io", "/snapshot/remove", "a-container", "overlayfs"),
        Event("k8s.io", "/images/delete", f"extract-1-a {CHAIN}"),
    ],
    ids=["begun", "ours", "our own asking", "a chain itself", "a container", "an image"],
)
def test_anything_else(event: Event) -> None:
    """Says nothing of the kind."""
    assert given_up(event, "imagecached") is None


def test_tries_become_rare_and_are_forgotten() -> None:
    """At once, then after pauses that double up to the longest; each image by itself."""
    now = 0.0
    patience = Patience(lambda: now)
    for pause in (0, 30, 60, 120, 240, 480, 960, 1800, 1800):
        if pause:
            now += pause - 1
            assert not patience.may_try("a")
            now += 1
        assert patience.may_try("a")
    assert patience.may_try("b")
    now += 2 * LAST_PAUSE_SECONDS
    assert patience.may_try("a")
    now += FIRST_PAUSE_SECONDS
    assert patience.may_try("a")
