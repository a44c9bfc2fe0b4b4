"""Layers, images and stores to test with; the real writer makes each layer from a small tar, once per run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from imagecached.layers.layerfile import LayerInfo, LayerWriter
from imagecached.layers.limits import Limits
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor
from imagecached.oci.platform import Platform
from imagecached.store import images, layers
from imagecached.store.fsck import Check
from imagecached.store.ingests import Ingest
from imagecached.store.records import Finding, ImageRecord, Layer, Recovery, StorePolicy
from imagecached.store.recovery import open_state
from imagecached.store.state import State
from tests.support.rawtar import archive, directory, entry

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ROOMY = StorePolicy(free_bytes=0)


@dataclass(frozen=True)
class Built:
    """A finished layer file in memory."""

    info: LayerInfo
    content: bytes = field(repr=False)

    @property
    def diff_id(self) -> Digest:
        return self.info.diff_id


@cache
def build(tar: bytes) -> Built:
    """The layer file of a tar, by the real writer."""
    with tempfile.TemporaryFile() as file:
        writer = LayerWriter(file.fileno(), Limits(), None)
        writer.feed(tar)
        info = writer.finish()
        file.seek(0)
        return Built(info, file.read())


def layer(number: int, size: int = 3000) -> Built:
    """A layer with one directory and one file of ``size`` bytes, different for every ``number``."""
    return build(archive(directory(b"d/"), entry(b"d/file%d" % number, data=bytes([number % 251]) * size)))


def base_with_modes() -> Built:
    """A lowest layer whose directory ``t/`` has mode 1777."""
    return build(archive(directory(b"t/", mode=0o1777), entry(b"t/a", data=b"a")))


def without_parents(number: int = 0) -> Built:
    """An upper layer that has a file in ``t/`` but no entry for it: its chain needs a seam."""
    return build(archive(entry(b"t/b%d" % number, data=b"b")))


def image(name: str, *built: Built, index: bytes | None = None) -> ImageRecord:
    """The record of an image of these layers, lowest first; the documents depend on them alone."""
    diff_ids = tuple(one.diff_id for one in built)
    manifest = f'{{"manifest": "{" ".join(diff_ids)}"}}'.encode()
    target = manifest if index is None else index
    return ImageRecord(
        name=f"docker.io/library/{name}:latest",
        target=Descriptor(MANIFEST_TYPE, Digest.of(target), len(target)),
        manifest_digest=Digest.of(manifest),
        platform=Platform("linux", "amd64"),
        diff_ids=diff_ids,
        chain_id=chain_ids(diff_ids)[-1],
        manifest=manifest,
        config=f'{{"config": "{" ".join(diff_ids)}"}}'.encode(),
        index=index,
    )


@contextmanager
def ingesting(state: State, built: Built) -> Iterator[Ingest]:
    """An ingest that holds the whole layer file."""
    ingest = Ingest(state, built.diff_id)
    try:
        ingest.open()
        ingest.check_space(len(built.content))
        os.pwrite(ingest.fd, built.content, 0)
        os.fdatasync(ingest.fd)
        yield ingest
    finally:
        ingest.close()


def publish(state: State, built: Built) -> Layer:
    """Publish one layer as a pull would."""
    with ingesting(state, built) as ingest:
        return layers.publish(state, ingest, built.info)


def pull(state: State, record: ImageRecord, built: Sequence[Built]) -> None:
    """Make an image present: the layers that are missing, then the image."""
    with state.hold(f"pull {record.name}", images.needs(record)):
        for one in built:
            if layers.find(state, one.diff_id) is None:
                publish(state, one)
        images.put(state, record)


def pulled(state: State, name: str, *built: Built) -> ImageRecord:
    """Pull an image of these layers and return its record."""
    record = image(name, *built)
    pull(state, record, built)
    return record


def check(state: State) -> list[Finding]:
    """Everything fsck finds."""
    run = Check(state)
    for reading in run.survey():
        run.verify(reading)
    return run.findings


def files(state: State) -> set[Digest]:
    """The digests of all files below layers/ and seams/."""
    return set(state.layout.digests_of(state.layout.root.glob("*/*/*/*")))


@contextmanager
def opened(
    root: Path, policy: StorePolicy = ROOMY, clock: Callable[[], float] | None = None
) -> Iterator[tuple[State, Recovery]]:
    """An open store, closed at the end of the body."""
    state, recovery = open_state(root, policy) if clock is None else open_state(root, policy, clock)
    try:
        yield state, recovery
    finally:
        state.close()


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now
