"""Opening a root: claim, clear what a crash left, check the database or make a new one, match files and rows.

Rules: what is in ``ingest/`` was never visible and goes. A layer file without row is adopted if its header is
whole (it was renamed only after its data was durable), else it goes. A row without file goes, with the
snapshots above it; images that lose their snapshot read as damaged. Seams without row go, they are built
again when needed. A corrupt database is moved aside, never deleted, and the layers are recorded again from
their own headers; the names of images are lost. One scan of the folders, no stat per file.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from imagecached.errors import Corrupt, ImagecachedError
from imagecached.layers.layerfile import read_header
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, snapshots
from imagecached.store.budget import Budget
from imagecached.store.db import Database
from imagecached.store.files import disk_bytes, empty_directory, scan, sync_directory
from imagecached.store.holds import Holds
from imagecached.store.layout import Layout
from imagecached.store.points import point
from imagecached.store.records import Layer, Recovery, StorePolicy
from imagecached.store.root import Root
from imagecached.store.state import State

log = logging.getLogger(__name__)

_SUPERBLOCK_OFFSET: Final = 1024
_SUPERBLOCK_MAGIC: Final = bytes.fromhex("e2e1f5e0")
_DATABASE_FILES: Final = (
    "-wal",
    "-shm",
    "",
)  # moved in this order: SQLite deletes the WAL of a database that is gone


def open_state(
    path: Path, policy: StorePolicy, clock: Callable[[], float] = time.time
) -> tuple[State, Recovery]:
    """Open the store at ``path`` and put right what was left wrong.

    FailedPrecondition: in use, foreign, or made by a newer version. OutOfSpace: not even room for an empty
    database.
    """
    root = Root(Layout(path))
    try:
        unfinished = empty_directory(root.layout.ingest)
        point("open.emptied")
        db, moved = _open_database(root)
    except BaseException:
        root.release()
        raise
    state = State(root, db, Budget(root.layout.root, policy), Holds(), clock=clock)
    try:
        state.make_room = partial(collect.make_room, state)
        found = _match(state)
        root.take_ballast()
    except BaseException:
        state.close()
        raise
    recovery = Recovery(unfinished, *found, corrupt_database=moved)
    _log(root.layout, recovery)
    return state, recovery


def mend(state: State) -> tuple[str, ...]:
    """Rebuild the snapshots of damaged images whose layers are all there; who is still damaged."""
    if not images.damaged(state):
        return ()
    for image in images.every(state):
        if not image.damaged:
            continue
        try:
            with state.hold(f"mend {image.name}", images.needs(image)):
                images.make_whole(state, image.diff_ids)
        except ImagecachedError as error:  # it stays damaged and is pulled again
            log.info("image stays damaged", extra={"image": image.name, "reason": str(error)})
    return tuple(sorted(images.damaged(state)))


def _open_database(root: Root) -> tuple[Database, Path | None]:
    """The database, checked; a corrupt one is moved aside (second value) and replaced by an empty one."""
    path = root.layout.database
    try:
        return _checked(Database(path, root.give_back)), None
    except Corrupt as error:
        reason = str(error)
    moved = _move_aside(root.layout)
    log.error("database corrupt, moved aside", extra={"database": str(moved), "reason": reason})
    point("open.moved")
    return _checked(Database(path, root.give_back)), moved


def _checked(db: Database) -> Database:
    try:
        db.prepare()
    except BaseException:
        with suppress(sqlite3.Error):
            db.close()
        raise
    return db


def _move_aside(layout: Layout) -> Path:
    number = 1
    while any(Path(f"{layout.corrupt_database(number)}{suffix}").exists() for suffix in _DATABASE_FILES):
        number += 1
    target = layout.corrupt_database(number)
    for suffix in _DATABASE_FILES:
        with suppress(FileNotFoundError):
            Path(f"{layout.database}{suffix}").rename(f"{target}{suffix}")
    sync_directory(layout.root)
    return target


def _match(state: State) -> tuple[tuple[Digest, ...], tuple[str, ...], tuple[Digest, ...], tuple[str, ...]]:
    """Make files and rows agree: adopted, removed, lost layers, damaged images."""
    files = {digest: path for digest, path in scan(state.layout, state.layout.layers) if digest is not None}
    seams = {digest: path for digest, path in scan(state.layout, state.layout.seams) if digest is not None}
    rows = {Digest(row[0]) for row in state.db.read("SELECT diff_id FROM layers")}
    adopted, removed = _adopt(state, sorted(files.keys() - rows))
    lost = tuple(sorted(rows - files.keys()))
    _drop(state, lost, seams.keys())
    removed += _remove_stray_seams(state, seams)
    state.refresh()
    return adopted, removed, lost, mend(state)


def _adopt(state: State, diff_ids: Iterable[Digest]) -> tuple[tuple[Digest, ...], tuple[str, ...]]:
    """Record layer files that have no row, or remove them: (adopted, removed)."""
    adopted: list[Layer] = []
    removed: list[str] = []
    for diff_id in diff_ids:
        path = state.layout.layer(diff_id)
        try:
            adopted.append(_described(state, path, diff_id))
        except Corrupt as error:
            log.warning("layer file without row removed", extra={"layer": diff_id, "reason": str(error)})
            path.unlink()
            removed.append(str(path.relative_to(state.layout.root)))
        except OSError as error:  # it may be readable the next time; until then nothing uses it
            log.warning("layer file without row unreadable", extra={"layer": diff_id, "reason": str(error)})
    if adopted:
        state.db.transact(lambda connection: layers.record(connection, adopted))
        point("open.adopted")
    return tuple(layer.diff_id for layer in adopted), tuple(removed)


def _described(state: State, path: Path, diff_id: Digest) -> Layer:
    """The row that a layer file's header calls for; Corrupt if the file is not whole or not this layer."""
    if path.is_symlink():
        raise Corrupt(f"{path}: a link is no layer file")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        header = read_header(fd)
        if header.diff_id != diff_id:
            raise Corrupt(f"{path}: the header names {header.diff_id}")
        if os.pread(fd, len(_SUPERBLOCK_MAGIC), _SUPERBLOCK_OFFSET) != _SUPERBLOCK_MAGIC:
            raise Corrupt(f"{path}: no superblock, it was never finished")
        size, now = os.fstat(fd).st_size, state.clock()
        return Layer(diff_id, path, header.tar_bytes, size, disk_bytes(fd), header.entries, now, now)
    finally:
        os.close(fd)


