"""Acting on what fsck found: take away what is wrong, rebuild what can be rebuilt, leave the rest to the next
pull.

A corrupt file leaves its name before its row goes: were it the other way round, a crash in between would have
the file adopted again. Images that lose a layer read as damaged from then on. Running containers keep the
file they have open.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence, Set
from dataclasses import replace
from pathlib import Path

from imagecached.oci.digest import Digest
from imagecached.store import collect, images, recovery, snapshots
from imagecached.store.files import sync_directory, take_away, unlink_all
from imagecached.store.points import point
from imagecached.store.records import Finding
from imagecached.store.state import State

log = logging.getLogger(__name__)


def put_right(state: State, findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Repair every finding; the same findings, marked as repaired where that was possible, and the images
    damaged by it.
    """
    before = images.damaged(state)
    with state.db.lock:
        still_true = _still_true(state, findings)
        trash = _quarantine(state, still_true)
        _delete_rows(state, still_true)
    unlink_all(trash)
    state.refresh()
    still = recovery.mend(state)
    point("fsck.mended")
    log.warning("store repaired", extra={"findings": len(findings), "damaged": list(still)})
    text = "a layer was dropped; the next pull fetches it again"
    return (
        *(replace(finding, repaired=_is_repaired(finding, still)) for finding in findings),
        *(Finding("image_damaged", name, text) for name in sorted(set(still) - before)),
    )


def _still_true(state: State, findings: Iterable[Finding]) -> list[Finding]:
    """The findings that nobody has put right since: the store was in use while it was checked."""
    strays = {path for _, path in collect.orphans(state, collect.take_inventory(state))}
    return [finding for finding in findings if _is_still_true(state, finding, strays)]


def _is_still_true(state: State, finding: Finding, strays: Set[Path]) -> bool:
    path = _file(state, finding)
    match finding.kind:
        case "layer_corrupt" | "seam_corrupt":
            return path is not None and path.exists() and path.stat().st_ino == finding.inode
        case "layer_missing" | "seam_missing":
            return path is not None and not path.exists()
        case "layer_orphan" | "seam_orphan":
            return path in strays
        case "document_corrupt":
            return Digest(finding.subject) in images.corrupt_documents(state)
    return True


def _quarantine(state: State, findings: Iterable[Finding]) -> list[Path]:
    """Move the files away, durably."""
    trash = []
    for path in (_file(state, finding) for finding in findings):
        if path is not None and (moved := take_away(state.layout, path)) is not None:
            sync_directory(path.parent)
            trash.append(moved)
            point("fsck.quarantined")
    return trash


def _delete_rows(state: State, findings: Sequence[Finding]) -> None:
    diff_ids = _subjects(findings, "layer_corrupt", "layer_missing")
    chains = _subjects(findings, "seam_corrupt", "seam_missing", "snapshot_invalid")
    documents = _subjects(findings, "document_corrupt")

    def body(connection: sqlite3.Connection) -> set[Digest]:
        dropped = snapshots.drop(connection, diff_ids=diff_ids, chain_ids=chains)
        connection.executemany(
            "DELETE FROM layers WHERE diff_id = ?", [(str(diff_id),) for diff_id in diff_ids]
        )
        connection.executemany(
            "DELETE FROM documents WHERE digest = ?", [(str(digest),) for digest in documents]
        )
        return dropped

    dropped = state.db.shrink(body)
    point("fsck.committed")
    unlink_all(map(state.layout.seam, dropped))


def _file(state: State, finding: Finding) -> Path | None:
    match finding.kind:
        case "layer_corrupt" | "layer_missing":
            return state.layout.layer(Digest(finding.subject))
        case "seam_corrupt" | "seam_missing":
            return state.layout.seam(Digest(finding.subject))
        case "layer_orphan" | "seam_orphan":
            return state.layout.root / finding.subject
    return None


def _subjects(findings: Iterable[Finding], *kinds: str) -> list[Digest]:
    return [Digest(finding.subject) for finding in findings if finding.kind in kinds]


def _is_repaired(finding: Finding, still_damaged: Sequence[str]) -> bool:
    return finding.kind != "image_damaged" or finding.subject not in still_damaged
