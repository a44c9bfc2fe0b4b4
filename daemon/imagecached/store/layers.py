"""Rows of layer files, and the publish sequence that makes one visible.

    written and durable in ingest/ (by the layer writer) → rename → directory durable → row

A layer is visible when its row is. Invariant: a row is never written for a file whose data or name a power
loss could take; the row itself may be lost by one, and is then made again from the file when the store opens.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Sequence

from imagecached.errors import Corrupt
from imagecached.layers.layerfile import LayerInfo
from imagecached.oci.digest import Digest
from imagecached.store import schema
from imagecached.store.db import Row
from imagecached.store.files import disk_bytes, no_space, publish_file
from imagecached.store.ingests import Ingest
from imagecached.store.layout import Layout
from imagecached.store.points import point
from imagecached.store.records import Layer
from imagecached.store.state import State

_SELECT = "SELECT diff_id, tar_bytes, file_bytes, disk_bytes, entries, created, last_used FROM layers"


def find(state: State, diff_id: Digest) -> Layer | None:
    """The layer with this DiffID, if it is published."""
    rows = state.db.read(f"{_SELECT} WHERE diff_id = ?", str(diff_id))
    return _layer(state.layout, rows[0]) if rows else None


def every(state: State) -> tuple[Layer, ...]:
    """All published layers, by DiffID."""
    return tuple(_layer(state.layout, row) for row in state.db.read(f"{_SELECT} ORDER BY diff_id"))


def publish(state: State, ingest: Ingest, info: LayerInfo) -> Layer:
    """Make a finished ingest visible, durably.

    Someone else published the same DiffID: theirs is returned and this file goes with its ingest. Corrupt if
    ``info`` is not about this file; OutOfSpace, after which nothing of it is left.
    """
    if info.diff_id != ingest.digest or info.file_bytes != os.fstat(ingest.fd).st_size:
        raise Corrupt(f"layer {ingest.digest}: the file written is not the one described: {info}")
    with state.publishing:
        known = find(state, info.diff_id)
        if known is not None and known.path.exists():
            return known
        layer = _describe(state, info, disk_bytes(ingest.fd))
        try:
            with no_space(f"layer {info.diff_id}"):
                publish_file(ingest.path, layer.path, state.db.lock, "layer")
            with state.db.lock:
                state.db.transact(lambda connection: record(connection, [layer]), durable=False)
                if known is None:
                    state.budget.totals.add_layer(layer.disk_bytes)
        except BaseException:
            layer.path.unlink(missing_ok=True)  # a failed publish leaves nothing
            raise
        ingest.published = True
    ingest.written = 0
    point("layer.recorded")
    return layer


def record(connection: sqlite3.Connection, layers: Iterable[Layer]) -> None:
    """Write rows; a DiffID that has one keeps it."""
    for layer in layers:
        sizes = (layer.tar_bytes, layer.file_bytes, layer.disk_bytes, layer.entries)
        sealed = (str(layer.diff_id), *sizes, layer.created)
        schema.insert(connection, "layers", sealed, layer.last_used)
    point("layer.inserted")


def use(connection: sqlite3.Connection, diff_ids: Sequence[Digest], now: float) -> None:
    """An image came to use these layers."""
    connection.executemany(
        "UPDATE layers SET last_used = ? WHERE diff_id = ?", [(now, str(diff_id)) for diff_id in diff_ids]
    )


def _describe(state: State, info: LayerInfo, allocated: int) -> Layer:
    now = state.clock()
    path = state.layout.layer(info.diff_id)
    return Layer(info.diff_id, path, info.tar_bytes, info.file_bytes, allocated, info.entries, now, now)


def _layer(layout: Layout, row: Row) -> Layer:
    diff_id = Digest(row[0])
    return Layer(diff_id, layout.layer(diff_id), *row[1:])
