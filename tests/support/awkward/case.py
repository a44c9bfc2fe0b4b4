"""One awkward image: its layers, as the registry would serve them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.rawtar import archive

TAR = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer on the wire: the bytes, the media type that the manifest claims, and the tar that is meant."""

    data: bytes
    media_type: str
    tar: bytes


@dataclass(frozen=True, slots=True)
class Case:
    """An image nobody would make on purpose; `layers` are bottom first."""

    name: str
    layers: tuple[Blob, ...]

    @property
    def tars(self) -> tuple[bytes, ...]:
        """The uncompressed layers, whose digests are the diffIDs."""
        return tuple(layer.tar for layer in self.layers)


Layer = list[bytes] | bytes | Blob
"""Members of an archive that ends well; or the whole archive; or a blob, where the compression matters."""

Layers = dict[str, list[Layer]]
"""The layers of each case, bottom first, by the name of the case."""


def case(name: str, layers: list[Layer]) -> Case:
    """The case of this name and these layers."""
    return Case(name, tuple(map(_blob, layers)))


def _blob(layer: Layer) -> Blob:
    if isinstance(layer, Blob):
        return layer
    tar = layer if isinstance(layer, bytes) else archive(*layer)
    return Blob(tar, TAR, tar)
