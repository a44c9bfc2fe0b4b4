"""What there is and what is wanted → the steps in between. Pure.

The order makes a crash between any two steps harmless: blobs, then the chain, then the records that make it
all visible; what was made before hangs on a lease that expires. Invariants: a record that others made is
never given another target or deleted as ours: it is pinned, and marked as pinned by us; planning again after
the steps gives none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from imagecached.containerd.nouns import ImageRecord, Target
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.registration.wanted import (
    MADE,
    MANAGED,
    MANIFEST,
    OWNER,
    PART,
    PINNED,
    PINNED_ONLY,
    Blob,
    Wanted,
    is_image_name,
    is_wanted,
    lacking,
    with_source,
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What containerd holds: labels of the blobs by digest, whether the whole chain, records by name."""

    blobs: Mapping[str, Mapping[str, str]]
    chain: bool
    records: Mapping[str, ImageRecord]


@dataclass(frozen=True, slots=True)
class PutBlob:
    """Write a document with these labels."""

    blob: Blob
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LabelBlob:
    """Set these labels of a document."""

    digest: Digest
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MakeChain:
    """Let the snapshotter's prepared chain be known, bottom up."""

    chain: tuple[Digest, ...]


@dataclass(frozen=True, slots=True)
class CreateRecord:
    """Make a record."""

    record: ImageRecord


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """Give a record of ours its target and labels again."""

    record: ImageRecord


@dataclass(frozen=True, slots=True)
class LabelRecord:
    """Set these labels of a record, remove those with an empty value."""

    record: ImageRecord
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """Remove a record."""

    name: str


Step = PutBlob | LabelBlob | MakeChain | CreateRecord | ChangeRecord | LabelRecord | DeleteRecord


def steps(wanted: Wanted, facts: Facts, owner: str) -> tuple[Step, ...]:
    """What is missing, in the order to make it. ``owner``: the snapshotter's name."""
    records = (
        _record(name, target, facts.records.get(name), wanted.manifest_digest, owner)
        for name, target in wanted.records.items()
    )
    chain = () if facts.chain else (MakeChain(wanted.chain),)
    return (*_blobs(wanted, facts), *chain, *(step for step in records if step is not None))


def _blobs(wanted: Wanted, facts: Facts) -> Iterator[Step]:
    for blob in wanted.blobs:
        found = facts.blobs.get(blob.digest)
        labels = lacking(found or {}, blob.labels) | with_source(found or {}, blob.source)
        if found is None:
            yield PutBlob(blob, labels)
        elif labels:
            yield LabelBlob(blob.digest, labels)


def _record(
    name: str, target: Descriptor, found: ImageRecord | None, manifest: Digest, owner: str
) -> Step | None:
    ours = {OWNER: owner, MANIFEST: str(manifest)}
    made = dict((MANAGED, PINNED)) | ours | {PART: MADE}
    record = ImageRecord(name, Target(target.media_type, str(target.digest), target.size), made)
    if found is None:
        return CreateRecord(record)
    if not is_image_name(name):
        return _label_id(found, made)
    if is_made_by(found, owner):
        same = found.target.digest == target.digest and not lacking(found.labels, made)
        return None if same else ChangeRecord(record)
    if found.target.digest != target.digest:
        return None  # somebody's newer, or older, image of this tag
    return _pin(found, ours)


def _label_id(found: ImageRecord, made: Mapping[str, str]) -> Step | None:
    """The record of a config's digest. Images that differ in compression only share it: the one that came
    first decides what it points at, or each would take it from the other for ever.
    """
    if not is_made_by(found, made[OWNER]):
        return _pin(found, {key: made[key] for key in (OWNER, MANIFEST)})
    labels = lacking(found.labels, dict((MANAGED, PINNED)))
    return LabelRecord(found, labels) if labels else None


def _pin(found: ImageRecord, ours: Mapping[str, str]) -> Step | None:
    """Pin a record of others, unless they did it themselves."""
    if found.labels.get(PINNED[0]) == PINNED[1] and (
        OWNER not in found.labels or not is_image_name(found.name)
    ):
        return None
    labels = lacking(found.labels, dict((PINNED,)) | dict(ours) | {PART: PINNED_ONLY})
    return LabelRecord(found, labels) if labels else None


def is_made_by(record: ImageRecord, owner: str) -> bool:
    """Whether the record is ours."""
    return record.labels.get(OWNER) == owner and record.labels.get(PART) == MADE


def is_kept_by(record: ImageRecord, owner: str) -> bool:
    """Whether the record, or its pin, is ours."""
    return record.labels.get(OWNER) == owner


def undo(
    records: Sequence[ImageRecord], owner: str, *, names: Collection[str], manifests: Collection[str]
) -> tuple[Step, ...]:
    """What to do with records that belong to no image of the store any more.

    ``names`` and ``manifests``: of the images that stay. Names go first, so that nobody finds an image by
    name that is about to lose what it stands for.
    """
    going = [
        record
        for record in records
        if is_kept_by(record, owner) and not is_wanted(record.name, record.labels, names, manifests)
    ]
    staying = [record for record in records if record not in going]
    return tuple(_undone(record, staying, owner) for record in sorted(going, key=_names_first))


def _names_first(record: ImageRecord) -> tuple[bool, str]:
    return not is_image_name(record.name), record.name


def _undone(record: ImageRecord, staying: Sequence[ImageRecord], owner: str) -> Step:
    """Ours is deleted, others' is unpinned; the record of a config's digest stays for those who pulled the
    image themselves.
    """
    used = not is_image_name(record.name) and any(
        other.target.digest == record.target.digest and is_image_name(other.name) for other in staying
    )
    if is_made_by(record, owner) and not used:
        return DeleteRecord(record.name)
    return LabelRecord(record, dict.fromkeys((PINNED[0], OWNER, PART, MANIFEST), ""))


def withdrawal(
    records: Sequence[ImageRecord], owner: str, manifest: Digest, *, has_layers: bool
) -> tuple[Step, ...]:
    """What to do where the chain cannot be had: no record may claim that the image is there.

    Others' records of the image stay, unpinned, only if the blobs of the layers are there (``has_layers``),
    so that containerd can unpack them.
    """
    ours = [
        record for record in records if is_kept_by(record, owner) and record.labels.get(MANIFEST) == manifest
    ]
    targets = {record.target.digest for record in ours}
    staying = [record for record in records if record not in ours]
    if has_layers:
        return tuple(_undone(record, staying, owner) for record in sorted(ours, key=_names_first))
    doomed = (record for record in records if record in ours or record.target.digest in targets)
    return tuple(DeleteRecord(record.name) for record in sorted(doomed, key=_names_first))
