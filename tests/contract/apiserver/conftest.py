"""The servers that the suite runs against: the emulator, and the cluster that ``KUBECONFIG`` names, if any.

All that the suite makes carries one throw-away name and is removed at the end, also after failures.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
from lightkube.config.client_adapter import AsyncClient, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig

from tests.contract.apiserver.api import Api
from tests.support.apiserver import ApiServer

SERVERS = ["emulated", *(["real"] if os.environ.get("KUBECONFIG") else [])]
_SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {
            "type": "array",
            "minItems": 1,
            "maxItems": 3,
            "x-kubernetes-list-type": "atomic",
            "items": {"type": "string", "minLength": 1, "maxLength": 20},
        },
        "size": {"type": "integer", "format": "int32", "minimum": 20, "maximum": 100, "default": 20},
        "days": {"type": "integer", "nullable": True},
        "options": {"type": "object", "additionalProperties": {"type": "string"}},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
            },
        },
        "fixed": {
            "type": "string",
            "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is fixed"}],
        },
    },
    "x-kubernetes-validations": [
        {"rule": "!has(self.days) || self.days > 0", "message": "days must be positive"},
    ],
}
_STATUS = {
    "type": "object",
    "properties": {"phase": {"type": "string", "enum": ["Pending", "Ready"]}, "count": {"type": "integer"}},
}


@pytest.fixture(params=SERVERS)
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    """A server with an empty namespace and a custom resource of ours."""
    name = f"contract-{secrets.token_hex(4)}"
    async with _real() if request.param == "real" else _emulated() as http:
        under_test = Api(http, name, real=request.param == "real")
        try:
            await _prepare(under_test)
            yield under_test
        finally:
            await under_test("DELETE", f"/api/v1/namespaces/{name}")
            await under_test("DELETE", f"{DEFINITIONS}/samples.{under_test.group}")


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


async def _prepare(api: Api) -> None:
    await api.made(
        "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.name}}
    )
    await api.made(DEFINITIONS, definition(api.group))
    async with asyncio.timeout(60):
        for made in (api.configs("kube-root-ca.crt"), api.discovery) if api.real else ():
            while (await api("GET", made)).code != 200:  # made by controllers, a moment later
                await asyncio.sleep(0)
        while (await api("GET", api.samples())).code != 200:
            async with api.watching(DEFINITIONS, fieldSelector=f"metadata.name=samples.{api.group}") as watch:
                await watch.next()


def definition(group: str) -> dict[str, Any]:
    """The custom resource ``Sample``."""
    schema = {"type": "object", "required": ["spec"], "properties": {"spec": _SPEC, "status": _STATUS}}
    columns = [
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1},
    ]
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"samples.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"plural": "samples", "singular": "sample", "kind": "Sample", "listKind": "SampleList",
                      "shortNames": ["smp"]},
            "versions": [version],
        },
    }  # fmt: skip


@asynccontextmanager
async def _emulated() -> AsyncIterator[httpx.AsyncClient]:
    async with ApiServer(bookmark_seconds=0.2) as server, httpx.AsyncClient(base_url=server.url) as http:
        yield http


@asynccontextmanager
async def _real() -> AsyncIterator[httpx.AsyncClient]:
    config = KubeConfig.from_env().get()
    assert config is not None
    async with AsyncClient(config, ConnectionParams(timeout=httpx.Timeout(20))) as http:
        yield http
