"""What every object must be, and what the server itself fills in. Pure but for uids and names."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from tests.support.apiserver import refusals, schema
from tests.support.apiserver.refusals import Cause
from tests.support.apiserver.resources import Resource

Document = dict[str, Any]

MOST_OBJECT_BYTES = 1_572_864  # what etcd takes in one request
_MOST_ANNOTATION_BYTES = 256 << 10
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
_NAME = re.compile(_SUBDOMAIN)
_PATH_NAME = re.compile(r"[^/%]+")
_KEY = re.compile(rf"({_SUBDOMAIN}/)?{_LABEL}")
_VALUE = re.compile(rf"({_LABEL})?")
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_META: dict[str, Any] = {
    "name": str, "generateName": str, "namespace": str, "uid": str, "resourceVersion": str, "generation": int,
    "labels": dict, "annotations": dict, "ownerReferences": list, "finalizers": list, "managedFields": list,
    "creationTimestamp": (str, type(None)), "deletionTimestamp": (str, type(None)), "selfLink": str,
    "deletionGracePeriodSeconds": int,
}  # fmt: skip


def now() -> str:
    """The server's time as metadata holds it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def check_form(resource: Resource, document: Any, namespace: str, name: str = "") -> Document:
    """The body as an object of this resource at this place; a refusal when it is something else."""
    if not isinstance(document, dict):
        raise refusals.bad_request("the object provided is unrecognized: expected a JSON object")
    if document.get("apiVersion") != resource.api_version or document.get("kind") != resource.kind:
        given = f"{document.get('apiVersion')}, Kind={document.get('kind')}"
        raise refusals.bad_request(
            f"the API version in the data ({given}) does not match the expected API version "
            f"({resource.api_version}, Kind={resource.kind})"
        )
    meta = document.setdefault("metadata", {})
    _check_meta_types(meta)
    if resource.namespaced:
        if meta.setdefault("namespace", namespace) != namespace:
            raise refusals.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
    elif "namespace" in meta and meta.pop("namespace") != "":
        raise refusals.bad_request("namespace is not allowed on a cluster-scoped object")
    if name and meta.setdefault("name", name) != name:
        raise refusals.bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )
    return document


def _check_meta_types(meta: Any) -> None:
    if not isinstance(meta, dict):
        raise refusals.bad_request("json: cannot unmarshal metadata into Go value of type v1.ObjectMeta")
    for key in list(meta):
        if key not in _META:
            del meta[key]
        elif not isinstance(meta[key], _META[key]):
            if meta[key] is not None:
                raise refusals.bad_request(
                    f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{key}"
                )
            del meta[key]
    for key in ("labels", "annotations"):
        if any(not isinstance(value, str) for value in meta.get(key, {}).values()):
            raise refusals.bad_request(
                f"json: cannot unmarshal into Go struct field ObjectMeta.metadata.{key} of type string"
            )


def conceived(resource: Resource, document: Document) -> Document:
    """What create takes away before mutating admission, which sees neither uid nor a generated name."""
    meta = document["metadata"]
    if meta.get("resourceVersion"):
        raise refusals.bad_request("resourceVersion should not be set on objects to be created")
    for key in (
        "uid",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ):
        meta.pop(key, None)
    if resource.status and resource.custom:
        document.pop("status", None)
    return document


def born(resource: Resource, document: Document) -> Document:
    """What create adds after mutating admission, and before validating admission."""
    meta = document["metadata"]
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = meta["generateName"] + "".join(random.choices(_LETTERS, k=5))
    if not meta.get("name"):
        message = "Required value: name or generateName is required"
        raise _invalid(resource, "", [Cause("metadata.name", message, "FieldValueRequired")])
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now()
    if resource.counted:
        meta["generation"] = 1
    return document


def replaced(resource: Resource, old: Document, new: Document, subresource: str) -> Document:
    """``new`` as the next version of ``old``: what a writer may not touch stays."""
    meta = new["metadata"]
    if subresource == "status":
        kept = {
            **old,
            "metadata": {**old["metadata"], "managedFields": old["metadata"].get("managedFields", [])},
        }
        if not kept["metadata"]["managedFields"]:
            del kept["metadata"]["managedFields"]
        if not resource.custom:  # built-in kinds take labels and annotations through their status, too
            for key in ("labels", "annotations"):
                if key in meta:
                    kept["metadata"][key] = meta[key]
        return {**kept, "status": new["status"]} if "status" in new else _without(kept, "status")
    for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation",
                "generateName"):  # fmt: skip
        _carry(old["metadata"], meta, key)
    if resource.status:
        _carry(old, new, "status")
    if resource.counted and _spec(old, resource) != _spec(new, resource):
        meta["generation"] = old["metadata"]["generation"] + 1
    return new


