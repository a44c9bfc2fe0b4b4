"""A cache as others see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imagecached.caches.declared import Source
from imagecached.imagecache import ImageCache, Status


@dataclass(frozen=True, slots=True)
class View:
    """``cache`` None: its declaration cannot be read at present.

    ``names``: image as written → the reference by digest that serves. ``settled``: nothing is being done
    about it. ``lacking``: something that should serve was lost, and could not be brought back yet.
    """

    id: str
    name: str
    source: Source
    origin: str
    status: Status
    cache: ImageCache | None
    names: Mapping[str, str]
    settled: bool
    lacking: bool = False

    @property
    def created(self) -> float:
        """Since when it is there."""
        return (self.cache.created if self.cache else 0.0) or self.status.start_time or 0.0
