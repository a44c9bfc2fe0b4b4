"""ChainIDs (OCI image-spec, config.md § Layer ChainID)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from imagecached.oci.digest import Digest


def chain_ids(diff_ids: Sequence[Digest]) -> tuple[Digest, ...]:
    """The ChainID of every prefix of ``diff_ids`` (bottom first), so the last one names the whole image."""
    return tuple(accumulate(diff_ids, lambda parent, diff_id: Digest.of(f"{parent} {diff_id}".encode())))
