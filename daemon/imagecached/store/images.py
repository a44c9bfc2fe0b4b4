"""Images: names, what they resolved to, and their documents verbatim.

Whether an image is damaged is not stored: it is damaged when its snapshot or one of its documents is missing,
so it mends itself as soon as they are back. Invariants: a name is a canonical reference; an image's snapshot,
its parents and their seams are recorded in the one transaction that records the image.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from imagecached.errors import FailedPrecondition, InvalidInput, NotFound, Unsupported
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference
from imagecached.store import layers, pins, schema, snapshots
from imagecached.store.db import Row
from imagecached.store.points import point
from imagecached.store.records import Image, ImageRecord, Snapshot
from imagecached.store.state import State

_FACTS = """
    i.name, i.target_type, i.target_digest, i.target_size, i.manifest_digest, i.platform, i.diff_ids,
    i.chain_id, i.created, i.last_used, s.disk_bytes
"""
_SELECT = f"SELECT {_FACTS} FROM images i LEFT JOIN snapshots s USING (chain_id)"  # noqa: S608 our own columns
_RECORD = f"""
    SELECT {_FACTS}, i.manifest_document, m.data, i.config_document, c.data, i.index_document, x.data
    FROM images i
    LEFT JOIN snapshots s USING (chain_id)
    LEFT JOIN documents m ON m.digest = i.manifest_document
    LEFT JOIN documents c ON c.digest = i.config_document
    LEFT JOIN documents x ON x.digest = i.index_document
    WHERE i.name = ?
"""  # noqa: S608 our own columns
_DAMAGED = """
    SELECT name FROM images
    WHERE chain_id NOT IN (SELECT chain_id FROM snapshots)
       OR manifest_document NOT IN (SELECT digest FROM documents)
       OR config_document NOT IN (SELECT digest FROM documents)
       OR index_document NOT IN (SELECT digest FROM documents)
"""
_SWEEP_DOCUMENTS = """
    DELETE FROM documents WHERE digest NOT IN (
      SELECT manifest_document FROM images
      UNION SELECT config_document FROM images
      UNION SELECT index_document FROM images WHERE index_document IS NOT NULL
    )
