"""Containers that wait for layers which nobody will fetch, noticed by what containerd tells of its snapshots.

A container that is not ours may name the very digest that we registered. The kubelet finds the image
present, containerd begins to unpack it into another snapshotter, finds no blob of the layer, removes the
snapshot it had begun, and fails; the kubelet tries again, for ever. The sign is that removal: of a snapshot
whose key says that ChainID X was being extracted, without having become X. An ordinary pull that was given
up looks the same, and then the blobs come in vain: hence the pause after each try, per image.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from imagecached.containerd import Event
from imagecached.oci.digest import Digest
from imagecached.registration.place import EXTRACTS

FIRST_PAUSE_SECONDS: Final = 30.0
LAST_PAUSE_SECONDS: Final = 1800.0
SPARE: Final = 4
"""A blob, and what it is unpacked to: three times its size on the average of images."""

_KEY: Final = re.compile(r"extract-\S+ ((?:sha256|sha512):[0-9a-f]+)")


def given_up(event: Event, snapshotter: str) -> Digest | None:
    """The ChainID that another snapshotter than ours could not extract; None for any other event."""
    match = _KEY.fullmatch(event.name)
    if event.topic != "/snapshot/remove" or match is None or event.name.startswith(EXTRACTS):
        return None
    return None if event.snapshotter == snapshotter else Digest(match[1])


class Patience:
    """When the blobs of an image may be brought again: the pause doubles with every try, and is forgotten
    after twice the longest.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tries: dict[str, tuple[int, float]] = {}  # how many, when the last

    def may_try(self, image: str) -> bool:
        """Whether it is time; if so, it is a try."""
        now = self._clock()
        self._tries = {
            name: tries for name, tries in self._tries.items() if now - tries[1] < 2 * LAST_PAUSE_SECONDS
        }
        count, last = self._tries.get(image, (0, 0.0))
        pause = min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (count - 1)) if count else 0.0
        if now - last < pause:
            return False
        self._tries[image] = (count + 1, now)
        return True
