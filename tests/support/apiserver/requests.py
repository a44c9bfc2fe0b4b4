"""A request of the API, taken apart: which resource, which object, which verb, which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from tests.support.apiserver import refusals
from tests.support.apiserver.refusals import Cause
from tests.support.apiserver.resources import Resource

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = ("application/apply-patch+yaml", "application/apply-patch+cbor")


@dataclass(frozen=True, eq=False)
class Call:
    """``verb`` is the one that RBAC knows; ``user`` is who asks; ``warnings`` go with the answer."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    query: Mapping[str, str]
    content_type: str
    body: bytes
    user: str
    accept: str = ""
    agent: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def dry_run(self) -> bool:
        """Do everything but write."""
        value = self.query.get("dryRun", "")
        if value not in ("", "All"):
            raise refusals.bad_request(f'Invalid value: "{value}": dryRun supports only "All"')
        return bool(value)

    @property
    def manager(self) -> str:
        """The name under which the writer owns fields."""
        return self.query.get("fieldManager") or self.agent.split("/")[0] or "unknown"

    def decode(self) -> Any:
        """The body as a document; YAML as well."""
        try:
            if "yaml" in self.content_type:
                return yaml.safe_load(self.body)
            return msgspec.json.decode(self.body)
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise refusals.bad_request(f"error decoding the body: {error}") from None

    def flag(self, name: str) -> bool:
        """A parameter that is true or false."""
        return self.query.get(name, "").lower() in ("true", "1")

    def number(self, name: str) -> int | None:
        """A parameter that is a number, or None."""
        text = self.query.get(name, "")
        if not text:
            return None
        if not text.isdigit():
            raise refusals.bad_request(f'Invalid value: "{text}": {name} must be a number')
        return int(text)


class Paths:
    """Finds the resource that a path names."""

    def __init__(self) -> None:
        self._resources: dict[tuple[str, str, str], Resource] = {}

    def add(self, resource: Resource) -> None:
        """Serve a resource."""
        self._resources[resource.group, resource.version, resource.plural] = resource

    def drop(self, group: str, plural: str) -> None:
        """Serve it no more, in any version."""
        for key in [key for key in self._resources if (key[0], key[2]) == (group, plural)]:
            del self._resources[key]

    def all(self) -> list[Resource]:
        """Every resource in every version."""
        return list(self._resources.values())

    def find(self, group: str, plural: str) -> Resource | None:
        """The resource in one of its versions."""
        return next((each for each in self.all() if each.key == (group, plural)), None)

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        """The resource of an object."""
        return next(
            (each for each in self.all() if (each.api_version, each.kind) == (api_version, kind)), None
        )

    def parse(self, path: str) -> tuple[Resource, str, str, str]:
        """Resource, namespace, name and subresource of a path; empty where it has none."""
        parts = path.strip("/").split("/")
        match parts:
            case ["api", version, *rest]:
                group = ""
            case ["apis", group, version, *rest]:
                pass
            case _:
                raise refusals.no_such_path()
        namespace = ""
        if len(rest) > 2 and rest[0] == "namespaces" and rest[2] != "status":
            namespace, rest = rest[1], rest[2:]
        resource = self._resources.get((group, version, rest[0] if rest else ""))
        if resource is None or len(rest) > 3:
            raise refusals.no_such_path()
        if namespace and not resource.namespaced:
            raise refusals.no_such_path()
        name, subresource = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
        if resource.namespaced and name and not namespace:
            raise refusals.no_such_path()
        if subresource and not (subresource == "status" and resource.status):
            raise refusals.no_such_path()
        return resource, namespace, name, subresource


def verb_of(method: str, name: str, query: Mapping[str, str]) -> str:
    """The verb as RBAC calls it."""
    watches = query.get("watch", "").lower() in ("true", "1")
    verbs = {
        ("GET", False): "watch" if watches else "list",
        ("GET", True): "get",
        ("POST", False): "create",
        ("PUT", True): "update",
        ("PATCH", True): "patch",
        ("DELETE", True): "delete",
        ("DELETE", False): "deletecollection",
    }
    verb = verbs.get((method, bool(name)))
    if verb is None:
        raise refusals.method_not_allowed()
    return verb


def check_patch_type(call: Call) -> str:
    """The media type of a patch, if the resource takes it."""
    kind = call.content_type.split(";")[0].strip()
    accepted = [JSON_PATCH, MERGE, *([] if call.resource.custom else [STRATEGIC]), APPLY[0]]
    if kind not in accepted:
        raise refusals.unsupported_media_type(accepted)
    if kind == APPLY[0] and not call.query.get("fieldManager"):
        missing = Cause("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
        raise refusals.invalid("meta.k8s.io", "PatchOptions", "", [missing])
    return kind
