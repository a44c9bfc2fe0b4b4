"""What the registry under test has sent, and its blobs kept in the page cache so that its disk does not
count.
"""

from __future__ import annotations

import re
from typing import Final

from tests.support.registry import Registry

_ACCESS: Final = re.compile(rb'"GET \S+ HTTP/[0-9.]+" [0-9]{3} ([0-9]+) ')
_PIECE: Final = 1 << 20


def bytes_sent(registry: Registry) -> int:
    """Bytes of bodies since the registry started, by its access log."""
    return sum(int(match[1]) for match in _ACCESS.finditer(registry.log.read_bytes()))


def read_blobs(registry: Registry) -> None:
    """Bring every blob into the page cache."""
    for path in registry.storage.rglob("data"):
        with path.open("rb") as file:
            while file.read(_PIECE):
                pass
