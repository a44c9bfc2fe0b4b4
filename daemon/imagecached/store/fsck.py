"""Is every byte what it was when it was published? Reads layer files and seams whole; changes nothing (see
repair).

A check is three calls, so that its caller can wait and stop between files: :meth:`Check.survey` compares
rows, files and documents and lists the files to read; :meth:`Check.verify` reads one; :attr:`Check.findings`
has what was found. The store stays in use meanwhile: a file that goes while it is read is no fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagecached.errors import Corrupt
from imagecached.layers.layerfile import verify_layer
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import collect, images, layers, snapshots
from imagecached.store.records import Finding, FindingKind
from imagecached.store.state import State

_SEAMS = (
    "SELECT chain_id, seam_digest, seam_bytes FROM snapshots WHERE seam_digest IS NOT NULL ORDER BY chain_id"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A file to verify: the layer or the seam of ``digest``, about ``bytes`` long; ``content``: a seam's
    recorded digest.
    """

    kind: Literal["layer", "seam"]
    digest: Digest
    path: Path
    bytes: int
    content: str = ""


class Check:
    """One run of fsck over an open store."""

    def __init__(self, state: State) -> None:
        self.findings: list[Finding] = []
        self.files = 0
        self.bytes = 0
        self._state = state

    def survey(self) -> tuple[Reading, ...]:
        """Everything that needs no reading of files; the files to read."""
        state = self._state
        with state.db.lock:
            inventory = collect.take_inventory(state)
            strays = collect.orphans(state, inventory)
            self.findings += [self._stray(path) for _, path in strays]
            self.findings += _invalid_snapshots(state)
            self.findings += [
                Finding("document_corrupt", digest, "the document has another digest")
                for digest in images.corrupt_documents(state)
            ]
            self.findings += [
                Finding("image_damaged", name, "layers or documents are missing")
                for name in sorted(images.damaged(state))
            ]
            return tuple(_readings(state))

    def verify(self, reading: Reading) -> None:
        """Read one file and note what is wrong with it."""
        inode = 0
        try:
            inode = reading.path.stat().st_ino
            if reading.kind == "layer":
                verify_layer(reading.path, reading.digest)
            else:
                _verify_seam(reading)
        except FileNotFoundError:
            self._note(reading, "missing", "the file is gone")
        except (Corrupt, OSError) as error:  # EIO of a bad disk is as good as wrong bytes
            self._note(reading, "corrupt", str(error), inode)
        self.files += 1
        self.bytes += reading.bytes

    def _note(
        self, reading: Reading, fault: Literal["missing", "corrupt"], text: str, inode: int = 0
    ) -> None:
        if not self._recorded(reading):
            return
        kinds: dict[tuple[str, str], FindingKind] = {
            ("layer", "missing"): "layer_missing",
            ("layer", "corrupt"): "layer_corrupt",
            ("seam", "missing"): "seam_missing",
            ("seam", "corrupt"): "seam_corrupt",
        }
        self.findings.append(Finding(kinds[reading.kind, fault], reading.digest, text, inode=inode))

    def _recorded(self, reading: Reading) -> bool:
        if reading.kind == "layer":
            return layers.find(self._state, reading.digest) is not None
        snapshot = snapshots.find(self._state, reading.digest)
        return snapshot is not None and snapshot.seam

    def _stray(self, path: Path) -> Finding:
        kind: FindingKind = (
            "layer_orphan" if path.is_relative_to(self._state.layout.layers) else "seam_orphan"
        )
        return Finding(kind, str(path.relative_to(self._state.layout.root)), "a file that nothing refers to")


def _readings(state: State) -> Iterator[Reading]:
    for layer in layers.every(state):
        yield Reading("layer", layer.diff_id, layer.path, layer.file_bytes)
    for chain_id, content, size in state.db.read(_SEAMS):
        digest = Digest(chain_id)
        yield Reading("seam", digest, state.layout.seam(digest), size, content)


def _verify_seam(reading: Reading) -> None:
    found = snapshots.seam_digest(reading.path)
    if found != reading.content:
        raise Corrupt(f"expected digest {reading.content}, found {found}")


def _invalid_snapshots(state: State) -> Iterable[Finding]:
    """A ChainID follows from the parent's and the DiffID, so rows can be checked against each other."""
    for snapshot in snapshots.every(state):
        below = () if snapshot.parent is None else (snapshot.parent,)
        if chain_ids((*below, snapshot.diff_id))[-1] != snapshot.chain_id:
            yield Finding(
                "snapshot_invalid", snapshot.chain_id, "the ChainID does not follow from parent and layer"
            )
