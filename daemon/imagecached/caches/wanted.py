"""What the images of a build are called, and what they take. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import Bytes, ImageCache, ImageStatus, Status
from imagecached.images import Outlook, Transfer
from imagecached.oci.digest import Digest
from imagecached.oci.reference import Reference

GIB: Final = 1 << 30


class TooLarge(InvalidInput):
    """The images do not fit into the cache: its size or its images must be edited."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One image of a build, resolved.

    ``name``: its reference by digest. ``layers``: DiffID → compressed bytes. ``outlook`` None: it is here.
    """

    image: str
    name: str
    target: Digest
    manifest: Digest
    layers: Mapping[Digest, int]
    outlook: Outlook | None = None

    def status(self, size: Callable[[Digest], int | None]) -> ImageStatus:
        """What the status says of it; ``size``: unpacked bytes of a layer that is here."""
        known = [size(diff_id) for diff_id in self.layers]
        total = 0 if None in known else sum(bytes_ for bytes_ in known if bytes_ is not None)
        return ImageStatus(self.image, self.target, (self.manifest,), total)


def name_of(image: ImageStatus, *, exactly: bool) -> str | None:
    """The reference by digest of an image that was resolved; ``exactly``: of the platform's own manifest."""
    digest = image.manifest_digests[0] if exactly and image.manifest_digests else image.digest
    return None if digest is None else str(Reference.parse(image.image).at(digest))


def names_of(status: Status, *, exactly: bool) -> dict[str, str]:
    """Image as written → reference by digest, of the generation that serves."""
    named = {image.image: name_of(image, exactly=exactly) for image in status.serving}
    return {image: name for image, name in named.items() if name is not None}


def tag_of(image: str) -> str | None:
    """The name by tag that people will use; None if the image was written with a digest."""
    reference = Reference.parse(image)
    return None if reference.digest else str(reference)


def unpacked(images: Iterable[Wanted], size: Callable[[Digest], int | None]) -> int:
    """Unpacked bytes of all images, shared layers once; a layer that is not here has at least its blob's."""
    layers = {diff_id: blob for image in images for diff_id, blob in image.layers.items()}
    return sum(blob if (known := size(diff_id)) is None else known for diff_id, blob in layers.items())


def missing(images: Iterable[Wanted], size: Callable[[Digest], int | None]) -> int:
    """Compressed bytes of the layers that are not here."""
    layers = {diff_id: blob for image in images for diff_id, blob in image.layers.items()}
    return sum(blob for diff_id, blob in layers.items() if size(diff_id) is None)


def check_size(cache: ImageCache, bytes_: int, *, at_least: bool) -> None:
    """TooLarge if the images are larger than the cache may be."""
    if bytes_ > cache.size_gib * GIB:
        about = "at least " if at_least else ""
        have = f"{about}{bytes_ / GIB:.1f} GiB"
        raise TooLarge(f"the images have {have} unpacked, more than imageCacheSize: {cache.size_gib}")


def progress(images: Iterable[Wanted], transfers: Iterable[Transfer]) -> Bytes:
    """How far the transfers are, in bytes of blobs, shared layers once."""
    sizes = {diff_id: blob for image in images for diff_id, blob in image.layers.items()}
    done: dict[Digest, int] = {}
    fetched: set[Digest] = set()
    for transfer in transfers:
        for layer in transfer.layers:
            sizes[layer.diff_id] = layer.size
            done[layer.diff_id] = max(done.get(layer.diff_id, 0), layer.done)
            if layer.source == "fetched":
                fetched.add(layer.diff_id)
    brought = sum(count for diff_id, count in done.items() if diff_id in fetched)
    total = sum(done.values())
    return Bytes(sum(sizes.values()), total, total - brought, brought)
