"""Which images of the store something in containerd is about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


class Index:
    """Keys (names of records, ChainIDs, digests) → images, and back."""

    def __init__(self) -> None:
        self._images: defaultdict[str, set[str]] = defaultdict(set)
        self._keys: dict[str, frozenset[str]] = {}

    def put(self, image: str, keys: Iterable[str]) -> None:
        """The image goes by these keys, and by no others."""
        self.drop(image)
        self._keys[image] = frozenset(keys)
        for key in self._keys[image]:
            self._images[key].add(image)

    def drop(self, image: str) -> None:
        """The image is gone."""
        for key in self._keys.pop(image, ()):
            self._images[key].discard(image)
            if not self._images[key]:
                del self._images[key]

    def images(self, key: str) -> frozenset[str]:
        """The images that go by a key."""
        return frozenset(self._images.get(key, ()))
