"""Garbage collection done: take the inventory, plan, delete rows, then files.

Deciding and deleting rows happen under the store's lock; a lease that comes in between makes gc decide again.
Rows go first and durably; then files leave their names by a rename into ``ingest/``; the slow unlinking needs
no lock. A crash in between leaves files without rows, which the next open adopts or deletes.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagecached.errors import OutOfSpace
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import gc, images, ledger, pins
from imagecached.store.files import scan, take_away, unlink_all
from imagecached.store.holds import Contested
from imagecached.store.points import point
from imagecached.store.records import GcReport, Pin
from imagecached.store.state import State

log = logging.getLogger(__name__)

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def collect(state: State, *, dry_run: bool = False, grace_seconds: float = 0.0) -> GcReport:
    """Remove what nothing keeps; past the high watermark images too. ``dry_run``: only report.

    Below the watermark, layers of no image stay for ``grace_seconds`` after their last use: a pull that
    failed is often tried again.
    """
    with state.db.lock:
        want = state.budget.excess()
        grace = 0.0 if want else grace_seconds
        if dry_run:
            return _decide(state, 0, want, grace).report
        report, trash = _reclaim(state, 0, want, grace)
    _finish(state, trash)
    return report


def make_room(state: State, more: int) -> GcReport:
    """Free what ``more`` further bytes need, and then down to the low watermark.

    OutOfSpace, evicting nothing, if that is not enough.
    """
    with state.db.lock:
        need = state.budget.shortage(more)
        if not need:
            return GcReport()
        report, trash = _reclaim(state, need, max(need, state.budget.excess(more)))
        _finish(state, trash)
        if state.budget.shortage(more):
            raise OutOfSpace(_figures(state, more))
    return report


def known_elsewhere(state: State, more: int = 0) -> tuple[str, ...]:
    """Images that would go for ``more`` bytes, or to get below the low watermark, if the runtime let go of
    what it only knows and does not use. Empty if nothing need go, or if it would not be enough.
    """
    with state.db.lock:
        need = state.budget.shortage(more)
        want = max(need, state.budget.excess(more))
        if not want or (more and not need):
            return ()
        plan = gc.plan(take_inventory(state, let_go=True), want=want)
        return plan.images if plan.freed_bytes >= need else ()


def take_inventory(state: State, grace_seconds: float = 0.0, *, let_go: bool = False) -> gc.Inventory:
    """What there is and what is wanted of it, as of now; the caller holds the store's lock.

    ``let_go``: as it would be if the runtime knew no image of ours but those it uses.
    """
    wanted = pins.every(state)
    yielding = _yielding(state)
    kept = {Digest(pin.value) for pin in wanted if pin.kind != "image"}
    kept |= ledger.kept(state) - (_idle(state) if let_go else frozenset())
    kept |= state.holds.digests()  # before the mounts: each is leased until it is seen
    for in_use in state.in_use:
        kept |= in_use()
    since = state.clock() - grace_seconds
    rows = state.db.survey("SELECT diff_id, disk_bytes, last_used FROM layers")
    kept |= {Digest(diff_id) for diff_id, _, last_used in rows if last_used > since}
    return gc.Inventory(
        layers={Digest(diff_id): disk_bytes for diff_id, disk_bytes, _ in rows},
        snapshots=dict(_links(state)),
        images=list(_candidates(state, _last_uses(wanted, yielding))),
        pinned=frozenset(pin.value for pin in wanted if pin.kind == "image" and pin.owner not in yielding),
        kept=frozenset(kept),
    )


def orphans(state: State, inventory: gc.Inventory) -> list[tuple[Digest | None, Path]]:
    """Files below ``layers/`` and ``seams/`` that belong to no row and to nothing under way."""
    seams = {chain_id for chain_id, link in inventory.snapshots.items() if link.seam_bytes is not None}
    found = []
    for base, known in ((state.layout.layers, inventory.layers.keys()), (state.layout.seams, seams)):
        for digest, path in scan(state.layout, base):
            if digest is None or (digest not in known and digest not in inventory.kept):
                found.append((digest, Path(path)))
    return sorted(found, key=lambda pair: pair[1])


@dataclass(frozen=True, slots=True)
class _Decision:
    report: GcReport
    files: tuple[Path, ...]
    doomed: frozenset[Digest]


def _idle(state: State) -> frozenset[Digest]:
    """Chains of our own images that stand below nothing of the runtime's that may be mounted."""
    ours = state.db.survey("SELECT diff_ids FROM images")
    chains = {
        chain_id for (text,) in ours for chain_id in chain_ids([Digest(one) for one in text.split(" ")])
    }
    return frozenset(chains) - ledger.needed(state)


def _links(state: State) -> Iterator[tuple[Digest, gc.Link]]:
    rows = state.db.survey(
        "SELECT chain_id, parent, diff_id, iif(seam_digest IS NULL, NULL, seam_bytes) FROM snapshots"
    )
    for chain_id, parent, diff_id, seam_bytes in rows:
        yield (
            Digest(chain_id),
            gc.Link(None if parent is None else Digest(parent), Digest(diff_id), seam_bytes),
        )


