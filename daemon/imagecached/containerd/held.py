"""What of an image is in containerd, by the labels with which it keeps blobs and snapshots."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Final

from imagecached.containerd.client import Namespace
from imagecached.containerd.nouns import Labels
from imagecached.errors import Corrupt, InvalidInput
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest

_REFERENCE: Final = "containerd.io/gc.ref.content."
_SNAPSHOT: Final = "containerd.io/gc.ref.snapshot."
CONFIG: Final = f"{_REFERENCE}config"
"""The label of a manifest that names its config."""


async def manifests(namespace: Namespace, digest: str) -> list[Labels]:
    """Labels of the manifests that are here of an image or index."""
    content = await namespace.content.info(digest)
    if content is None:
        return []
    if CONFIG in content.labels:
        return [content.labels]
    children = [each for name, each in content.labels.items() if name.startswith(_REFERENCE)]
    found = [await namespace.content.info(child) for child in children]
    return [each.labels for each in found if each and CONFIG in each.labels]


async def has_layers(namespace: Namespace, digest: str) -> bool:
    """Of some platform, all layers are here, so that any snapshotter could unpack them."""
    for labels in await manifests(namespace, digest):
        layers = [each for name, each in labels.items() if name.startswith(f"{_REFERENCE}l.")]
        if layers and None not in [await namespace.content.info(layer) for layer in layers]:
            return True
    return False


async def snapshotters(namespace: Namespace, digest: str) -> frozenset[str]:
    """Those that have the image unpacked."""
    found = set()
    for labels in await manifests(namespace, digest):
        config = await namespace.content.info(labels[CONFIG])
        names = config.labels if config else {}
        found |= {name.removeprefix(_SNAPSHOT) for name in names if name.startswith(_SNAPSHOT)}
    return frozenset(found)


async def configs(namespace: Namespace, snapshotter: str) -> list[str]:
    """Digests of the configs of images that ``snapshotter`` has unpacked, as containerd believes."""
    return [each.digest for each in await namespace.content.listed([f'labels."{_SNAPSHOT}{snapshotter}"'])]


async def chain(namespace: Namespace, config: str) -> tuple[Digest, ...]:
    """The snapshots of the image with this config, lowest first; empty if the blob is none. NotFound."""
    with suppress(Corrupt, ValueError, RecursionError, TypeError, KeyError, InvalidInput):
        document = json.loads(await namespace.content.document(config))
        return tuple(chain_ids([Digest.parse(each) for each in document["rootfs"]["diff_ids"]]))
    return ()


async def unbind(namespace: Namespace, snapshotter: str, config: str) -> None:
    """Let the image with this config keep nothing in ``snapshotter`` any more. NotFound."""
    await namespace.content.label(config, {f"{_SNAPSHOT}{snapshotter}": ""})


async def bound(namespace: Namespace) -> dict[str, frozenset[str]]:
    """Images whose layers are not here, by name, and the snapshotters without which they cannot start."""
    records = await namespace.images.listed()
    return {
        each.name: await snapshotters(namespace, each.target.digest)
        for each in records
        if not await has_layers(namespace, each.target.digest)
    }
