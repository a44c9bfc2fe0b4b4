"""What the API server decides by our expressions: who is sent to the webhook, and what the policies refuse.

The expressions are evaluated by a real CEL library, with objects as the API server would give them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from imagecached.imagecache.annotations import AUTO_MATCH, EXPLICIT_ID
from imagecached.kube.controller import grants
from tests.e2e.kustomize import build
from tests.support.apiserver.schema import evaluate

BASE: Final = build(Path(__file__).resolve().parents[3] / "daemonset")
SYSTEM: Final = "imagecached-system"
NODE_ACCOUNT: Final = f"system:serviceaccount:{SYSTEM}:imagecached-node"
CONTROLLER_ACCOUNT: Final = f"system:serviceaccount:{SYSTEM}:imagecached-controller"
NODE_NAME: Final = "authentication.kubernetes.io/node-name"


def _one(kind: str, name: str) -> dict[str, Any]:
    [found] = [each for each in BASE if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def _asked(annotations: dict[str, str] | None) -> list[str]:
    """The webhooks that a pod with these annotations is sent to."""
    pod: dict[str, Any] = {"metadata": {} if annotations is None else {"annotations": annotations}}
    data = {"object": pod, "oldObject": None, "request": {}}
    return [
        webhook["name"].partition(".")[0]
        for webhook in _one("MutatingWebhookConfiguration", "imagecached")["webhooks"]
        if all(evaluate(each["expression"], data) is True for each in webhook["matchConditions"])
    ]


@pytest.mark.parametrize("annotations", [None, {}, {"other": "true"}, {AUTO_MATCH[0]: "false"}])
def test_pods_that_ask_for_nothing_are_sent_nowhere(annotations: dict[str, str] | None) -> None:
    """They neither wait for us nor fail with us."""
    assert _asked(annotations) == []


@pytest.mark.parametrize("key", AUTO_MATCH)
def test_each_spelling_of_automatic_matching_is_sent_to_the_one_that_fails_open(key: str) -> None:
    """And to that one only."""
    assert _asked({key: "true"}) == ["auto"]


@pytest.mark.parametrize("key", EXPLICIT_ID)
def test_a_pod_that_names_a_cache_is_sent_to_the_one_that_fails_closed(key: str) -> None:
    """Whatever else it asks for: the id goes before automatic matching."""
    assert _asked({key: "imc-1"}) == ["explicit"]
    assert _asked({key: "imc-1", **dict.fromkeys(AUTO_MATCH, "true")}) == ["explicit"]


def _refusal(policy: str, **data: Any) -> str | None:
    """What the policy says to a request: None if it lets it pass, also for not being meant for it."""
    spec = _one("ValidatingAdmissionPolicy", policy)["spec"]
    given = {"object": None, "oldObject": None, **data}
    conditions = [evaluate(each["expression"], given) for each in spec.get("matchConditions", ())]
    if False in conditions:
        return None
    assert set(conditions) <= {True}
    for validation in spec["validations"]:
        expression = validation["expression"]
        for each in spec.get("variables", ()):
            expression = expression.replace(f"variables.{each['name']}", f"({each['expression']})")
        if evaluate(expression, given) is not True:  # an error counts as no, by failurePolicy
            return str(validation["message"])
    return None


def _node_request(name: str, node: str | None, user: str = NODE_ACCOUNT) -> dict[str, Any]:
    extra = {} if node is None else {"extra": {NODE_NAME: [node]}}
    return {
        "request": {"userInfo": {"username": user, **extra}, "operation": "UPDATE", "name": name},
        "object": {"metadata": {"name": name}},
    }


def test_a_daemon_writes_its_own_node_only() -> None:
    """By the node that its token is bound to; a token of no node writes none."""
    assert _refusal("imagecached-node", **_node_request("n1", "n1")) is None
    assert _refusal("imagecached-node", **_node_request("n2", "n1")) is not None
    assert _refusal("imagecached-node", **_node_request("n1", None)) is not None
    assert _refusal("imagecached-node", **_node_request("n1", None, user="admin")) is None


def _labelling(before: dict[str, str] | None, after: dict[str, str] | None, **spec: Any) -> str | None:
    def node(labels: dict[str, str] | None, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": "n1", **({} if labels is None else {"labels": labels})}, "spec": spec}

    request = {"userInfo": {"username": CONTROLLER_ACCOUNT}, "operation": "UPDATE", "name": "n1"}
    return _refusal(
        "imagecached-controller-nodes", request=request, oldObject=node(before), object=node(after, **spec)
    )


def test_the_controller_changes_labels_of_ours_and_nothing_else_of_a_node() -> None:
    """Ours come, change and go; another's, a taint or a cordon is refused."""
    ours = {"imagecached.dev/imc-1": "ready"}
    assert _labelling(None, ours) is None
    assert _labelling({"a": "b", **ours}, {"a": "b"}) is None
    assert _labelling({"a": "b"}, {"a": "b", "imagecached.dev/handler": "ready"}) is None
    assert _labelling({"a": "b"}, {"a": "c"}) is not None
    assert _labelling({"a": "b"}, ours) is not None
    assert _labelling({}, {"node-role.kubernetes.io/control-plane": ""}) is not None
    assert _labelling({}, ours, unschedulable=True) is not None


