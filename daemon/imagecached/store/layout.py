"""Where everything lies below the root. The only place that makes or reads such paths; touches no file.

<root>/                     0700
  lock                      flock held for the life of the daemon, holds its pid
  version                   {"format": 1}: a greater number refuses to open
  metadata.db (-wal, -shm)  SQLite; a corrupt one is moved aside as metadata.db.corrupt-<n>
  ballast                   1 MiB given back when the disk is full, so that rows can still be deleted
  layers/sha256/<2 hex>/<diffID hex>.erofs
  seams/sha256/<2 hex>/<ChainID hex>.erofs
  ingest/<random>.erofs     unfinished files; <random>.trash: files on their way out; emptied at open
  m/<n>                     mount points of layer files and seams
  containers/<id>/          writable mounts and runs
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from imagecached.errors import InvalidInput
from imagecached.oci.digest import Digest

_SUFFIX: Final = ".erofs"
_SHARD_LENGTH: Final = 2


class Layout:
    """The paths of one root."""

    __slots__ = ("_layers", "_seams", "containers", "database", "ingest", "lock", "mounts", "root", "version")

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.lock = self.root / "lock"
        self.version = self.root / "version"
        self.database = self.root / "metadata.db"
        self.ingest = self.root / "ingest"
        self.mounts = self.root / "m"
        self.containers = self.root / "containers"
        self._layers = f"{self.root}/layers"
        self._seams = f"{self.root}/seams"

    @property
    def ballast(self) -> Path:
        return self.root / "ballast"

    @property
    def layers(self) -> Path:
        return Path(self._layers)

    @property
    def seams(self) -> Path:
        return Path(self._seams)

    def layer(self, diff_id: Digest) -> Path:
        """The layer file of ``diff_id``, whether it exists or not."""
        return Path(_sharded(self._layers, diff_id))

    def seam(self, chain_id: Digest) -> Path:
        """The seam of ``chain_id``, whether it exists or not."""
        return Path(_sharded(self._seams, chain_id))

    def new_ingest(self) -> Path:
        """A fresh name for an unfinished file."""
        return self.ingest / f"{secrets.token_hex(8)}{_SUFFIX}"

    def new_trash(self) -> Path:
        """A fresh name for a file on its way out: nothing in ``ingest/`` is ever adopted."""
        return self.ingest / f"{secrets.token_hex(8)}.trash"

    def corrupt_database(self, number: int) -> Path:
        """Where the ``number``-th corrupt database is kept for inspection."""
        return self.root / f"metadata.db.corrupt-{number}"

    def digest_of(self, path: str | Path) -> Digest | None:
        """DiffID of a layer file or ChainID of a seam by its path; None for any other path."""
        parts = str(path).removeprefix(f"{self.root}/").split("/")
        if len(parts) != 4 or parts[0] not in ("layers", "seams") or not parts[3].endswith(_SUFFIX):
            return None
        try:
            digest = Digest.parse(f"{parts[1]}:{parts[3].removesuffix(_SUFFIX)}")
        except InvalidInput:
            return None
        return digest if digest.hex.startswith(parts[2]) and len(parts[2]) == _SHARD_LENGTH else None

    def digests_of(self, paths: Iterable[str | Path]) -> frozenset[Digest]:
        """The DiffIDs and ChainIDs among ``paths``, for instance of what mountinfo names as mounted."""
        return frozenset(digest for path in paths if (digest := self.digest_of(path)) is not None)


def _sharded(base: str, digest: Digest) -> str:
    algorithm, _, name = digest.partition(":")
    return f"{base}/{algorithm}/{name[:_SHARD_LENGTH]}/{name}{_SUFFIX}"
