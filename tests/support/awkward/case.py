"""One awkward image: its layers, as the registry would serve them."""

from __future__ import annotations

from dataclasses import dataclass

TAR = "application/vnd.oci.image.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer on the wire: the bytes, the media type that the manifest claims, and the tar that is meant by it."""

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
        return tuple(layer.tar for layer in self.layers)


def case(name: str, *layers: bytes | Blob) -> Case:
    """A case of plain tars, or of blobs where the compression matters."""
    return Case(name, tuple(one if isinstance(one, Blob) else Blob(one, TAR, one) for one in layers))