"""


def find(state: State, name: str) -> ImageRecord | None:
    """The image under this canonical name, its documents checked against their digests."""
    rows = state.db.read(_RECORD, name)
    if not rows:
        return None
    facts, documents = rows[0][:11], rows[0][11:]
    manifest, config, index = (_document(*documents[at : at + 2]) for at in (0, 2, 4))
    image = _image(state, facts, whole=bool(manifest) and bool(config) and index != b"")
    return ImageRecord(**image, manifest=manifest or b"", config=config or b"", index=index)


def every(state: State) -> tuple[Image, ...]:
    """All images, by name, without their documents."""
    bad = damaged(state)
    rows = state.db.read(f"{_SELECT} ORDER BY i.name")
    return tuple(Image(**_image(state, row, whole=row[0] not in bad)) for row in rows)


def damaged(state: State) -> frozenset[str]:
    """The names of images that lack their snapshot or a document. What a document says is not looked at."""
    return frozenset(name for (name,) in state.db.read(_DAMAGED))


def corrupt_documents(state: State) -> list[Digest]:
    """Documents whose bytes no longer have their digest."""
    rows = state.db.survey("SELECT digest, data FROM documents")
    return [Digest(digest) for digest, data in rows if Digest.of(data) != digest]


def put(state: State, record: ImageRecord) -> Snapshot:
    """Record an image, replacing what its name stood for, with a snapshot (and seam) for every prefix of its
    layers.

    FailedPrecondition if a layer is missing, Corrupt if a document is not what its digest says, OutOfSpace.
    """
    _check(record)
    with state.hold(f"image {record.name}", needs(record)):
        make_whole(state, record.diff_ids, record)
    point("image.recorded")
    made = snapshots.find(state, record.chain_id)
    assert made is not None
    return made


def put_chain(state: State, diff_ids: Sequence[Digest]) -> None:
    """A snapshot (and seam) for every prefix of these layers, in one transaction. FailedPrecondition if one
    is missing, OutOfSpace.
    """
    with state.hold("chain", {*diff_ids, *chain_ids(diff_ids)}):
        make_whole(state, diff_ids)
    point("chain.recorded")


def needs(image: Image) -> set[Digest]:
    """The layers and snapshots that an image is made of."""
    return {*image.diff_ids, *chain_ids(image.diff_ids)}


def make_whole(state: State, diff_ids: Sequence[Digest], record: ImageRecord | None = None) -> None:
    """Build what is missing of the chain, then write its rows and the image's in one transaction. The caller
    holds the chain.
    """

    def write(connection: sqlite3.Connection) -> None:
        now = state.clock()
        snapshots.record(connection, needed, now)
        if record is not None:
            _insert(connection, record, now)
            layers.use(connection, diff_ids, now)
        point("image.inserted")

    with snapshots.prepared(state, diff_ids) as fresh, snapshots.published(state, fresh) as needed:
        state.db.transact(write)
    state.refresh()


def remove(state: State, name: str) -> None:
    """Forget a name; its files stay until gc. NotFound; FailedPrecondition names who has it pinned."""

    def body(connection: sqlite3.Connection) -> None:
        owners = pins.owners_of_image(connection, name)
        if owners:
            raise FailedPrecondition(f"image {name} is pinned by {', '.join(owners)}")
        if connection.execute("DELETE FROM images WHERE name = ?", (name,)).rowcount == 0:
            raise NotFound(f"no image {name}")
        sweep_documents(connection)
        point("image.deleted")

    state.db.shrink(body)
    point("image.removed")
    state.touched.pop(name, None)
    state.refresh()


def touch(state: State, name: str) -> None:
    """Note that an image is used now; written with the next change that needs to know."""
    state.touched[name] = state.clock()


def flush(state: State, connection: sqlite3.Connection) -> None:
    """Write the uses noted by :func:`touch`."""
    noted = [(when, name) for name, when in tuple(state.touched.items())]
    connection.executemany("UPDATE images SET last_used = max(last_used, ?) WHERE name = ?", noted)


def sweep_documents(connection: sqlite3.Connection) -> None:
    """Delete documents that no image refers to."""
    connection.execute(_SWEEP_DOCUMENTS)


def _insert(connection: sqlite3.Connection, record: ImageRecord, now: float) -> None:
    created = connection.execute("SELECT created FROM images WHERE name = ?", (record.name,)).fetchone()
    keys = [_keep(connection, data) for data in (record.manifest, record.config, record.index)]
    connection.execute("DELETE FROM images WHERE name = ?", (record.name,))
    sealed = (
        record.name, record.target.media_type, str(record.target.digest), record.target.size,
        str(record.manifest_digest), str(record.platform), " ".join(record.diff_ids), str(record.chain_id),
        *keys, created[0] if created else now,
    )  # fmt: skip
    schema.insert(connection, "images", sealed, now)
    if created:
        sweep_documents(connection)


def _keep(connection: sqlite3.Connection, data: bytes | None) -> str | None:
    if data is None:
        return None
    digest = str(Digest.of(data))
    connection.execute(
        "INSERT INTO documents VALUES (?, ?) ON CONFLICT DO UPDATE SET data = excluded.data", (digest, data)
    )
    return digest


def _document(digest: str | None, data: bytes | None) -> bytes | None:
    """The document if its bytes still have this digest, ``b""`` if not; None if there is none."""
    if digest is None:
        return None
    return data if data is not None and Digest.of(data) == digest else b""


def _check(record: ImageRecord) -> None:
    if str(Reference.parse(record.name)) != record.name:
        raise InvalidInput(f"not a canonical reference: {record.name!r}")
    if not record.diff_ids:
        raise Unsupported(f"image {record.name} has no layers, so there is nothing to mount")
    if chain_ids(record.diff_ids)[-1] != record.chain_id:
        raise InvalidInput(f"image {record.name}: {record.chain_id} is not the ChainID of its layers")
    record.manifest_digest.verify(record.manifest, f"manifest of {record.name}")
    record.target.digest.verify(
        record.manifest if record.index is None else record.index, f"target of {record.name}"
    )


def _image(state: State, row: Row, *, whole: bool) -> dict[str, Any]:
    name, media_type, target, size, manifest, platform, diff_ids, chain_id, created, last_used, total = row
    return {
        "name": name,
        "target": Descriptor(media_type, Digest(target), size),
        "manifest_digest": Digest(manifest),
        "platform": Platform.parse(platform),
        "diff_ids": tuple(map(Digest, diff_ids.split(" "))),
        "chain_id": Digest(chain_id),
        "created": created,
        "last_used": max(last_used, state.touched.get(name, 0.0)),
        "disk_bytes": total or 0,
        "damaged": total is None or not whole,
    }
