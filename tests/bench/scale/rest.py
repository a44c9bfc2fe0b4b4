"""A cluster in which everything is done: every node holds every cache, every label is there. Made, not
simulated.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from imagecached.imagecache import (
    EVERYBODY,
    ImageStatus,
    Status,
    cache_id,
    parse_object,
    phases,
    status_document,
)
from imagecached.oci.digest import Digest
from tests.support.apiserver import ApiServer
from tests.support.fleet import node_document

CRDS = Path(__file__).resolve().parents[3] / "daemonset/crds"
NOW = 1_700_000_000.0
IMAGES = 2  # of each cache
_BYTES = 100_000_000


def declared(name: str, created: str) -> dict[str, Any]:
    """An ImageCache of the simulation."""
    images = [f"registry.example.com/team/{name}-{number}:v1.2.3" for number in range(IMAGES)]
    return {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"images": images, "imageCacheSize": 20},
    }


def settled(nodes: int, caches: int) -> ApiServer:
    """The API server of such a cluster."""
    server = ApiServer(tracks_fields=False)
    server.install(CRDS)
    server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "imagecached-system"}})
    entries, labels = [], {"imagecached.dev/handler": "ready"}
    for number in range(caches):
        made = server.put(declared(f"cache-{number:03}", "2023-11-14T22:13:20Z"))
        server.put({**made, "status": status_document(_ready(made, nodes))})
        labels[f"imagecached.dev/{cache_id(made['metadata']['uid'])}"] = "ready"
        entries.append(_entry(made))
    status = {"daemonVersion": "0.1.0", "platform": "linux/amd64", "handlerReady": True, "caches": entries}
    resource = server.paths.find("imagecached.dev", "nodeimagecaches")
    assert resource is not None
    for number in range(nodes):
        name = f"node-{number:05}"
        server.put(node_document(name, **labels))
        report = {
            "apiVersion": "imagecached.dev/v1alpha1",
            "kind": "NodeImageCache",
            "metadata": {"name": name, "uid": f"uid-{name}"},
            "status": status,  # one object for all nodes, as the emulation would hold a million of them
        }
        server.storage.write(resource, report, previous=None)
    return server


def _ready(document: dict[str, Any], nodes: int) -> Status:
    cache = parse_object(document)
    digest = Digest.of(cache.name.encode())
    images = [ImageStatus(image, digest, (digest,), _BYTES) for image in cache.images]
    status = phases.resolve(cache, phases.begin(cache, Status(), NOW), images, NOW)
    status = phases.nodes(cache, phases.finish(cache, status, NOW), NOW, ready=nodes, total=nodes)
    return replace(status, rollout_window=EVERYBODY)


def _entry(document: dict[str, Any]) -> dict[str, Any]:
    metadata = document["metadata"]
    return {
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": 1,
        "phase": "Ready",
        "servingGeneration": 1,
        "bytesTotal": _BYTES,
        "bytesDone": _BYTES,
        "bytesFetched": _BYTES,
    }
