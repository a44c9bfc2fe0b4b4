"""Images that no sane tool would write and some tool has written: the catalogue."""

from __future__ import annotations

from tests.support.awkward import archives, attributes, compressed, links, names, spellings, whiteouts
from tests.support.awkward.case import Case, case

__all__ = ["Case", "catalogue"]

_PARTS = (whiteouts, names, links, attributes, archives, spellings, compressed)


def catalogue() -> dict[str, Case]:
    """All awkward images by name."""
    named = [pair for part in _PARTS for pair in part.cases().items()]
    found = {name: case(name, layers) for name, layers in named}
    if len(found) != len(named):
        raise ValueError("two awkward images have one name")
    return found
