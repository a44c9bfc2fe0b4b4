"""Chains that containerd believes in, and whose snapshots are gone: it must forget them to have them again.

They cannot be removed one by one: containerd lists no snapshot that the snapshotter behind it does not have,
and refuses to remove one that ever had a child (its garbage collection forgets to tell the parent). So the
images let go of them, and the garbage collection takes them.
"""

from __future__ import annotations

from contextlib import suppress

from imagecached.containerd import Namespace, Snapshots
from imagecached.containerd.held import chain, configs, unbind
from imagecached.errors import NotFound
from imagecached.oci.digest import Digest


async def has(snapshots: Snapshots, chain_id: Digest) -> bool:
    """Is the link really there?"""
    info = await snapshots.stat(chain_id)
    return info is not None and info.kind == "committed"


async def let_go(namespace: Namespace, snapshots: Snapshots) -> None:
    """Let no image keep a chain that is lost: a collection takes all of them that no container stands on."""
    for config in await configs(namespace, snapshots.snapshotter):
        with suppress(NotFound):  # removed meanwhile
            links = await chain(namespace, config)
            if not links or not await has(snapshots, links[-1]):
                await unbind(namespace, snapshots.snapshotter, config)
