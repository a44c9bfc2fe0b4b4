"""Create, update, patch and delete: the order of steps in which the real server takes them.

decode → defaults and pruning → mutating webhooks → defaults again → metadata → validation → validating
webhooks → write. Owns nothing.
Between the reading and the writing of an object only admission may wait; then the version is looked at again.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from tests.support.apiserver import ownership, patches, refusals, requests, rules, schema
from tests.support.apiserver.admission import Admission
from tests.support.apiserver.refusals import Cause
from tests.support.apiserver.requests import Call
from tests.support.apiserver.storage import Storage, Stored

Document = dict[str, Any]
_TRIES = 5


class Writes:
    """The writing verbs on a :class:`Storage`."""

    def __init__(self, storage: Storage, admission: Admission, *, tracks_fields: bool = True) -> None:
        self._storage = storage
        self._admission = admission
        self._tracks_fields = tracks_fields

    async def create(self, call: Call) -> tuple[int, Stored]:
        """201 and the new object."""
        document = rules.check_form(call.resource, call.decode(), call.namespace)
        self._check_namespace(call)
        self._check_unknown(call, document)
        return 201, await self._create(call, document, "Update")

    async def update(self, call: Call) -> tuple[int, Stored]:
        """200 and the new version; the resourceVersion given must be the present one."""
        document = rules.check_form(call.resource, call.decode(), call.namespace, call.name)
        self._check_unknown(call, document)
        old = self._storage.get(call.resource, call.namespace, call.name)
        if not document["metadata"].get("resourceVersion") and not call.resource.unconditional:
            causes = [
                Cause("metadata.resourceVersion", "Invalid value: 0x0: must be specified for an update")
            ]
            raise refusals.invalid(call.resource.group, call.resource.kind, call.name, causes)
        return 200, await self._replace(call, old, document)

    async def patch(self, call: Call) -> tuple[int, Stored]:
        """200 and the new version, or 201 when apply made it."""
        kind = requests.check_patch_type(call)
        body = _body(call, kind)
        if kind in requests.APPLY:
            return await self._apply(call, body)
        for attempt in range(_TRIES):
            old = self._storage.get(call.resource, call.namespace, call.name)
            document = _patched(kind, old.document, body, call.resource.schema)
            document = rules.check_form(call.resource, document, call.namespace, call.name)
            given = document["metadata"].get("resourceVersion") != old.meta["resourceVersion"]
            self._check_unknown(call, document)
            try:
                return 200, await self._replace(call, old, document)
            except refusals.Refused as refused:
                if refused.code != 409 or given or attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    async def _apply(self, call: Call, config: Any) -> tuple[int, Stored]:
        config = rules.check_form(call.resource, copy.deepcopy(config), call.namespace, call.name)
        if config["metadata"].get("managedFields"):
            raise refusals.bad_request("metadata.managedFields must be nil")
        old = self._storage.find(call.resource, call.namespace, call.name)
        if old is None and call.subresource:
            raise refusals.not_found(call.resource.group, call.resource.plural, call.name)
        given = config["metadata"].get("resourceVersion")
        if given and (old is None or given != old.meta["resourceVersion"]):
            raise refusals.conflict(call.resource.group, call.resource.plural, call.name)
        config = _applicable(call, config)
        writer = self._writer(call, "Apply")
        live = None if old is None else old.document
        document = ownership.applied(live, config, writer, call.resource.schema, force=call.flag("force"))
        if old is None:
            self._check_namespace(call)
            return 201, await self._create(
                call, document, "Apply", managed=document["metadata"]["managedFields"]
            )
        return 200, await self._replace(call, old, document, managed=document["metadata"]["managedFields"])

    async def _create(
        self, call: Call, document: Document, operation: str, *, managed: list[Document] | None = None
    ) -> Stored:
        resource = call.resource
        document = rules.shaped(resource, rules.conceived(resource, document))
        document = await self._admission.admit(call, "CREATE", document, None)
        document = rules.shaped(resource, rules.born(resource, document))
        name = document["metadata"]["name"]
        rules.check(resource, document, None)
        await self._admission.validate(call, "CREATE", document, None)
        if managed is not None:
            document["metadata"]["managedFields"] = managed
        elif self._tracks_fields:
            writer = self._writer(call, operation)
            document["metadata"]["managedFields"] = ownership.updated(None, document, writer, resource.schema)
        if self._storage.find(resource, document["metadata"].get("namespace", ""), name) is not None:
            raise refusals.already_exists(resource.group, resource.plural, name)
        if call.dry_run:
            return Stored(document)
        return self._storage.write(resource, document, previous=None)

    async def _replace(
        self, call: Call, old: Stored, document: Document, *, managed: list[Document] | None = None
    ) -> Stored:
        resource = call.resource
        self._check_version(call, old, document)
        document = copy.deepcopy(document)
        document = rules.shaped(resource, rules.replaced(resource, old.document, document, call.subresource))
        document = await self._admission.admit(call, "UPDATE", document, old.document)
        document = rules.shaped(resource, rules.replaced(resource, old.document, document, call.subresource))
        rules.check(resource, document, old.document)
        await self._admission.validate(call, "UPDATE", document, old.document)
        self._own(call, old, document, managed)
        document["metadata"]["resourceVersion"] = old.meta["resourceVersion"]
        now = self._storage.get(resource, call.namespace, call.name)
        if now is not old:
            raise refusals.conflict(resource.group, resource.plural, call.name)
        if call.dry_run or _same(document, old.document):
            return Stored(document) if call.dry_run else old
        stored = self._storage.write(resource, document, previous=old)
        return self._finalize(call, stored)

    def _own(self, call: Call, old: Stored, document: Document, managed: list[Document] | None) -> None:
        if managed is not None:
            document["metadata"]["managedFields"] = managed
        elif self._tracks_fields:
            writer = self._writer(call, "Update")
            fields = ownership.updated(old.document, document, writer, call.resource.schema)
            document["metadata"]["managedFields"] = fields
            if not fields:
                del document["metadata"]["managedFields"]

    def _finalize(self, call: Call, stored: Stored) -> Stored:
        """An object that is being deleted goes with its last finalizer."""
        if stored.meta.get("deletionTimestamp") and not stored.meta.get("finalizers"):
            return self._storage.remove(call.resource, stored)
        return stored

    async def delete(self, call: Call) -> tuple[int, Any]:
        """200 and a Status, or the object while finalizers hold it."""
        options = _options(call)
        stored = self._storage.get(call.resource, call.namespace, call.name)
        self._check_preconditions(call, stored, options.get("preconditions") or {})
        await self._admission.admit(call, "DELETE", None, stored.document)
        await self._admission.validate(call, "DELETE", None, stored.document)
        if self._storage.find(call.resource, call.namespace, call.name) is not stored:
            raise refusals.conflict(call.resource.group, call.resource.plural, call.name)
        if call.dry_run or options.get("dryRun"):
            return 200, stored
        return 200, self.remove(call, stored, foreground=options.get("propagationPolicy") == "Foreground")

    def remove(self, call: Call, stored: Stored, *, foreground: bool = False) -> Any:
        """Delete, or begin to: finalizers are waited for."""
        resource, meta = call.resource, stored.meta
        finalizers = list(meta.get("finalizers", ()))
        if foreground and "foregroundDeletion" not in finalizers:
            finalizers.append("foregroundDeletion")
        if not finalizers:
            last = self._storage.remove(resource, stored)
            return _deleted(resource.group, resource.plural, last)
        if meta.get("deletionTimestamp"):
            return stored
        marked = {
            **meta,
            "deletionTimestamp": rules.now(),
            "deletionGracePeriodSeconds": 0,
            "finalizers": finalizers,
        }
        if resource.counted and "generation" in meta:
            marked["generation"] = meta["generation"] + 1
        return self._storage.write(resource, {**stored.document, "metadata": marked}, previous=stored)

    def _check_version(self, call: Call, old: Stored, document: Document) -> None:
        meta, resource = document["metadata"], call.resource
        if meta.get("resourceVersion") and meta["resourceVersion"] != old.meta["resourceVersion"]:
            raise refusals.conflict(resource.group, resource.plural, call.name)
        if meta.get("uid") and meta["uid"] != old.meta["uid"]:
            raise _precondition(call, "UID", meta["uid"], old.meta["uid"])

    def _check_preconditions(self, call: Call, stored: Stored, conditions: Document) -> None:
        for key in ("uid", "resourceVersion"):
            if conditions.get(key) and conditions[key] != stored.meta[key]:
                raise _precondition(call, key, conditions[key], stored.meta[key])

    def _check_namespace(self, call: Call) -> None:
        if not call.namespace:
            return
        place = self._storage.shelf_of("", "namespaces").objects.get(("", call.namespace))
        if place is None:
            raise refusals.not_found("", "namespaces", call.namespace)
        if place.meta.get("deletionTimestamp"):
            raise refusals.forbidden(
                f"unable to create new content in namespace {call.namespace} because it is being terminated"
            )

    def _check_unknown(self, call: Call, document: Document) -> None:
        if call.query.get("fieldValidation") != "Strict" or not call.resource.custom:
            return
        strange = list(schema.unknown(document, call.resource.schema))
        if strange:
            named = ", ".join(f'unknown field "{field}"' for field in strange)
            raise refusals.bad_request(f"strict decoding error: {named}")

    def _writer(self, call: Call, operation: str) -> ownership.Writer:
        return ownership.Writer(
            call.manager, operation, call.subresource, call.resource.api_version, rules.now()
        )


def _precondition(call: Call, key: str, wanted: str, found: str) -> refusals.Refused:
    why = f"Precondition failed: {key} in precondition: {wanted}, {key} in object meta: {found}"
    return refusals.conflict(call.resource.group, call.resource.plural, call.name, why)


def _body(call: Call, kind: str) -> Any:
    """The patch; apply takes YAML, which JSON is."""
    return (
        replace(call, content_type="application/yaml").decode() if kind in requests.APPLY else call.decode()
    )


def _patched(kind: str, target: Document, body: Any, shape: Any) -> Any:
    if kind == requests.JSON_PATCH:
        return patches.json_patch(target, body)
    if not isinstance(body, dict):
        raise refusals.bad_request("the patch is not an object")
    if kind == requests.STRATEGIC:
        return copy.deepcopy(patches.strategic(target, body, shape))
    return copy.deepcopy(patches.merge(target, body))


def _applicable(call: Call, config: Document) -> Document:
    """Apply to an object leaves its status alone, apply to the status everything else."""
    if call.subresource == "status":
        meta = {key: config["metadata"][key] for key in ("name", "namespace") if key in config["metadata"]}
        kept: Document = {key: config[key] for key in ("apiVersion", "kind", "status") if key in config}
        return {**kept, "metadata": meta}
    if call.resource.status:
        return {key: value for key, value in config.items() if key != "status"}
    return config


def _same(new: Document, old: Document) -> bool:
    """Equal but for the times of managedFields."""
    return _timeless(new) == _timeless(old)


def _timeless(document: Document) -> Document:
    meta = dict(document["metadata"])
    meta["managedFields"] = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in meta.get("managedFields", ())
    ]
    return {**document, "metadata": meta}


def _options(call: Call) -> Document:
    if not call.body:
        return {"propagationPolicy": call.query.get("propagationPolicy")}
    options = call.decode()
    if not isinstance(options, dict):
        raise refusals.bad_request("DeleteOptions expected")
    return options


def _deleted(group: str, plural: str, last: Stored) -> Document:
    details: Document = {"name": last.meta["name"], "kind": plural, "uid": last.meta["uid"]}
    if group:
        details["group"] = group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