def _granting(document: dict[str, Any], resource: str, operation: str = "CREATE") -> str | None:
    name = "" if operation == "CREATE" else document["metadata"]["name"]
    request = {
        "userInfo": {"username": CONTROLLER_ACCOUNT},
        "operation": operation,
        "name": name,
        "resource": {"group": "rbac.authorization.k8s.io", "version": "v1", "resource": resource},
    }
    return _refusal("imagecached-controller-grants", request=request, object=document)


def test_the_controller_grants_what_it_is_made_to_grant() -> None:
    """The very Role and RoleBinding that the code makes pass."""
    role, binding = grants.role("team", ["pull"]), grants.binding("team", "imagecached-node", SYSTEM)
    for operation in ("CREATE", "UPDATE", "DELETE"):
        assert _granting(role, "roles", operation) is None
        assert _granting(binding, "rolebindings", operation) is None


@pytest.mark.parametrize(
    "rule",
    [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"], "resourceNames": ["a"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["a"]},
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    ],
)
def test_a_wider_role_is_refused(rule: dict[str, Any]) -> None:
    """All Secrets of a namespace, another verb, another resource."""
    role = {**grants.role("team", ["pull"]), "rules": [rule]}
    assert _granting(role, "roles") is not None


def test_a_grant_to_others_or_by_another_name_is_refused() -> None:
    """To people, to accounts elsewhere, of a ClusterRole, or under a name that is not ours."""
    binding = grants.binding("team", "imagecached-node", SYSTEM)
    for change in (
        {"subjects": [{"kind": "User", "name": "eve"}]},
        {"subjects": [{"kind": "ServiceAccount", "name": "imagecached-node", "namespace": "team"}]},
        {"roleRef": {**binding["roleRef"], "kind": "ClusterRole", "name": "admin"}},
        {"metadata": {"name": "other", "namespace": "team"}},
    ):
        assert _granting({**binding, **change}, "rolebindings") is not None
    foreign = {"metadata": {"name": "other", "namespace": "team"}}
    assert _granting(foreign, "roles", "DELETE") is not None


def _placed(workload: dict[str, str] | None, template: dict[str, str] | None) -> str | None:
    def metadata(annotations: dict[str, str] | None) -> dict[str, Any]:
        return {} if annotations is None else {"annotations": annotations}

    document = {"metadata": metadata(workload), "spec": {"template": {"metadata": metadata(template)}}}
    return _refusal("imagecached-placement", object=document, request={})


def test_annotations_in_the_wrong_place_are_told() -> None:
    """On the workload alone they do nothing; on the template, or on both as Knative has them, all is well."""
    notes = {AUTO_MATCH[1]: "true"}
    told = _placed(notes, None)
    assert told is not None
    assert "spec.template.metadata.annotations" in told
    assert _placed({EXPLICIT_ID[1]: "imc-1"}, {}) is not None
    assert _placed(None, notes) is None
    assert _placed({"other": "x"}, None) is None
    assert _placed(notes, notes) is None
