"""Mutating admission webhooks: who is asked, what their answers do, what their failures do."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.apiserver.api import Answer, Api, Document
from tests.contract.apiserver.hooks import Hooks, patched, serve_hooks
from tests.fakes.certificates import Authority


@pytest.fixture
async def hooks(api: Api, tmp_path: Path) -> AsyncIterator[Hooks]:
    """None yet."""
    async with serve_hooks(api, tmp_path) as served:
        yield served


def _put(path: str, value: str) -> Document:
    return {"op": "add", "path": path, "value": value}


async def _create(api: Api, name: str = "one", **query: str) -> Answer:
    document = {**api.config(name, a="1"), "metadata": {"name": name, "labels": {"tier": "x"}}}
    return await api("POST", api.configs(), document, **query)


async def test_a_patch_changes_what_is_made(api: Api, hooks: Hooks) -> None:
    """The request says what is asked for; a new object has no uid yet."""
    await hooks.configure(hooks.hook("first", lambda _request: patched(_put("/data/b", "2"))))
    made = await _create(api)
    assert made.body["data"] == {"a": "1", "b": "2"}
    [request] = hooks.asked["first"]
    assert (request["operation"], request["namespace"], request["name"]) == ("CREATE", api.name, "one")
    assert request["dryRun"] is False
    assert request["oldObject"] is None
    assert request["object"]["data"] == {"a": "1"}
    assert request["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert "resourceVersion" not in request["object"]["metadata"]


async def test_a_dry_run_says_that_it_is_one(api: Api, hooks: Hooks) -> None:
    """And is patched all the same."""
    await hooks.configure(hooks.hook("first", lambda _request: patched(_put("/data/b", "2"))))
    made = await _create(api, dryRun="All")
    assert made.body["data"] == {"a": "1", "b": "2"}
    assert hooks.asked["first"][0]["dryRun"] is True
    assert (await api("GET", api.configs("one"))).code == 404


async def test_warnings_reach_the_client(api: Api, hooks: Hooks) -> None:
    """As headers, in order."""
    await hooks.configure(
        hooks.hook("first", lambda _request: {"allowed": True, "warnings": ["one word", "a second"]})
    )
    made = await _create(api)
    assert made.code == 201
    assert made.headers.get_list("warning") == ['299 - "one word"', '299 - "a second"']


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        ({"message": "not today"}, 400, "denied the request: not today"),
        ({"code": 403, "message": "no"}, 403, "denied the request: no"),
        ({}, 400, "denied the request without explanation"),
    ],
)
async def test_a_denial(api: Api, hooks: Hooks, status: Document, code: int, words: str) -> None:
    """Nothing is made; the webhook is named, with its words and its code."""
    await hooks.configure(hooks.hook("first", lambda _request: {"allowed": False, "status": status}))
    told = await _create(api)
    assert told.code == code
    assert told.body["message"] == f'admission webhook "first.{api.group}" {words}'
    assert (await api("GET", api.configs("one"))).code == 404


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ({"objectSelector": {"matchLabels": {"tier": "x"}}}, True),
        ({"objectSelector": {"matchLabels": {"tier": "y"}}}, False),
        ({"objectSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}}, True),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "elsewhere"}}}, False),
        ({"matchConditions": [{"name": "one", "expression": "object.data.a == '1'"}]}, True),
        ({"matchConditions": [{"name": "one", "expression": "object.data.a == '2'"}]}, False),
        (
            {
                "matchConditions": [
                    {"name": "one", "expression": "request.operation == 'CREATE'"},
                    {"name": "two", "expression": "has(object.metadata.annotations)"},
                ]
            },
            False,
        ),
    ],
)
async def test_who_is_asked(api: Api, hooks: Hooks, settings: dict[str, Any], *, asked: bool) -> None:
    """By labels of the object and of its namespace, and by conditions that must all hold."""
    await hooks.configure(hooks.hook("first", **settings))
    assert (await _create(api)).code == 201
    assert ("first" in hooks.asked) is asked


@pytest.mark.parametrize(("policy", "code"), [("Ignore", 201), ("Fail", 403)])
async def test_a_condition_that_cannot_be_evaluated(api: Api, hooks: Hooks, policy: str, code: int) -> None:
    """Counts by the failure policy, and nobody is asked."""
    condition = {"name": "broken", "expression": "object.data.missing == 'x'"}
    await hooks.configure(hooks.hook("first", matchConditions=[condition], failurePolicy=policy))
    assert (await _create(api)).code == code
    assert "first" not in hooks.asked


def _odd(kind: str, folder: Path) -> dict[str, Any]:
    """Settings that cannot work; none where it is the answer that does not."""
    if kind == "nobody listens":
        return {"url": "https://127.0.0.1:1/first"}
    if kind == "another authority":
        (folder / "other").mkdir()
        other = Authority(folder / "other").certificate.read_bytes()
        return {"caBundle": base64.b64encode(other).decode()}
    return {}


@pytest.mark.parametrize("policy", ["Ignore", "Fail"])
@pytest.mark.parametrize(
    "kind", ["nobody listens", "another authority", "another uid", "no patch", "no answer in time"]
)
async def test_a_failure(api: Api, hooks: Hooks, tmp_path: Path, policy: str, kind: str) -> None:
    """Ignored, or a 500 that names the webhook."""
    answers: dict[str, Any] = {
        "another uid": lambda _request: {"allowed": True, "uid": "another"},
        "no patch": lambda _request: {"allowed": True, "patchType": "JSONPatch", "patch": "!"},
        "no answer in time": lambda _request: asyncio.sleep(1000),
    }
    hook = hooks.hook("first", answers.get(kind), failurePolicy=policy, timeoutSeconds=1)
    hook["clientConfig"] |= _odd(kind, tmp_path)
    await hooks.configure(hook)
    told = await _create(api)
    if policy == "Ignore":
        assert (told.code, told.body["data"]) == (201, {"a": "1"})
    else:
        assert (told.code, told.body["reason"]) == (500, "InternalError")
        assert f"first.{api.group}" in told.body["message"]


async def test_one_that_was_asked_before_a_change_is_asked_again(api: Api, hooks: Hooks) -> None:
    """If it wants to be; the one that made the change is not."""

    def second(request: Document) -> Document:
        return patched(_put("/data/b", "2")) if "b" not in request["object"]["data"] else {"allowed": True}

    await hooks.configure(
        hooks.hook("first", reinvocationPolicy="IfNeeded"), hooks.hook("second", second), hooks.hook("third")
    )
    assert (await _create(api)).body["data"] == {"a": "1", "b": "2"}
    assert [request["object"]["data"] for request in hooks.asked["first"]] == [
        {"a": "1"},
        {"a": "1", "b": "2"},
    ]
    assert [len(hooks.asked[name]) for name in ("second", "third")] == [1, 1]
