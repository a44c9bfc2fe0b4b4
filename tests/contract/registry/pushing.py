"""Pushing by the distribution specification, with nothing of ours in it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import aiohttp
from yarl import URL

from tests.fakes.registry import CONFIG, LAYER, MANIFEST, descriptor, digest_of


async def push_blob(session: aiohttp.ClientSession, address: str, name: str, content: bytes) -> str:
    """POST then PUT (§ Pushing a blob monolithically); gives the digest."""
    base = URL(f"http://{address}/v2/{name}/blobs/uploads/")
    async with session.post(base) as begun:
        assert begun.status == 202
        location = base.join(URL(begun.headers["Location"]))
    async with session.put(location.update_query(digest=digest_of(content)), data=content) as done:
        assert done.status == 201, await done.text()
    return digest_of(content)


async def push_manifest(
    session: aiohttp.ClientSession,
    address: str,
    name: str,
    target: str,
    content: bytes,
    media_type: str = MANIFEST,
) -> str:
    """PUT under a tag or digest; gives the digest."""
    url = f"http://{address}/v2/{name}/manifests/{target}"
    async with session.put(url, data=content, headers={"Content-Type": media_type}) as done:
        assert done.status == 201, await done.text()
        assert done.headers["Docker-Content-Digest"] == digest_of(content)
    return digest_of(content)


async def push_image(
    address: str, name: str, tag: str | None, layers: Sequence[bytes], architecture: str = "amd64"
) -> str:
    """An image of these uncompressed layers; gives the digest of its manifest."""
    diff_ids = [digest_of(layer) for layer in layers]
    config = json.dumps(
        {"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(digest_of(config), len(config), CONFIG),
        "layers": [descriptor(digest_of(layer), len(layer), LAYER) for layer in layers],
    }
    raw = json.dumps(manifest).encode()
    async with aiohttp.ClientSession() as session:
        for content in (config, *layers):
            await push_blob(session, address, name, content)
        return await push_manifest(session, address, name, tag or digest_of(raw), raw)
