"""What containerd makes of images, many at a time.

Images are imported with one command, then unpacked and mounted one by one, read-write: so a container sees
them, as an overlay even when there is one layer only. Both sides of a comparison answer with a listing or a
:class:`Refusal`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.awkward.case import Case
from tests.support.containerd import Containerd, serve_containerd
from tests.support.images import CONFIG, INDEX, MANIFEST, host_platform
from tests.support.listing import Listing, listing

PROGRAMS: Final = "IMAGECACHED_CONTAINERD"
"""Environment variable: a folder with the `containerd` and `ctr` to compare with, not those on PATH."""

# An installed igzip or pigz changes what containerd makes of damaged layers: its own decoder is what counts.
_OWN_GZIP: Final = {"CONTAINERD_DISABLE_PIGZ": "1", "CONTAINERD_DISABLE_IGZIP": "1"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An image that cannot be made, in the words of whoever refused it."""

    words: str


class Reference:
    """containerd's answers; make one with :func:`serve_reference`."""

    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd
        self.unpacked_after = time.time_ns()
        self._local = ("--local",) if " 2." in containerd.ctr("--version").replace("v2.", " 2.") else ()

    def load(self, cases: Iterable[Case]) -> None:
        """Bring in the images of these cases; nothing is unpacked yet."""
        archive = self._containerd.directory / "images.tar"
        archive.write_bytes(_layout(cases))
        self._containerd.ctr("images", "import", "--no-unpack", *self._local, archive)
        archive.unlink()

    def tree(self, case: Case) -> Listing | Refusal:
        """Unpack one loaded image and look at it."""
        target = Path(tempfile.mkdtemp(prefix="m-", dir=self._containerd.directory))
        try:
            self._containerd.ctr("images", "mount", "--rw", _reference(case), target)
        except subprocess.CalledProcessError as error:
            target.rmdir()
            return Refusal(_last_words(error.stderr))
        try:
            return listing(target)
        finally:
            self._containerd.ctr("images", "unmount", "--rm", target)
            target.rmdir()

    def forget(self, cases: Iterable[Case]) -> None:
        """Remove images, so that a long run does not fill the disk."""
        self._containerd.ctr("images", "rm", "--sync", *map(_reference, cases))


@contextmanager
def serve_reference() -> Iterator[Reference]:
    """A containerd of its own for the length of the block."""
    programs = os.environ.get(PROGRAMS)
    with serve_containerd(programs=Path(programs) if programs else None, environment=_OWN_GZIP) as containerd:
        yield Reference(containerd)


def _reference(case: Case) -> str:
    return f"test.local/{case.name.lower()}:1"


def _last_words(text: str) -> str:
    return re.sub(
        r"/\S*(?:snapshots/(?:new-)?|containerd-mount)\d+(?:/fs)?", "", text.strip().rpartition("\n")[2]
    )


def _layout(cases: Iterable[Case]) -> bytes:
    """An OCI image layout, as a tar, with an image per case."""
    blobs: dict[str, bytes] = {}
    manifests = [_image(case, blobs) for case in cases]
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": _json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()},
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return out.getvalue()


def _image(case: Case, blobs: dict[str, bytes]) -> dict[str, object]:
    def kept(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    diff_ids = [f"sha256:{hashlib.sha256(tar).hexdigest()}" for tar in case.tars]
    config = {**host_platform(), "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        # The name makes every manifest a blob of its own, also where two cases have the same layers.
        "annotations": {"case": case.name},
        "config": kept(_json(config), CONFIG),
        "layers": [kept(layer.data, layer.media_type) for layer in case.layers],
    }
    names = {"io.containerd.image.name": _reference(case), "org.opencontainers.image.ref.name": "1"}
    return {**kept(_json(manifest), MANIFEST), "annotations": names, "platform": host_platform()}


def _json(document: object) -> bytes:
    return json.dumps(document).encode()
