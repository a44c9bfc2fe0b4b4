"""With RBAC on, the emulated server grants what Roles and bindings say and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest

from tests.support.apiserver import ApiServer, User

_GROUP = "rbac.authorization.k8s.io"


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    """Knows one ServiceAccount, which may do nothing yet."""
    async with ApiServer(tokens={"t": User.service_account("default", "node")}, rbac=True) as serving:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "pull", "namespace": "default"}}
        serving.put(secret)
        yield serving


def _grant(server: ApiServer, kind: str, rules: list[dict[str, Any]]) -> None:
    binding = "ClusterRoleBinding" if kind == "ClusterRole" else "RoleBinding"
    server.put({"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": {"name": "r"}, "rules": rules})
    server.put(
        {
            "apiVersion": f"{_GROUP}/v1",
            "kind": binding,
            "metadata": {"name": "b"},
            "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": "r"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "node"}],
        }
    )


async def _ask(
    server: ApiServer, method: str, path: str, body: Any = None, token: str = "t"
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as http:
        return await http.request(method, path, json=body)


_SECRET = "/api/v1/namespaces/default/secrets/pull"


async def test_nothing_is_granted_by_itself(server: ApiServer) -> None:
    """403 names user, verb and resource; a stranger gets 401."""
    answer = await _ask(server, "GET", _SECRET)
    assert answer.status_code == 403
    wanted = 'User "system:serviceaccount:default:node" cannot get resource "secrets" in API group ""'
    assert wanted in answer.json()["message"]
    assert (await _ask(server, "GET", _SECRET, token="other")).status_code == 401


async def test_a_role_grants_by_name(server: ApiServer) -> None:
    """resourceNames: this Secret and no other, and no list."""
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["pull"]}]
    _grant(server, "Role", rules)
    assert (await _ask(server, "GET", _SECRET)).status_code == 200
    assert (await _ask(server, "GET", _SECRET.replace("pull", "other"))).status_code == 403
    assert (await _ask(server, "GET", _SECRET.replace("/pull", ""))).status_code == 403
    assert (await _ask(server, "GET", _SECRET.replace("default", "kube-system"))).status_code == 403


async def test_a_cluster_role_grants_everywhere(server: ApiServer) -> None:
    """Subresources are granted apart from their object."""
    _grant(server, "ClusterRole", [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]}])
    server.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
    assert (await _ask(server, "GET", "/api/v1/nodes/n")).status_code == 200
    assert (await _ask(server, "GET", "/api/v1/nodes/n/status")).status_code == 403


@pytest.mark.parametrize(("verbs", "code"), [(["create"], 403), (["create", "escalate"], 201)])
async def test_nobody_grants_what_he_has_not(server: ApiServer, verbs: list[str], code: int) -> None:
    """A Role with more than the writer holds needs the verb escalate."""
    _grant(server, "ClusterRole", [{"apiGroups": [_GROUP], "resources": ["roles"], "verbs": verbs}])
    role = {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "Role",
        "metadata": {"name": "more"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
    }
    answer = await _ask(server, "POST", f"/apis/{_GROUP}/v1/namespaces/default/roles", role)
    assert answer.status_code == code
