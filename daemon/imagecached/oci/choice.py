"""Which of an index's entries to run here: containerd's matching and order of preference."""

from __future__ import annotations

from typing import Final

from imagecached.errors import NotFound
from imagecached.oci.documents import Descriptor, Index
from imagecached.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from imagecached.oci.platform import Platform

_UNSTATED: Final = 1 << 16  # worse than every rank


def candidates(index: Index, platform: Platform) -> tuple[Descriptor, ...]:
    """Entries that may suit ``platform``, best first, those that state no platform last.

    Only a look at such an entry's own config can tell whether it fits. Entries that are neither manifest nor
    index are left out.
    """
    ranked = []
    for entry in index.manifests:
        rank = _UNSTATED if entry.platform is None else platform.rank(entry.platform)
        if rank is not None and entry.media_type in MANIFEST_TYPES | INDEX_TYPES:
            ranked.append((rank, entry))
    return tuple(entry for _, entry in sorted(ranked, key=lambda pair: pair[0]))


def choose(index: Index, platform: Platform) -> Descriptor:
    """The best of :func:`candidates`, or NotFound saying what the index offers."""
    found = candidates(index, platform)
    if not found:
        raise NotFound(nothing_for(index, platform))
    return found[0]


def nothing_for(index: Index, platform: Platform) -> str:
    """The sentence for an index without an image for ``platform``."""
    offered = sorted({str(entry.platform) for entry in index.manifests if entry.platform})
    return f"no image for {platform}; offered: {', '.join(offered) or 'nothing that states a platform'}"[:400]
