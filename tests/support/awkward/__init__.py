"""Images that no sane tool would write and some tool has written: the catalogue."""

from __future__ import annotations

from tests.support.awkward import archives, attributes, compressed, links, names, whiteouts
from tests.support.awkward.case import Case

__all__ = ["Case", "catalogue"]

_PARTS = (whiteouts, names, links, attributes, archives, compressed)


def catalogue() -> dict[str, Case]:
    """All awkward images by name."""
    everything = [one for part in _PARTS for one in part.cases()]
    found = {one.name: one for one in everything}
    if len(found) != len(everything):
        raise ValueError("two awkward images have one name")
    return found
