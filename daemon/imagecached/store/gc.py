"""What may go: a pure plan over an inventory. Deletes nothing, reads nothing.

Kept are: images that are pinned, and everything named by a pin, a lease or a mount, with all below it. Other
images keep what they use until bytes are wanted; then they go in this order, and no more of them than needed:

    1. images whose pins all belong to owners that yield (automatic ImageCaches), by their owner's last use
    2. images that nobody has pinned, by their own last use
    of those used at the same time, the one that is cheapest to fetch again: the fewest bytes of its own

Snapshots, seams and layers that nothing keeps always go. Invariant: applying a plan and planning again gives
an empty plan.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from imagecached.oci.digest import Digest


@dataclass(frozen=True, slots=True)
class Link:
    """A snapshot as gc sees it; ``seam_bytes`` is None if it has no seam."""

    parent: Digest | None
    diff_id: Digest
    seam_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image as gc sees it. A damaged one has no snapshot, and still keeps the layers that are left.

    ``yields``: pinned, but only by owners that give way to others, ``last_used`` is then their last use.
    """

    name: str
    chain_id: Digest
    diff_ids: tuple[Digest, ...]
    last_used: float
    yields: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """What there is and what is wanted of it. ``kept``: DiffIDs and ChainIDs pinned, leased or mounted."""

    layers: Mapping[Digest, int]  # allocated bytes
    snapshots: Mapping[Digest, Link]
    images: Sequence[Candidate]
    pinned: frozenset[str] = frozenset()  # names
    kept: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes, images in the order of eviction. ``freed_bytes`` counts layer files and seams."""

    images: tuple[str, ...] = ()
    snapshots: tuple[Digest, ...] = ()
    seams: tuple[Digest, ...] = ()
    layers: tuple[Digest, ...] = ()
    freed_bytes: int = 0


@dataclass(slots=True)
class _References:
    """How many keepers each snapshot and layer has, and the bytes of those that have none."""

    inventory: Inventory
    snapshots: Counter[Digest] = field(default_factory=Counter)
    layers: Counter[Digest] = field(default_factory=Counter)
    unkept_bytes: int = 0

    def __post_init__(self) -> None:
        seams = sum(link.seam_bytes or 0 for link in self.inventory.snapshots.values())
        self.unkept_bytes = sum(self.inventory.layers.values()) + seams

    def add(self, keeper: _Keeper) -> None:
        for chain_id in keeper.snapshots:
            if not self.snapshots[chain_id]:
                self.unkept_bytes -= self.inventory.snapshots[chain_id].seam_bytes or 0
            self.snapshots[chain_id] += 1
        for diff_id in keeper.layers:
            if not self.layers[diff_id]:
                self.unkept_bytes -= self.inventory.layers[diff_id]
            self.layers[diff_id] += 1

    def own_bytes(self, keeper: _Keeper) -> int:
        """What nobody but ``keeper`` keeps: to be fetched again if it goes."""
        return sum(self.inventory.layers[diff_id] for diff_id in keeper.layers if self.layers[diff_id] == 1)

    def drop(self, keeper: _Keeper) -> None:
        for chain_id in keeper.snapshots:
            self.snapshots[chain_id] -= 1
            if not self.snapshots[chain_id]:
                self.unkept_bytes += self.inventory.snapshots[chain_id].seam_bytes or 0
        for diff_id in keeper.layers:
            self.layers[diff_id] -= 1
            if not self.layers[diff_id]:
                self.unkept_bytes += self.inventory.layers[diff_id]


@dataclass(frozen=True, slots=True)
class _Keeper:
    snapshots: tuple[Digest, ...]
    layers: frozenset[Digest]


def plan(inventory: Inventory, *, want: int = 0) -> Plan:
    """The least that frees ``want`` bytes: what nothing keeps, then images in the order above. It may free
    less if no more can go.
    """
    references = _References(inventory)
    for digest in inventory.kept:
        references.add(_kept_by(inventory, digest))
    evictable: list[tuple[Candidate, _Keeper]] = []
    for image in inventory.images:
        keeper = _used_by(inventory, image)
        references.add(keeper)
        if not _protected(inventory, image):
            evictable.append((image, keeper))
    evicted = _evict(references, evictable, want)
    return _outcome(inventory, references, evicted)


def _evict(references: _References, evictable: list[tuple[Candidate, _Keeper]], want: int) -> list[str]:
    evicted: list[tuple[Candidate, _Keeper]] = []
    order = {id(image): _order(image, references.own_bytes(keeper)) for image, keeper in evictable}
    for image, keeper in sorted(evictable, key=lambda pair: order[id(pair[0])]):
        if references.unkept_bytes >= want:
            break
        references.drop(keeper)
        evicted.append((image, keeper))
    return [image.name for image, _ in _without_needless(references, evicted, want)]


def _order(image: Candidate, own_bytes: int) -> tuple[bool, float, int, str]:
    return (not image.yields, image.last_used, own_bytes, image.name)


def _without_needless(
    references: _References, evicted: list[tuple[Candidate, _Keeper]], want: int
) -> list[tuple[Candidate, _Keeper]]:
    """Give back, most recently used first, what is not needed for ``want`` or frees nothing."""
    needed = []
    for image, keeper in reversed(evicted):
        before = references.unkept_bytes
        references.add(keeper)
        if references.unkept_bytes < min(want, before):
            references.drop(keeper)
            needed.append((image, keeper))
    return needed[::-1]


def _outcome(inventory: Inventory, references: _References, evicted: list[str]) -> Plan:
    snapshots = tuple(sorted(chain for chain in inventory.snapshots if not references.snapshots[chain]))
    seams = tuple(chain for chain in snapshots if inventory.snapshots[chain].seam_bytes is not None)
    layers = tuple(sorted(diff_id for diff_id in inventory.layers if not references.layers[diff_id]))
    return Plan(tuple(evicted), snapshots, seams, layers, references.unkept_bytes)


def _protected(inventory: Inventory, image: Candidate) -> bool:
    """Pinned by name, or its chain or each of its layers is in use."""
    return (
        image.name in inventory.pinned
        or image.chain_id in inventory.kept
        or all(diff_id in inventory.kept for diff_id in image.diff_ids)
    )


def _kept_by(inventory: Inventory, digest: Digest) -> _Keeper:
    """The lowest ChainID of a chain is its DiffID, so ``digest`` may be both."""
    chain = tuple(_chain(inventory, digest))
    layers = {inventory.snapshots[chain_id].diff_id for chain_id in chain} | {digest}
    return _Keeper(chain, _existing(inventory, layers))


def _used_by(inventory: Inventory, image: Candidate) -> _Keeper:
    return _Keeper(tuple(_chain(inventory, image.chain_id)), _existing(inventory, image.diff_ids))


def _existing(inventory: Inventory, diff_ids: Iterable[Digest]) -> frozenset[Digest]:
    return frozenset(diff_id for diff_id in diff_ids if diff_id in inventory.layers)


def _chain(inventory: Inventory, chain_id: Digest | None) -> Iterator[Digest]:
    while chain_id is not None and (link := inventory.snapshots.get(chain_id)) is not None:
        yield chain_id
        chain_id = link.parent
