"""What containerd must forget before we leave it: images that it could not start without us.

Their layers are nowhere but here, and the kubelet takes an image that containerd knows for present. Once
forgotten, they are pulled again by whoever needs them. What stays is unpinned: the kubelet may remove it.
No snapshot of ours stays either, but those that running containers stand on: without us containerd could not
even remove the pods that have ended, and whoever comes back would meet what he left.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

from imagecached.containerd import CRI_NAMESPACE, Containerd, Namespace
from imagecached.containerd.held import bound, configs, unbind
from imagecached.dropin import NAME
from imagecached.errors import ImagecachedError, NotFound
from imagecached.registration.place import Place
from imagecached.registration.wanted import MANIFEST, OWNER, PART, PINNED

_SECONDS: Final = 60.0


def forget(socket: Path, namespaces: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what was forgotten; nothing if containerd does not answer. Blocks."""
    try:
        return asyncio.run(_forget(socket, namespaces))
    except (ImagecachedError, TimeoutError):
        return ()


async def _forget(socket: Path, namespaces: tuple[str, ...]) -> tuple[str, ...]:
    containerd, forgotten = Containerd(socket), list[str]()
    try:
        async with asyncio.timeout(_SECONDS):
            await _remove_ended(containerd)
            for namespace in map(containerd.namespace, namespaces):
                for name, snapshotters in (await bound(namespace)).items():
                    if snapshotters == {NAME}:
                        await namespace.images.delete(name)
                        forgotten.append(name)
                await _unpin(namespace)
                for config in await configs(namespace, NAME):
                    with suppress(NotFound):  # removed meanwhile
                        await unbind(namespace, NAME, config)
                with suppress(ImagecachedError):  # slow where the daemon is gone; it is done later then
                    await Place(namespace, NAME).collect()
    finally:
        await containerd.close()
    return tuple(forgotten)


async def _remove_ended(containerd: Containerd) -> None:
    """The sandboxes of ours that the kubelet has not removed yet: it does so once a minute."""
    with suppress(ImagecachedError):  # as good as it goes
        sandboxes = await containerd.namespace(CRI_NAMESPACE).sandboxes()
        ours = {each.id for each in sandboxes if each.snapshotter == NAME}
        for sandbox in await containerd.ended_sandboxes():
            if sandbox in ours:
                await containerd.remove_sandbox(sandbox)


async def _unpin(namespace: Namespace) -> None:
    ours = dict.fromkeys((PINNED[0], OWNER, PART, MANIFEST), "")
    for record in await namespace.images.listed([f'labels."{OWNER}"=={NAME}']):
        with suppress(NotFound):  # removed meanwhile
            await namespace.images.label(record, ours)