def _spec(document: Mapping[str, Any], resource: Resource) -> Document:
    left_out = {"metadata", "apiVersion", "kind", *(["status"] if resource.status else [])}
    return {key: value for key, value in document.items() if key not in left_out}


def _carry(old: Mapping[str, Any], new: Document, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


def _without(document: Document, key: str) -> Document:
    return {name: value for name, value in document.items() if name != key}


def shaped(resource: Resource, document: Document) -> Document:
    """Pruned and with defaults, for custom resources; a namespace always has its name as a label."""
    if resource.plural == "namespaces":
        name_namespace(document)
    if not resource.custom:
        return document
    pruned: Document = schema.prune(document, resource.schema)
    schema.default(pruned, resource.schema)
    return pruned


def name_namespace(document: Document) -> None:
    """Give a namespace its name as a label, in place, as soon as it has one."""
    meta = document["metadata"]
    if meta.get("name"):
        meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]


def check(resource: Resource, document: Document, old: Document | None) -> None:
    """A refusal (422) that names every field that is wrong."""
    causes = [*_wrong_meta(resource, document["metadata"])]
    if old is not None:
        causes += _changed_meta(document["metadata"], old["metadata"])
        if document.get("roleRef") != old.get("roleRef"):
            causes.append(Cause("roleRef", "Invalid value: cannot change roleRef"))
    if resource.custom:
        causes += schema.validate(document, resource.schema, old)
    if causes:
        raise _invalid(resource, document["metadata"].get("name", ""), causes)
    size = len(msgspec.json.encode(document))
    if size > MOST_OBJECT_BYTES:
        raise refusals.Refused(
            413, "RequestEntityTooLarge", f"etcdserver: request is too large ({size} bytes)"
        )


def _invalid(resource: Resource, name: str, causes: list[Cause]) -> refusals.Refused:
    return refusals.invalid(resource.group, resource.kind, name, causes)


def _wrong_meta(resource: Resource, meta: Mapping[str, Any]) -> Iterator[Cause]:
    name = meta.get("name", "")
    allowed = _PATH_NAME if resource.group == "rbac.authorization.k8s.io" else _NAME
    if not allowed.fullmatch(name) or len(name) > 253:
        message = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.'"
        )
        yield Cause("metadata.name", f'Invalid value: "{name}": {message}')
    for key, value in meta.get("labels", {}).items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            yield Cause("metadata.labels", f'Invalid value: "{key}={value}": a valid label is required')
    annotations = meta.get("annotations", {})
    for key in annotations:
        if not _KEY.fullmatch(key.lower()):
            yield Cause("metadata.annotations", f'Invalid value: "{key}": a qualified name is required')
    if (
        sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
        > _MOST_ANNOTATION_BYTES
    ):
        yield Cause(
            "metadata.annotations",
            f"Too long: may not be more than {_MOST_ANNOTATION_BYTES} bytes",
            "FieldValueTooLong",
        )
    yield from _wrong_owners(meta.get("ownerReferences", ()))


def _wrong_owners(owners: Any) -> Iterator[Cause]:
    for number, owner in enumerate(owners):
        for key in ("apiVersion", "kind", "name", "uid"):
            if not isinstance(owner, dict) or not owner.get(key):
                yield Cause(
                    f"metadata.ownerReferences[{number}].{key}", "Required value", "FieldValueRequired"
                )
    if sum(bool(owner.get("controller")) for owner in owners if isinstance(owner, dict)) > 1:
        yield Cause("metadata.ownerReferences", "Only one reference can have Controller set to true")


def _changed_meta(new: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Cause]:
    if old.get("deletionTimestamp"):
        for added in set(new.get("finalizers", ())) - set(old.get("finalizers", ())):
            yield Cause(
                "metadata.finalizers",
                "Forbidden: no new finalizers can be added if the object is being deleted, "
                f'found new finalizers ["{added}"]',
                "FieldValueForbidden",
            )