def _yielding(state: State) -> dict[str, float]:
    """Owners that give way, and when each was last used."""
    return {owner: used for ask in state.yielding for owner, used in ask().items()}


def _last_uses(wanted: Iterable[Pin], yielding: Mapping[str, float]) -> dict[str, float]:
    """Image name → last use of the owner that used it last, for images that yielding owners have pinned."""
    uses: dict[str, float] = {}
    for pin in wanted:
        if pin.kind == "image" and pin.owner in yielding:
            uses[pin.value] = max(uses.get(pin.value, 0.0), yielding[pin.owner])
    return uses


def _candidates(state: State, owners_use: Mapping[str, float]) -> Iterator[gc.Candidate]:
    for name, chain_id, diff_ids, last_used in state.db.survey(
        "SELECT name, chain_id, diff_ids, last_used FROM images"
    ):
        used = owners_use.get(name, max(last_used, state.touched.get(name, 0.0)))
        layers = tuple(map(Digest, diff_ids.split(" ")))
        yield gc.Candidate(name, Digest(chain_id), layers, used, name in owners_use)


def _decide(state: State, need: int, want: int, grace_seconds: float = 0.0) -> _Decision:
    """What will be done. Nothing is evicted where it would not satisfy ``need``."""
    inventory = take_inventory(state, grace_seconds)
    plan = gc.plan(inventory, want=want)
    if plan.freed_bytes < need:
        plan = gc.plan(inventory)
    strays = orphans(state, inventory)
    root = state.layout.root
    report = GcReport(
        images=plan.images,
        snapshots=plan.snapshots,
        seams=plan.seams,
        layers=plan.layers,
        orphans=tuple(str(path.relative_to(root)) for _, path in strays),
        freed_bytes=plan.freed_bytes,
        owners=_owners(state, plan.images),
    )
    stray_files = (path for _, path in strays)
    files = (*map(state.layout.seam, plan.seams), *map(state.layout.layer, plan.layers), *stray_files)
    stray_digests = (digest for digest, _ in strays if digest is not None)
    return _Decision(report, files, frozenset((*plan.snapshots, *plan.layers, *stray_digests)))


def _owners(state: State, evicted: Iterable[str]) -> tuple[str, ...]:
    """Who has pinned an image that goes nevertheless."""
    gone = frozenset(evicted)
    wanted = pins.every(state) if gone else ()
    return tuple(sorted({pin.owner for pin in wanted if pin.kind == "image" and pin.value in gone}))


def _reclaim(state: State, need: int, want: int, grace_seconds: float = 0.0) -> tuple[GcReport, list[Path]]:
    """Decide and do it, again if a lease came in between; the files are left in the trash."""
    while True:
        state.holds.observe()
        decision = _decide(state, need, want, grace_seconds)
        point("gc.planned")
        try:
            return decision.report, _apply(state, decision)
        except Contested:
            log.debug("gc plans again", extra={"root": str(state.layout.root)})


def _apply(state: State, decision: _Decision) -> list[Path]:
    """Delete the rows, then the names."""
    report = decision.report

    def body(connection: sqlite3.Connection) -> None:
        images.flush(state, connection)
        connection.execute("PRAGMA defer_foreign_keys = ON")
        for statement, keys in (
            ("DELETE FROM images WHERE name = ?", report.images),
            ("DELETE FROM snapshots WHERE chain_id = ?", report.snapshots),
            ("DELETE FROM layers WHERE diff_id = ?", report.layers),
            ("DELETE FROM pins WHERE owner = ?", report.owners),
        ):
            connection.executemany(statement, [(str(key),) for key in keys])
        if report.images:
            images.sweep_documents(connection)
        point("gc.deleted")

    state.db.shrink(body, lambda: state.holds.settled(decision.doomed))
    point("gc.committed")
    state.refresh()
    return [trash for path in decision.files if (trash := _trashed(state, path)) is not None]


def _trashed(state: State, path: Path) -> Path | None:
    trash = take_away(state.layout, path)
    point("gc.trashed")
    return trash


def _finish(state: State, trash: list[Path]) -> None:
    for path in trash:
        unlink_all([path])
        point("gc.unlinked")
    state.root.take_ballast()


def _figures(state: State, more: int) -> str:
    budget, policy = state.budget, state.budget.policy
    quota = f"a quota of {_size(policy.quota_bytes)}" if policy.quota_bytes else "no quota"
    return (
        f"no room for {_size(more)} more below {budget.root}: {_size(budget.used())} used with {quota}, "
        f"{_size(budget.free())} free on the disk of which {_size(policy.free_bytes)} stay free, "
        "and evicting every image that may go is not enough"
    )


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == _UNITS[0] else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} {_UNITS[-1]}"
