"""Admission webhooks of the suite's own, where the server under test can reach them."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.contract.apiserver.api import Api, Document
from tests.fakes.certificates import Authority, server_context

_CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
_KNOWN_SECONDS = 30.0  # a real server hears of a configuration through its watch

Answer = Callable[[Document], Awaitable[Document] | Document]


@dataclass
class Hooks:
    """Answers by path, and every request that came, by path."""

    api: Api
    authority: bytes
    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: dict[str, list[Document]] = field(default_factory=dict)

    async def handle(self, request: web.Request) -> web.Response:
        """One review."""
        review = await request.json()
        path = request.path.strip("/")
        self.asked.setdefault(path, []).append(review["request"])
        answer = self.answers.get(path, _allow)(review["request"])
        response = answer if isinstance(answer, dict) else await answer
        body = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": review["request"]["uid"], **response},
        }
        return web.json_response(body)

    def hook(self, path: str, answer: Answer | None = None, **settings: Any) -> Document:
        """The entry of a configuration for ConfigMaps that are made in our namespace."""
        if answer is not None:
            self.answers[path] = answer
        url = f"https://127.0.0.1:{self.port}/{path}"
        bundle = base64.b64encode(self.authority).decode()
        return {
            "name": f"{path}.{self.api.group}",
            "clientConfig": {"url": url, "caBundle": bundle},
            "rules": [
                {
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["configmaps"],
                    "operations": ["CREATE"],
                    "scope": "Namespaced",
                }
            ],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.api.name}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **settings,
        }

    async def configure(self, *hooks: Document) -> None:
        """Make them count; returns once the server asks one more that stands before them."""
        marker = self.hook("marker")
        document = {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.api.name},
            "webhooks": [marker, *hooks],
        }
        await self.api.made(_CONFIGURATIONS, document)
        async with asyncio.timeout(_KNOWN_SECONDS):
            while not self.asked.get("marker"):
                await self.api("POST", self.api.configs(), self.api.config("probe"), dryRun="All")
        self.asked.clear()


@asynccontextmanager
async def serve_hooks(api: Api, folder: Path) -> AsyncIterator[Hooks]:
    """Listen on loopback while the block lasts; the configuration goes with it."""
    if api.real and not _is_here(str(api.http.base_url.host)):
        pytest.skip("this API server is on another host, and could not reach a webhook on loopback")
    authority = Authority(folder)
    hooks = Hooks(api, authority.certificate.read_bytes())
    application = web.Application()
    application.router.add_post("/{path}", hooks.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)  # one of them never answers
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(authority.issue("webhook")))
        await site.start()
        [hooks.port] = [address[1] for address in runner.addresses]
        yield hooks
    finally:
        await api("DELETE", f"{_CONFIGURATIONS}/{api.name}")
        await runner.cleanup()


def patched(*operations: Document) -> Document:
    """A response that allows, and changes."""
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


def _allow(_request: Document) -> Document:
    return {"allowed": True}


def _is_here(host: str) -> bool:
    """Is this an address of our own?"""
    try:
        with socket.create_server((host, 0)):
            return True
    except OSError:
        return False
