"""As much of Knative Serving as concerns images: a Service becomes a pod, its tag replaced by the digest.

Lives on the emulated API server's event loop, makes its pods through the API as Knative does, and lets the
server's garbage collection take them away with their Service. Routes, scaling and the queue's container are
not there.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from tests.support.apiserver import ApiServer

Document = dict[str, Any]

_GROUP: Final = "serving.knative.dev"
_MANIFESTS: Final = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
_DEFINITION: Final[Document] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"services.{_GROUP}"},
    "spec": {
        "group": _GROUP,
        "scope": "Namespaced",
        "names": {"plural": "services", "singular": "service", "kind": "Service", "listKind": "ServiceList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
            }
        ],
    },
}


@asynccontextmanager
async def knative(server: ApiServer, token: str) -> AsyncIterator[None]:
    """Serve Services for the length of the block."""
    server.put(_DEFINITION)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as api, asyncio.TaskGroup() as group:
        task = group.create_task(_run(server, api))
        try:
            yield
        finally:
            task.cancel()


async def _run(server: ApiServer, api: aiohttp.ClientSession) -> None:
    made = set()
    while True:
        news = server.storage.shelf_of(_GROUP, "services").news
        for service in server.all(f"services.{_GROUP}"):
            if service["metadata"]["uid"] not in made:
                made.add(service["metadata"]["uid"])
                await _make_pod(server, api, service)
        await news.wait()


async def _make_pod(server: ApiServer, api: aiohttp.ClientSession, service: Document) -> None:
    meta = service["metadata"]
    template = copy.deepcopy(service["spec"]["template"])
    for container in template["spec"]["containers"]:
        container["image"] = await _resolved(container["image"])
        container.setdefault("name", "user-container")
    metadata = template.setdefault("metadata", {})
    metadata |= {"name": f"{meta['name']}-00001-deployment-1", "namespace": meta["namespace"]}
    metadata.setdefault("labels", {})[f"{_GROUP}/service"] = meta["name"]
    metadata["ownerReferences"] = [
        {"apiVersion": f"{_GROUP}/v1", "kind": "Service", "name": meta["name"], "uid": meta["uid"]}
    ]
    url = f"{server.url}/api/v1/namespaces/{meta['namespace']}/pods"
    async with api.post(url, json={"apiVersion": "v1", "kind": "Pod", **template}) as answer:
        assert answer.status == 201, await answer.text()


async def _resolved(image: str) -> str:
    """``host/path@digest`` for ``host/path:tag``, asked of a registry without TLS."""
    if "@" in image:
        return image
    name, _, tag = image.rpartition(":")
    host, _, path = name.partition("/")
    async with (
        aiohttp.ClientSession() as session,
        session.head(f"http://{host}/v2/{path}/manifests/{tag}", headers={"Accept": _MANIFESTS}) as answer,
    ):
        return f"{name}@{answer.headers['Docker-Content-Digest']}"
