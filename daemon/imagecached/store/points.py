"""Named points of the store's sequences, so that tests can stop the process exactly there.

A point is a no-op unless a test has armed an action. Every step after which a crash leaves the disk in
another state has one; the list is closed, and a test checks that each is reached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

POINTS: Final = (
    # publish a layer
    "ingest.created",
    "layer.renamed",
    "layer.synced",
    "layer.inserted",
    "layer.recorded",
    # record an image
    "seam.built",
    "seam.renamed",
    "seam.synced",
    "image.inserted",
    "image.recorded",
    # record the lower part of an image under way
    "chain.recorded",
    # remove an image; pin; shelf a document
    "image.deleted",
    "image.removed",
    "pin.recorded",
    "shelf.inserted",
    "shelf.recorded",
    # free space
    "gc.planned",
    "gc.deleted",
    "gc.committed",
    "gc.trashed",
    "gc.unlinked",
    # repair what fsck found
    "fsck.quarantined",
    "fsck.committed",
    "fsck.mended",
    # recovery at open
    "open.emptied",
    "open.moved",
    "open.adopted",
    "open.dropped",
)
"""``inserted``, ``deleted``: inside the transaction; ``recorded``, ``removed``, ``committed``: after it."""

_actions: list[Callable[[str], None]] = []


def point(name: str) -> None:
    """The program has come to ``name``."""
    for action in _actions:
        action(name)


def arm(action: Callable[[str], None]) -> None:
    """Call ``action(name)`` at every point from now on. For tests."""
    _actions.append(action)


def disarm() -> None:
    """Make every point a no-op again."""
    _actions.clear()
