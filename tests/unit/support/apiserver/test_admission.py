"""The emulated server asks webhooks as the real one does; what a real server would need a Service for."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from aiohttp import web

from tests.fakes.certificates import Authority, server_context
from tests.support.apiserver import ApiServer

Review = dict[str, Any]
Answer = dict[str, Any] | Awaitable[web.Response]


class Hook:
    """A webhook under the test's control; ``reviews`` are the requests that came."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.reviews: list[Review] = []
        self.answer: Callable[[Review], Answer] = lambda _request: {"allowed": True}
        self.port = 0

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        review = (await request.json())["request"]
        self.reviews.append(review)
        answer = self.answer(review)
        if not isinstance(answer, dict):
            return await answer
        response = {"uid": review["uid"], **answer}
        return web.json_response(
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
        )


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    """Serves with a certificate for ``hooks.ours.svc``."""
    hook = Hook(Authority(tmp_path))
    tls = server_context(hook.authority.issue("hook", "DNS:hooks.ours.svc"))
    runner = web.ServerRunner(
        web.Server(hook.serve, handler_cancellation=True, access_log=None), shutdown_timeout=0.01
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    hook.port = runner.addresses[0][1]
    yield hook
    await runner.cleanup()


@pytest.fixture
async def server(hook: Hook) -> AsyncIterator[ApiServer]:
    async with ApiServer() as serving:
        serving.admission.services["ours", "hooks", 443] = ("127.0.0.1", hook.port)
        yield serving


def _configure(
    server: ApiServer, hook: Hook, kind: str = "MutatingWebhookConfiguration", **options: Any
) -> None:
    bundle = base64.b64encode(hook.authority.certificate.read_bytes()).decode()
    webhook = {
        "name": "pods.imagecached.dev",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "NoneOnDryRun",
        "clientConfig": {
            "service": {"namespace": "ours", "name": "hooks", "path": "/mutate"},
            "caBundle": bundle,
        },
        "rules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
        ],
        **options,
    }
    server.put(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": "ours"},
            "webhooks": [webhook],
        }
    )


async def _create(
    server: ApiServer, namespace: str = "default", query: str = "", **meta: Any
) -> httpx.Response:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "p-", **meta},
        "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    }
    async with httpx.AsyncClient(base_url=server.url) as http:
        return await http.post(f"/api/v1/namespaces/{namespace}/pods{query}", json=pod)


def _patch(*operations: dict[str, Any]) -> dict[str, Any]:
    patch = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


async def test_a_webhook_sees_the_pod_and_changes_it(server: ApiServer, hook: Hook) -> None:
    """The review holds object, namespace, operation and user; patch and warnings have effect."""
    _configure(server, hook)
    operation = {"op": "add", "path": "/spec/runtimeClassName", "value": "imagecached"}
    hook.answer = lambda _: {**_patch(operation), "warnings": ["Always pulls"]}
    answer = await _create(server)
    assert answer.status_code == 201
    assert answer.json()["spec"]["runtimeClassName"] == "imagecached"
    assert answer.headers["Warning"] == '299 - "Always pulls"'
    review = hook.reviews[0]
    assert (review["operation"], review["namespace"], review["dryRun"]) == ("CREATE", "default", False)
    assert review["object"]["metadata"] == {
        "generateName": "p-",
        "namespace": "default",
    }  # no name, no uid yet
    assert review["userInfo"]["username"] == "admin"


async def test_a_validating_webhook_sees_the_pod_as_it_is_stored(server: ApiServer, hook: Hook) -> None:
    """With its name and uid; it may deny, and nothing that it says changes the pod."""
    _configure(server, hook, "ValidatingWebhookConfiguration")
    answer = await _create(server)
    assert hook.reviews[0]["object"]["metadata"]["uid"] == answer.json()["metadata"]["uid"]
    assert hook.reviews[0]["object"]["metadata"]["name"] == answer.json()["metadata"]["name"]
    hook.answer = lambda _: {"allowed": False, "status": {"code": 403, "message": "no"}}
    assert (await _create(server)).status_code == 403
    assert len(server.all("pods")) == 1


async def test_a_denial_is_the_answer(server: ApiServer, hook: Hook) -> None:
    """Code and message of the webhook, and nothing is created."""
    _configure(server, hook)
    hook.answer = lambda _: {"allowed": False, "status": {"code": 403, "message": "imc-x is Creating"}}
    answer = await _create(server)
    assert answer.status_code == 403
    message = 'admission webhook "pods.imagecached.dev" denied the request: imc-x is Creating'
    assert answer.json()["message"] == message
    assert server.all("pods") == []


_ANNOTATED = "'k/a' in object.metadata.?annotations.orValue({})"


async def _broken(_request: Any = None) -> web.Response:
    return web.Response(status=500)


@pytest.mark.parametrize(("policy", "code"), [("Fail", 500), ("Ignore", 201)])
@pytest.mark.parametrize("failure", ["status", "certificate", "service", "patch"])
async def test_failures_count_by_the_policy(
    server: ApiServer, hook: Hook, tmp_path: Path, policy: str, code: int, failure: str
) -> None:
    """500s, strange certificates, absent services and wrong patches refuse the pod, or are ignored."""
    if failure == "certificate":
        hook.authority = Authority(tmp_path, "stranger")
    elif failure == "service":
        server.admission.services.clear()
    elif failure == "patch":
        hook.answer = lambda _: _patch({"op": "remove", "path": "/none"})
    else:
        hook.answer = _broken
    _configure(server, hook, failurePolicy=policy)
    answer = await _create(server)
    assert answer.status_code == code
    if code == 500:
        assert 'failed calling webhook "pods.imagecached.dev"' in answer.json()["message"]


async def test_a_slow_webhook_is_not_waited_for(server: ApiServer, hook: Hook) -> None:
    """timeoutSeconds ends it."""

    async def never(_request: Any) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    hook.answer = never
    _configure(server, hook, failurePolicy="Ignore", timeoutSeconds=0.1)
    assert (await _create(server)).status_code == 201


@pytest.mark.parametrize(
    ("options", "meta", "asked"),
    [
        ({"objectSelector": {"matchLabels": {"a": "b"}}}, {"labels": {"a": "b"}}, True),
        ({"objectSelector": {"matchLabels": {"a": "b"}}}, {}, False),
        ({"namespaceSelector": {"matchExpressions": [
            {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["default"]}]}}, {}, False),
        ({"matchConditions": [{"name": "x", "expression": _ANNOTATED}]},
         {"annotations": {"k/a": "1"}}, True),
        ({"matchConditions": [{"name": "x", "expression": _ANNOTATED}]},
         {}, False),
        ({"matchConditions": [{"name": "x", "expression": "request.dryRun == false"}]}, {}, True),
    ],
)  # fmt: skip
async def test_who_is_asked(
    server: ApiServer, hook: Hook, options: dict[str, Any], meta: dict[str, Any], asked: bool
) -> None:
    """Selectors of namespace and object, and conditions in CEL."""
    _configure(server, hook, **options)
    assert (await _create(server, **meta)).status_code == 201
    assert bool(hook.reviews) is asked


async def test_dry_run_reaches_the_webhook(server: ApiServer, hook: Hook) -> None:
    """It is told, and nothing is created; one that has side effects is not asked but refused."""
    _configure(server, hook)
    assert (await _create(server, query="?dryRun=All")).status_code == 201
    assert hook.reviews[0]["dryRun"] is True
    assert server.all("pods") == []
    _configure(server, hook, sideEffects="Some")
    assert (await _create(server, query="?dryRun=All")).status_code == 400
