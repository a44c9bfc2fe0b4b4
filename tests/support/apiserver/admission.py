"""Admission webhooks: which are asked, over real HTTPS, and what their answers do.

Reads the webhook configurations of the storage at each request. Mutating webhooks see a new object before it
has a uid or a generated name, validating ones as it will be stored. Webhooks with a Service are reached
where :attr:`Admission.services` says that the service listens.
"""

from __future__ import annotations

import base64
import binascii
import copy
import ssl
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from tests.support.apiserver import patches, refusals, schema
from tests.support.apiserver.refusals import Refused
from tests.support.apiserver.requests import Call
from tests.support.apiserver.selectors import matches_labels
from tests.support.apiserver.storage import Storage

Document = dict[str, Any]
_GROUP = "admissionregistration.k8s.io"  # its objects are never sent to a webhook, or none could be repaired
_MUTATING = "mutatingwebhookconfigurations"
_VALIDATING = "validatingwebhookconfigurations"
_MOST_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True)
class _Hook:
    configuration: str
    document: Document

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def ignores_failures(self) -> bool:
        return bool(self.document.get("failurePolicy", "Fail") == "Ignore")


class _Failed(Exception):
    """The webhook could not be asked, or its answer makes no sense."""


class Admission:
    """Calls webhooks; :meth:`admit` and :meth:`validate` are what the writing verbs use."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._session: aiohttp.ClientSession | None = None
        self.services: dict[tuple[str, str, int], tuple[str, int]] = {}
        self.calls: list[Document] = []  # every AdmissionReview request sent, newest last

    async def close(self) -> None:
        """Let the connections go."""
        if self._session is not None:
            await self._session.close()

    async def admit(
        self, call: Call, operation: str, document: Document | None, old: Document | None
    ) -> Document:
        """The object as the webhooks want it; a refusal when one denies it, or fails and must not."""
        hooks = self._chosen(_MUTATING, call, operation, document, old)
        result = document if document is not None else {}
        changed_after: dict[str, bool] = {}
        for hook in hooks:
            before = result
            if document is not None and not self._conditions_hold(hook, call, operation, result, old):
                continue
            result = await self._ask(hook, call, operation, result, old)
            if result != before:
                changed_after = dict.fromkeys(changed_after, True)
            changed_after[hook.name] = False
        for hook in hooks:
            if changed_after.get(hook.name) and hook.document.get("reinvocationPolicy") == "IfNeeded":
                result = await self._ask(hook, call, operation, result, old)
        return result

    async def validate(
        self, call: Call, operation: str, document: Document | None, old: Document | None
    ) -> None:
        """A refusal when a validating webhook denies the object, or fails and must not."""
        for hook in self._chosen(_VALIDATING, call, operation, document, old):
            if document is None or self._conditions_hold(hook, call, operation, document, old):
                await self._ask(hook, call, operation, document or {}, old)

    def _chosen(
        self, plural: str, call: Call, operation: str, document: Document | None, old: Document | None
    ) -> list[_Hook]:
        hooks = self._hooks(plural, call, operation)
        return [hook for hook in hooks if self._selected(hook, call, document, old)]

    def _hooks(self, plural: str, call: Call, operation: str) -> Iterator[_Hook]:
        if call.resource.group == _GROUP:
            return
        shelf = self._storage.shelf_of(_GROUP, plural)
        for place in sorted(shelf.objects):
            for document in shelf.objects[place].document.get("webhooks", ()):
                if any(_rule_fits(rule, call, operation) for rule in document.get("rules", ())):
                    yield _Hook(place[1], document)

    def _selected(self, hook: _Hook, call: Call, document: Document | None, old: Document | None) -> bool:
        """Namespace and object selectors; either version of the object may match."""
        if not self._namespace_fits(hook, call):
            return False
        selector = hook.document.get("objectSelector") or {}
        return any(
            matches_labels(selector, each["metadata"].get("labels") or {}) for each in (document, old) if each
        )

    def _namespace_fits(self, hook: _Hook, call: Call) -> bool:
        selector = hook.document.get("namespaceSelector") or {}
        name = call.name if call.resource.plural == "namespaces" else call.namespace
        if not name:
            return True
        place = self._storage.shelf_of("", "namespaces").objects.get(("", name))
        return place is None or matches_labels(selector, place.meta.get("labels") or {})

    def _conditions_hold(
        self, hook: _Hook, call: Call, operation: str, document: Document, old: Document | None
    ) -> bool:
        """All matchConditions are true; an error in one counts by the failurePolicy."""
        request = _request(call, operation, None, None)
        for condition in hook.document.get("matchConditions", ()):
            data = {"object": document or None, "oldObject": old, "request": request}
            value = schema.evaluate(condition["expression"], data)
            if value is False:
                return False
            if value is not True:
                if hook.ignores_failures:
                    return False
                raise refusals.forbidden(
                    f"match condition {condition['name']!r} of {hook.name!r} could not be evaluated"
                )
        return True

    async def _ask(
        self, hook: _Hook, call: Call, operation: str, document: Document, old: Document | None
    ) -> Document:
        if call.dry_run and hook.document.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise refusals.bad_request(f"admission webhook {hook.name!r} does not support dry run")
        request = _request(call, operation, document or None, old)
        review = {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}
        self.calls.append(request)
        try:
            response = await self._post(hook, review)
            return self._result(hook, call, response, document)
        except (_Failed, aiohttp.ClientError, TimeoutError, OSError) as error:
            if hook.ignores_failures:
                return document
            text = f'failed calling webhook "{hook.name}": {_reason(error)}'
            raise refusals.broken(text) from error

    async def _post(self, hook: _Hook, review: Document) -> Document:
        url, server_name = self._place(hook)
        context = ssl.create_default_context(cadata=_authority(hook))
        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=hook.document.get("timeoutSeconds", 10))
        async with self._session.post(
            url, json=review, ssl=context, timeout=timeout, server_hostname=server_name, allow_redirects=False
        ) as response:
            body = await response.content.read(_MOST_ANSWER_BYTES)
            if response.status != 200:
                raise _Failed(f"the server answered {response.status}")
        try:
            answer: Document = msgspec.json.decode(body)["response"]
        except (ValueError, KeyError, TypeError) as error:
            raise _Failed(f"not an AdmissionReview: {error}") from None
        if answer.get("uid") != review["request"]["uid"]:
            raise _Failed(f"expected response.uid={review['request']['uid']!r}, got {answer.get('uid')!r}")
        return answer

    def _place(self, hook: _Hook) -> tuple[str, str | None]:
        config = hook.document["clientConfig"]
        if "url" in config:
            return config["url"], None
        service = config["service"]
        key = service["namespace"], service["name"], service.get("port", 443)
        if key not in self.services:
            raise _Failed(f'service "{key[1]}" not found')
        host, port = self.services[key]
        return f"https://{host}:{port}{service.get('path', '/')}", f"{key[1]}.{key[0]}.svc"

    def _result(self, hook: _Hook, call: Call, answer: Document, document: Document) -> Document:
        for warning in answer.get("warnings") or ():
            call.warnings.append(warning)
        if not answer.get("allowed"):
            status = answer.get("status") or {}
            text = f'admission webhook "{hook.name}" denied the request'
            text += f": {status['message']}" if status.get("message") else " without explanation"
            raise Refused(status.get("code") or 400, status.get("reason") or "BadRequest", text)
        if not answer.get("patch"):
            return document
        if answer.get("patchType") != "JSONPatch":
            raise _Failed(f"unsupported patch type {answer.get('patchType')!r}")
        try:
            operations = msgspec.json.decode(base64.b64decode(answer["patch"]))
            changed: Document = patches.json_patch(copy.deepcopy(document), operations)
        except (binascii.Error, ValueError, Refused) as error:
            raise _Failed(f"the patch cannot be applied: {error}") from None
        return changed


def _reason(error: Exception) -> str:
    return f"failed to call webhook: {str(error) or type(error).__name__}"


def _authority(hook: _Hook) -> str:
    """The certificates that the webhook's own must come from."""
    bundle = hook.document["clientConfig"].get("caBundle", "")
    try:
        text = base64.b64decode(bundle).decode()
    except (binascii.Error, ValueError):
        text = ""
    if "BEGIN CERTIFICATE" not in text:
        raise _Failed("tls: failed to verify certificate: x509: certificate signed by unknown authority")
    return text


