"""Who may do what: Roles and bindings as they lie in the storage, and the guard against escalation.

Pure over the storage. A user of ``system:masters`` may do everything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.apiserver import refusals
from tests.support.apiserver.refusals import Refused
from tests.support.apiserver.requests import Call
from tests.support.apiserver.storage import Storage

GROUP = "rbac.authorization.k8s.io"
MASTERS = "system:masters"


@dataclass(frozen=True)
class User:
    """A name and its groups."""

    name: str
    groups: tuple[str, ...] = ()

    @classmethod
    def service_account(cls, namespace: str, name: str) -> User:
        """As the server names a ServiceAccount."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
        return cls(f"system:serviceaccount:{namespace}:{name}", groups)


Rule = Mapping[str, Any]


class Authorizer:
    """Answers for each request."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check(self, user: User, call: Call) -> None:
        """A refusal (403) when no rule allows the call, or when it would grant more than the user has."""
        if MASTERS in user.groups:
            return
        plural = f"{call.resource.plural}/{call.subresource}" if call.subresource else call.resource.plural
        if not self._allowed(user, call.verb, call.resource.group, plural, call.name, call.namespace):
            raise _forbidden(user, call, plural)
        if call.resource.group == GROUP and call.verb in ("create", "update", "patch"):
            self._check_escalation(user, call)

    def _allowed(self, user: User, verb: str, group: str, plural: str, name: str, namespace: str) -> bool:
        return any(_rule_fits(rule, verb, group, plural, name) for rule in self._rules(user, namespace))

    def _rules(self, user: User, namespace: str) -> Iterator[Rule]:
        for stored in self._storage.shelf_of(GROUP, "clusterrolebindings").objects.values():
            if _binds(stored.document, user):
                yield from self._role(stored.document["roleRef"], "")
        if namespace:
            for (place, _), stored in self._storage.shelf_of(GROUP, "rolebindings").objects.items():
                if place == namespace and _binds(stored.document, user):
                    yield from self._role(stored.document["roleRef"], namespace)

    def _role(self, reference: Mapping[str, Any], namespace: str) -> Iterator[Rule]:
        cluster = reference["kind"] == "ClusterRole"
        shelf = self._storage.shelf_of(GROUP, "clusterroles" if cluster else "roles")
        stored = shelf.objects.get(("" if cluster else namespace, reference["name"]))
        if stored is not None:
            yield from stored.document.get("rules") or ()

    def _check_escalation(self, user: User, call: Call) -> None:
        """Nobody grants what he has not, unless he may ``escalate`` or ``bind``."""
        document = call.decode()
        if not isinstance(document, dict):
            return
        if call.resource.plural in ("roles", "clusterroles"):
            rules, verb = list(document.get("rules") or ()), "escalate"
        else:
            rules = list(self._role(document["roleRef"], call.namespace)) if "roleRef" in document else []
            verb = "bind"
        name = call.name or document.get("metadata", {}).get("name", "")
        target = name if verb == "escalate" else document.get("roleRef", {}).get("name", "")
        plural = call.resource.plural if verb == "escalate" else _roles_of(document)
        if self._allowed(user, verb, GROUP, plural, target, call.namespace):
            return
        held = list(self._rules(user, call.namespace))
        lacking = [rule for rule in rules if not _covered(rule, held)]
        if lacking:
            raise refusals.forbidden(
                f'{call.resource.plural}.{GROUP} "{name}" is forbidden: user "{user.name}" is attempting '
                f"to grant RBAC permissions not currently held: {lacking}"
            )


def _roles_of(binding: Mapping[str, Any]) -> str:
    return "clusterroles" if binding.get("roleRef", {}).get("kind") == "ClusterRole" else "roles"


def _binds(binding: Mapping[str, Any], user: User) -> bool:
    return any(_is(subject, user) for subject in binding.get("subjects") or ())


def _is(subject: Mapping[str, Any], user: User) -> bool:
    match subject["kind"]:
        case "ServiceAccount":
            return bool(user.name == f"system:serviceaccount:{subject['namespace']}:{subject['name']}")
        case "User":
            return bool(user.name == subject["name"])
        case "Group":
            return subject["name"] in user.groups
    return False


def _rule_fits(rule: Rule, verb: str, group: str, plural: str, name: str) -> bool:
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("verbs") or (), verb)
        and _has(rule.get("apiGroups") or (), group)
        and _has_resource(rule.get("resources") or (), plural)
        and (not names or name in names)
    )


def _has_resource(named: Any, plural: str) -> bool:
    _, slash, subresource = plural.partition("/")
    return "*" in named or plural in named or bool(slash and f"*/{subresource}" in named)


def _has(values: Any, value: str) -> bool:
    return "*" in values or value in values


def _covered(rule: Rule, held: list[Rule]) -> bool:
    return all(
        any(_rule_fits(each, verb, group, plural, name) for each in held)
        for verb in rule.get("verbs") or ()
        for group in rule.get("apiGroups") or ()
        for plural in rule.get("resources") or ()
        for name in rule.get("resourceNames") or ("",)
    )


def _forbidden(user: User, call: Call, plural: str) -> Refused:
    resource, group = plural if call.name else call.resource.plural, call.resource.group
    where = f' in the namespace "{call.namespace}"' if call.namespace else " at the cluster scope"
    text = (
        f'{refusals.qualified(group, call.resource.plural)} "{call.name}" is forbidden: User "{user.name}" '
        f'cannot {call.verb} resource "{resource}" in API group "{group}"{where}'
    )
    return refusals.forbidden(text)
