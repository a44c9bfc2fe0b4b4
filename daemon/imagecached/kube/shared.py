"""Equal values as one object: clusters say the same thing thousands of times."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

H = TypeVar("H", bound=Hashable)


class Shared(Generic[H]):
    """Equal values become one object; forgets all when it holds ``most``, which costs memory and nothing
    else.
    """

    def __init__(self, most: int = 1 << 16) -> None:
        self._most = most
        self._known: dict[H, H] = {}

    def of(self, value: H) -> H:
        """The one object that equals ``value``."""
        if len(self._known) >= self._most:
            self._known.clear()
        return self._known.setdefault(value, value)