def _drop(state: State, lost: tuple[Digest, ...], seams: Iterable[Digest]) -> None:
    """Delete rows whose layer file or seam is gone, with the snapshots above them."""
    seamed = {
        Digest(row[0])
        for row in state.db.read("SELECT chain_id FROM snapshots WHERE seam_digest IS NOT NULL")
    }
    unseamed = seamed.difference(seams)
    if not lost and not unseamed:
        return

    def body(connection: sqlite3.Connection) -> None:
        snapshots.drop(connection, diff_ids=lost, chain_ids=unseamed)
        connection.executemany("DELETE FROM layers WHERE diff_id = ?", [(str(diff_id),) for diff_id in lost])

    state.db.shrink(body)
    point("open.dropped")


def _remove_stray_seams(state: State, seams: dict[Digest, str]) -> tuple[str, ...]:
    known = {
        Digest(row[0])
        for row in state.db.read("SELECT chain_id FROM snapshots WHERE seam_digest IS NOT NULL")
    }
    strays = [Path(path) for chain_id, path in sorted(seams.items()) if chain_id not in known]
    for path in strays:
        path.unlink()
    return tuple(str(path.relative_to(state.layout.root)) for path in strays)


def _log(layout: Layout, recovery: Recovery) -> None:
    if recovery == Recovery():
        return
    log.warning(
        "store recovered",
        extra={
            "root": str(layout.root),
            "unfinished": recovery.unfinished,
            "adopted": len(recovery.adopted),
            "removed": len(recovery.removed),
            "lost_layers": len(recovery.lost_layers),
            "damaged": list(recovery.damaged),
        },
    )
