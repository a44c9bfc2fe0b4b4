"""What the runtime is told to mount for a record, and the mounts of our own below that.

Layer files are mounted when somebody asks, and again after a reboot, always before their directories are
handed out. The options are those of containerd's overlayfs snapshotter, so that a tree behaves the same: no
``redirect_dir``, since a tool that compares layers would not understand what it leaves. Invariant: an active
snapshot always comes with a writable mount; one that looks read-only would pass for a finished layer.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from imagecached.errors import Corrupt, NotFound
from imagecached.mounts import Mounter
from imagecached.mounts.failures import translated
from imagecached.oci.digest import Digest
from imagecached.snapshotter.places import Places
from imagecached.store import Record, Store


@dataclass(frozen=True, slots=True)
class Mount:
    """An argument of mount(2) for the runtime."""

    type: str
    source: str
    options: tuple[str, ...]


class Stacks:
    """The mounts of records. Synchronous; any thread."""

    def __init__(self, store: Store, mounter: Mounter, places: Places) -> None:
        self._store = store
        self._mounter = mounter
        self._places = places

    def mounts(self, record: Record, *, fresh: bool = False) -> tuple[Mount, ...]:
        """How to mount an active snapshot or a view. ``fresh``: its upper directory was just made.

        Corrupt: something below it is lost.
        """
        lowers = self._lowers(record) if record.parent else []
        if record.kind == "view":
            return (_read_only(lowers or [self._upper(record)]),)
        upper = self._upper(record)
        if not lowers:
            return (Mount("bind", upper, ("rw", "rbind")),)
        if fresh:
            _own_like(lowers[0], upper)
        writable = (f"workdir={self._places.work(record.number)}", f"upperdir={upper}")
        return (_overlay(lowers, writable),)

    def needed(self) -> Collection[Path]:
        """The files that active snapshots and views stand on, looked up when it is first used."""
        return _Needed(self._store)

    def _lowers(self, record: Record) -> list[str]:
        """The directories below a record, top first; layer files are mounted."""
        line = self._store.ledger.line(record.snapshotter, record.parent)
        if not line or (line[-1].chain_id is None and line[-1].parent):
            raise Corrupt(f"snapshot {record.name}: a parent of it is lost")
        lowers = list[str]()
        for below in line:
            if below.chain_id is None:
                lowers.append(self._upper(below))
            else:
                lowers += self._layers(below.chain_id)
        return list(dict.fromkeys(lowers))

    def _upper(self, record: Record) -> str:
        upper = self._places.upper(record.number)
        if not upper.is_dir():
            raise Corrupt(f"snapshot {record.name}: its directory {upper} is lost")
        return str(upper)

    def _layers(self, chain_id: Digest) -> list[str]:
        try:
            return [str(self._mounter.layer(file)) for file in _files(self._store, chain_id)]
        except NotFound as error:
            raise Corrupt(f"prepared image {chain_id}: {error}; pull it again") from error


class _Needed(Collection[Path]):
    """Read at the first question, not when it is made: whoever sweeps has noted by then what is handed out
    later. (A record is written before its layers are mounted.)
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: frozenset[Path] | None = None

    def __contains__(self, file: object) -> bool:
        return file in self._files()

    def __iter__(self) -> Iterator[Path]:
        return iter(self._files())

    def __len__(self) -> int:
        return len(self._files())

    def _files(self) -> frozenset[Path]:
        if self._found is None:
            self._found = frozenset(_all_files(self._store))
        return self._found


def _all_files(store: Store) -> Iterator[Path]:
    for chain_id in store.ledger.needed_chains():
        try:
            yield from _files(store, chain_id)
        except NotFound:  # lost; nothing to keep
            continue


def _files(store: Store, chain_id: Digest) -> list[Path]:
    """The seam, if any, and the layers of a chain, top first."""
    chain = store.chain(chain_id)
    return [*([chain.seam] if chain.seam else []), *chain.layers]


def _read_only(lowers: list[str]) -> Mount:
    if len(lowers) == 1:
        return Mount("bind", lowers[0], ("ro", "rbind"))
    return _overlay(lowers)


def _overlay(lowers: list[str], writable: tuple[str, ...] = ()) -> Mount:
    return Mount("overlay", "overlay", ("index=off", *writable, "lowerdir=" + ":".join(lowers)))


def _own_like(lower: str, upper: str) -> None:
    """The root of the tree belongs to whom it belongs to below."""
    try:
        status = Path(lower).stat()
        os.chown(upper, status.st_uid, status.st_gid)
    except OSError as error:
        raise translated(error, f"prepare {upper}") from error
