"""A containerd of values: what the steps of a plan do to it, and images to register there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from imagecached.containerd.nouns import ImageRecord, Target
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.platform import Platform
from imagecached.registration import plan
from imagecached.registration.plan import Facts, Step
from imagecached.registration.wanted import Wanted
from imagecached.store import ImageRecord as StoredImage

OWNER = "imagecached"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


def stored(name: str, *, layers: int = 2, salt: str = "", index: bool = True) -> StoredImage:
    """An image as the store has it; equal ``salt`` gives equal content."""
    diff_ids = tuple(Digest.of(f"{salt}{number}".encode()) for number in range(layers))
    config = json.dumps({"salt": salt}).encode()
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": _blob("application/vnd.oci.image.config.v1+json", config),
            "layers": [
                _blob("application/vnd.oci.image.layer.v1.tar", diff_id.encode()) for diff_id in diff_ids
            ],
        }
    )
    manifest_digest = Digest.of(manifest)
    listing = _json(
        {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [_blob(MANIFEST_TYPE, manifest)]}
    )
    target = listing if index else manifest
    return StoredImage(
        name=name,
        target=Descriptor(INDEX_TYPE if index else MANIFEST_TYPE, Digest.of(target), len(target)),
        manifest_digest=manifest_digest,
        platform=Platform("linux", "amd64"),
        diff_ids=diff_ids,
        chain_id=chain_ids(diff_ids)[-1],
        manifest=manifest,
        config=config,
        index=listing if index else None,
    )


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _blob(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": Digest.of(data), "size": len(data)}


@dataclass
class Model:
    """What one namespace holds."""

    blobs: dict[str, dict[str, str]] = field(default_factory=dict)
    chains: set[str] = field(default_factory=set)
    records: dict[str, ImageRecord] = field(default_factory=dict)

    def facts(self, wanted: Wanted) -> Facts:
        """What a look at one image finds."""
        return Facts(
            {blob.digest: self.blobs[blob.digest] for blob in wanted.blobs if blob.digest in self.blobs},
            wanted.chain[-1] in self.chains,
            {name: self.records[name] for name in wanted.records if name in self.records},
        )

    def missing(self, wanted: Wanted) -> tuple[Step, ...]:
        """The plan for one image."""
        return plan.steps(wanted, self.facts(wanted), OWNER)

    def settle(self, wanted: Wanted) -> None:
        """Take the plan's steps."""
        self.take(self.missing(wanted))

    def take(self, steps: Iterable[Step]) -> None:
        """What containerd makes of these steps."""
        for step in steps:
            match step:
                case plan.PutBlob(blob, labels):
                    self.blobs[blob.digest] = dict(labels)
                case plan.LabelBlob(digest, labels):
                    self.blobs[digest] |= labels
                case plan.MakeChain(chain):
                    self.chains.update(chain)
                case plan.CreateRecord(record):
                    assert record.name not in self.records
                    self.records[record.name] = record
                case plan.ChangeRecord(record):
                    kept = self.records[record.name].labels
                    self.records[record.name] = ImageRecord(
                        record.name, record.target, {**kept, **record.labels}
                    )
                case plan.LabelRecord(record, labels):
                    found = self.records[record.name]
                    merged = {**found.labels, **labels}
                    given = {key: value for key, value in merged.items() if value}
                    self.records[record.name] = ImageRecord(record.name, found.target, given)
                case plan.DeleteRecord(name):
                    del self.records[name]

    def pulled(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> None:
        """Somebody else's pull: it replaces a record with all its labels."""
        record = ImageRecord(
            name, Target(target.media_type, str(target.digest), target.size), dict(labels or {})
        )
        self.records[name] = record