def _rule_fits(rule: Mapping[str, Any], call: Call, operation: str) -> bool:
    resource = call.resource
    plural = f"{resource.plural}/{call.subresource}" if call.subresource else resource.plural
    named = rule.get("resources", ())
    return (
        _has(rule.get("operations", ()), operation)
        and _has(rule.get("apiGroups", ()), resource.group)
        and _has(rule.get("apiVersions", ()), resource.version)
        and (plural in named or "*/*" in named or ("*" in named and not call.subresource))
        and rule.get("scope", "*") in ("*", "Namespaced" if resource.namespaced else "Cluster")
    )


def _has(values: Any, value: str) -> bool:
    return "*" in values or value in values


def _request(call: Call, operation: str, document: Document | None, old: Document | None) -> Document:
    resource = call.resource
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    plural = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    meta = (document or old or {"metadata": {}})["metadata"]
    return {
        "uid": str(uuid.uuid4()),
        "kind": kind,
        "resource": plural,
        "subResource": call.subresource,
        "requestKind": kind,
        "requestResource": plural,
        "name": meta.get("name", call.name),
        "namespace": call.namespace,
        "operation": operation,
        "userInfo": {"username": call.user, "groups": ["system:authenticated"]},
        "object": document,
        "oldObject": old,
        "dryRun": call.dry_run,
        "options": {"kind": f"{operation.title()}Options", "apiVersion": "meta.k8s.io/v1"},
    }
