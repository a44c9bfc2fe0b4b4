"""Snapshots: one row per ChainID, and the seam files that some of them need.

A snapshot knows its parent and its own layer; layer files know nothing of either. Seams are built without any
lock into ``ingest/``, and published together with the rows by whoever holds the store's lock. Invariants: a
snapshot's parent, layer file and seam exist; one that needs a seam has its digest in the row.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from imagecached.errors import FailedPrecondition, NotFound
from imagecached.layers.seam import build_seam
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import layers, schema
from imagecached.store.db import Row
from imagecached.store.files import disk_bytes, no_space, publish_file
from imagecached.store.ingests import Ingest
from imagecached.store.points import point
from imagecached.store.records import Chain, Layer, Snapshot
from imagecached.store.state import State

_SELECT = "SELECT chain_id, parent, diff_id, seam_digest, disk_bytes, created FROM snapshots"
_CHAIN = """
    WITH RECURSIVE chain (depth, parent, diff_id, seam_digest) AS (
      SELECT 0, parent, diff_id, seam_digest FROM snapshots WHERE chain_id = ?
      UNION ALL
      SELECT depth + 1, s.parent, s.diff_id, s.seam_digest
      FROM chain c JOIN snapshots s ON s.chain_id = c.parent
    )
    SELECT diff_id, seam_digest FROM chain ORDER BY depth
"""
_DOOMED = """
    WITH RECURSIVE doomed (chain_id) AS (
      SELECT chain_id FROM snapshots WHERE {condition}
      UNION
      SELECT s.chain_id FROM doomed d JOIN snapshots s ON s.parent = d.chain_id
    )
    DELETE FROM snapshots WHERE chain_id IN doomed RETURNING chain_id
"""
_READ_BYTES = 1 << 20


def find(state: State, chain_id: Digest) -> Snapshot | None:
    """The committed snapshot with this ChainID."""
    rows = state.db.read(f"{_SELECT} WHERE chain_id = ?", str(chain_id))
    return _snapshot(rows[0]) if rows else None


def every(state: State) -> tuple[Snapshot, ...]:
    """All snapshots, by ChainID."""
    return tuple(_snapshot(row) for row in state.db.read(f"{_SELECT} ORDER BY chain_id"))


def chain(state: State, chain_id: Digest) -> Chain:
    """What to mount for a snapshot, top first; NotFound.

    A layer that occurs twice is listed once, at its upper place: what it says there hides what it said below.
    """
    rows = state.db.read(_CHAIN, str(chain_id))
    if not rows:
        raise NotFound(f"no snapshot {chain_id}")
    diff_ids = tuple(dict.fromkeys(Digest(row[0]) for row in rows))
    seam = state.layout.seam(chain_id) if rows[0][1] is not None else None
    return Chain(chain_id, seam, tuple(map(state.layout.layer, diff_ids)), diff_ids)


@dataclass(slots=True)
class Fresh:
    """A snapshot that is to get a row. ``seam`` is its file in ``ingest/``, or None if it needs none."""

    chain_id: Digest
    parent: Digest | None
    diff_id: Digest
    layer_bytes: int  # of the whole chain
    seam: Ingest | None = None
    seam_digest: str | None = None
    seam_bytes: int = 0


@contextmanager
def prepared(state: State, diff_ids: Sequence[Digest]) -> Iterator[list[Fresh]]:
    """Build the seams of every prefix of ``diff_ids`` that has no snapshot yet, for :func:`publish` in the
    body.

    FailedPrecondition names a layer that is missing. Files that were not published are removed at the end.
    """
    found = [_present(state, diff_id) for diff_id in diff_ids]
    with ExitStack() as stack:
        fresh: list[Fresh] = []
        parent: Digest | None = None
        parent_seam: Path | None = None
        for depth, chain_id in enumerate(chain_ids(diff_ids), start=1):
            known = find(state, chain_id)
            if known is not None:
                parent_seam = state.layout.seam(chain_id) if known.seam else None
            else:
                made = Fresh(
                    chain_id, parent, diff_ids[depth - 1], sum(layer.disk_bytes for layer in found[:depth])
                )
                _build(state, stack, made, found[:depth], parent_seam)
                fresh.append(made)
                parent_seam = made.seam.path if made.seam else None
            parent = chain_id
        yield fresh


@contextmanager
def published(state: State, fresh: Sequence[Fresh]) -> Iterator[list[Fresh]]:
    """The snapshots that nobody recorded meanwhile, their seams under their names; the body writes the rows.

    The store's lock is held throughout. If the body fails, or a seam cannot be published, the names go again.
    """
    with state.db.lock:
        needed = [one for one in fresh if find(state, one.chain_id) is None]
        try:
            for one in needed:
                _publish_seam(state, one)
            yield needed
        except BaseException:
            for one in needed:
                if find(state, one.chain_id) is None:
                    state.layout.seam(one.chain_id).unlink(missing_ok=True)
            raise


def record(connection: sqlite3.Connection, fresh: Iterable[Fresh], now: float) -> None:
    """Write rows, parents first."""
    for one in fresh:
        total = one.layer_bytes + one.seam_bytes
        parent = None if one.parent is None else str(one.parent)
        sealed = (str(one.chain_id), parent, str(one.diff_id), one.seam_digest, one.seam_bytes, total, now)
        schema.insert(connection, "snapshots", sealed)


def drop(
    connection: sqlite3.Connection, *, diff_ids: Iterable[Digest] = (), chain_ids: Iterable[Digest] = ()
) -> set[Digest]:
    """Delete the snapshots that use one of these layers or are one of these, with all their descendants;
    which they were.
    """
    dropped: set[Digest] = set()
    for condition, values in (("diff_id = ?", diff_ids), ("chain_id = ?", chain_ids)):
        statement = _DOOMED.format(condition=condition)
        for value in values:
            dropped.update(Digest(row[0]) for row in connection.execute(statement, (str(value),)).fetchall())
    return dropped


def seam_digest(path: Path) -> str:
    """The digest of a whole seam file; seams are small, and nothing else covers the data of linked files."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            hasher.update(chunk)
    return f"sha256:{hasher.hexdigest()}"


def _present(state: State, diff_id: Digest) -> Layer:
    layer = layers.find(state, diff_id)
    if layer is None:
        raise FailedPrecondition(f"layer {diff_id} is not in the store")
    return layer


def _build(
    state: State, stack: ExitStack, made: Fresh, below: Sequence[Layer], parent_seam: Path | None
) -> None:
    ingest = Ingest(state, made.chain_id)
    stack.callback(ingest.close)
    ingest.open()
    with no_space(f"seam {made.chain_id}"):
        paths = [layer.path for layer in below]
        needed = build_seam(paths, parent_seam, ingest.fd, state.limits, ingest.check_space)
    if not needed:
        ingest.close()
        return
    ingest.check_space(os.fstat(ingest.fd).st_size)
    made.seam, made.seam_bytes = ingest, disk_bytes(ingest.fd)
    made.seam_digest = seam_digest(ingest.path)
    point("seam.built")


def _publish_seam(state: State, one: Fresh) -> None:
    if one.seam is not None:
        with no_space(f"seam {one.chain_id}"):
            publish_file(one.seam.path, state.layout.seam(one.chain_id), state.db.lock, "seam")


def _snapshot(row: Row) -> Snapshot:
    chain_id, parent, diff_id, seam, total, created = row
    return Snapshot(
        Digest(chain_id),
        None if parent is None else Digest(parent),
        Digest(diff_id),
        seam is not None,
        total,
        created,
    )
