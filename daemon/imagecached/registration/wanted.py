"""What containerd must hold of a prepared image, so that nobody ever has to pull it. Pure.

Names of records, blobs with the labels that garbage collection follows, the chain of snapshots. Keys of our
own are used where containerd's would clash with those of an ordinary pull of the same blob.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from imagecached.errors import Corrupt
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor, Index, Manifest
from imagecached.oci.parse import parse_manifest
from imagecached.oci.reference import Reference
from imagecached.store import Image, ImageRecord

Mode = Literal["handler", "default"]

MANAGED: Final = ("io.cri-containerd.image", "managed")
"""CRI takes the record for one of its own images."""
PINNED: Final = ("io.cri-containerd.pinned", "pinned")
"""The kubelet's garbage collection leaves the image alone."""
OWNER: Final = "imagecached.dev/snapshotter"
"""On records and leases: the name of the snapshotter whose daemon looks after them."""
PART: Final = "imagecached.dev/record"
"""What of a record is ours: all of it, or only the pin."""
MADE: Final = "made"
PINNED_ONLY: Final = "pinned"
MANIFEST: Final = "imagecached.dev/manifest"
"""The manifest of the image that a record is about."""

_SOURCE: Final = "containerd.io/distribution.source."
_REF_CONTENT: Final = "containerd.io/gc.ref.content."
_REF_SNAPSHOT: Final = "containerd.io/gc.ref.snapshot."
_UNPACKED: Final = "containerd.io/uncompressed"
_LABEL_BYTES: Final = 4096  # key and value together, by containerd's rule


@dataclass(frozen=True, slots=True)
class Blob:
    """A document, and the labels it must have at least. ``sources``: the repositories it can be had from,
    by the key of the label that lists them.
    """

    digest: Digest
    data: bytes = field(repr=False)
    labels: Mapping[str, str]
    source: tuple[str, str]


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer as the registry has it; ``ref`` is what containerd's own pulls call its ingest."""

    descriptor: Descriptor
    diff_id: Digest
    number: int
    source: tuple[str, str]

    @property
    def ref(self) -> str:
        return f"layer-{self.descriptor.digest}"

    @property
    def labels(self) -> dict[str, str]:
        return {_UNPACKED: str(self.diff_id), self.source[0]: self.source[1]}


@dataclass(frozen=True, slots=True)
class Wanted:
    """All of one image. ``records``: by name what it stands for, that of the config's digest first."""

    image: Reference
    manifest_digest: Digest
    blobs: tuple[Blob, ...]
    chain: tuple[Digest, ...]
    records: Mapping[str, Descriptor]
    layers: tuple[LayerBlob, ...]

    @property
    def layer_references(self) -> dict[str, str]:
        """Labels of the manifest that keep the layers' blobs."""
        return {f"{_REF_CONTENT}l.{layer.number}": str(layer.descriptor.digest) for layer in self.layers}


def wanted_of(image: ImageRecord, mode: Mode, snapshotter: str) -> Wanted:
    """What containerd must hold of ``image``. Corrupt if its documents are not those of an image."""
    manifest = parse_manifest(image.manifest)
    if not isinstance(manifest, Manifest) or len(manifest.layers) != len(image.diff_ids):
        raise Corrupt(f"image {image.name}: its manifest is not one of an image with its layers")
    reference = Reference.parse(image.name)
    chain, source = chain_ids(image.diff_ids), (f"{_SOURCE}{reference.registry}", reference.repository)
    itself = Descriptor(manifest.media_type, image.manifest_digest, len(image.manifest))
    index = image.index if _lists(image.index, image.manifest_digest) else None
    target = itself if index is None else image.target
    documents = [
        (manifest.config.digest, image.config, {f"{_REF_SNAPSHOT}{snapshotter}": str(chain[-1])}),
        (image.manifest_digest, image.manifest, {f"{_REF_CONTENT}config": str(manifest.config.digest)}),
    ]
    if index is not None:
        # Not `m.0`: a pull of all platforms means another manifest by it.
        key = f"{_REF_CONTENT}imagecached-{image.manifest_digest.hex[:12]}"
        documents.append((image.target.digest, index, {key: str(image.manifest_digest)}))
    records = {str(manifest.config.digest): target}
    for name in names_of(image, mode):
        records[name] = itself if name.endswith(f"@{itself.digest}") else target
    if target is itself:
        records.pop(str(reference.at(image.target.digest)), None)
        records[str(reference.at(itself.digest))] = itself
    return Wanted(
        image=reference,
        manifest_digest=image.manifest_digest,
        blobs=tuple(Blob(digest, data, labels, source) for digest, data, labels in documents),
        chain=chain,
        records=records,
        layers=tuple(
            LayerBlob(blob, diff_id, number, source)
            for number, (blob, diff_id) in enumerate(zip(manifest.layers, image.diff_ids, strict=True))
        ),
    )


def _lists(index: bytes | None, manifest: Digest) -> bool:
    """Whether the index leads to the manifest directly. Where further indexes lie between, which we do not
    keep, containerd could not follow it, so nobody must find the image by it.
    """
    if index is None:
        return False
    found = parse_manifest(index)
    return isinstance(found, Index) and any(entry.digest == manifest for entry in found.manifests)


def names_of(image: Image, mode: Mode) -> tuple[str, ...]:
    """The names that pods may give for ``image``, without the digest of its config.

    By the index's digest and by the manifest's, as both are in use; by tag only in default mode: in handler
    mode an ordinary pod that found the tag present would wait for ever for layers that nobody fetches.
    """
    reference = Reference.parse(image.name)
    digests = dict.fromkeys((image.target.digest, image.manifest_digest))
    names = [str(reference.at(digest)) for digest in digests]
    if mode == "default" and reference.digest is None:
        names.insert(0, str(reference))
    return tuple(names)


def names_of_all(images: Iterable[Image], mode: Mode) -> frozenset[str]:
    """The same for many."""
    return frozenset(name for image in images for name in names_of(image, mode))


def with_source(labels: Mapping[str, str], source: tuple[str, str]) -> dict[str, str]:
    """The label that lists the repositories of a blob with one more in it, where there is room."""
    key, repository = source
    known = [each for each in labels.get(key, "").split(",") if each]
    if repository in known:
        return {}
    value = ",".join([*known, repository])
    return {key: value} if len(key) + len(value) <= _LABEL_BYTES else {}


def lacking(has: Mapping[str, str], needs: Mapping[str, str]) -> dict[str, str]:
    """Of the labels ``needs`` those that are not there or say something else."""
    return {key: value for key, value in needs.items() if has.get(key) != value}


def is_image_name(name: str) -> bool:
    """Whether a record's name is one that pods use, not the digest of a config."""
    return not name.startswith(("sha256:", "sha512:"))


def is_wanted(
    name: str, labels: Mapping[str, str], names: Collection[str], manifests: Collection[str]
) -> bool:
    """Whether a record that we look after still belongs to an image of the store."""
    return name in names if is_image_name(name) else labels.get(MANIFEST) in manifests
