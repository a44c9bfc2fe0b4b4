"""A cluster's API as the scenarios need it: plain documents, a deadline on every request, refusals as values.

Speaks HTTP by itself, so that the scenarios do not judge the product's client by the product's client; only
kubeconfig and its ways to log in are left to the library that reads them. Knows nothing of ImageCaches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

import httpx2 as httpx
import msgspec
from lightkube.config.client_adapter import Client, ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.core.exceptions import ConfigError

from tests.e2e.report import Failed

Document = dict[str, Any]
T = TypeVar("T")

_REQUEST_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.25
_TOKEN_SECONDS: Final = 6 * 3600
_MANAGER: Final = "imagecached-install"
_TABLE: Final = "application/json;as=Table;v=v1;g=meta.k8s.io"
_PASSING: Final = frozenset({429, 500, 502, 503, 504})
_CHURNING: Final = frozenset(
    "events leases endpoints endpointslices componentstatuses replicasets controllerrevisions".split()
)


class Kind(NamedTuple):
    """``apps/v1`` and ``Deployment``."""

    api_version: str
    kind: str


class Refused(Exception):
    """The API server said no."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


@dataclass(slots=True)
class Cluster:
    """The cluster that KUBECONFIG, or the account of this pod, leads to."""

    http: httpx.Client
    config: SingleConfig
    warnings: list[str] = field(default_factory=list)
    _plurals: dict[Kind, tuple[str, bool]] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> Cluster:
        """By KUBECONFIG and its current context."""
        config = KubeConfig.from_env().get()
        if config is None:
            raise ConfigError("the kubeconfig has no current context")
        # A proxy for registries is not one for the API server, unless the kubeconfig says so.
        parameters = ConnectionParams(timeout=httpx.Timeout(_REQUEST_SECONDS), trust_env=False)
        return cls(Client(config, parameters), config)

    def version(self) -> tuple[int, int]:
        """Of Kubernetes."""
        found = self._ask("GET", "/version")
        return int(found["major"]), int("".join(filter(str.isdigit, found["minor"])))

    def serves(self, kind: Kind) -> bool:
        """Does the cluster know objects of this kind?"""
        try:
            self._plural(kind)
        except Refused as refused:
            if refused.code == 404:
                return False
            raise
        return True

    def get(self, kind: Kind, name: str, namespace: str = "") -> Document | None:
        """The object, if it is there."""
        try:
            return self._ask("GET", f"{self._place(kind, namespace)}/{name}")
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, kind: Kind, namespace: str = "", **query: str) -> list[Document]:
        """All of them; an empty namespace means every one."""
        items: list[Document] = []
        token = ""
        while True:
            asked = {"limit": "500", **query, **({"continue": token} if token else {})}
            page = self._ask("GET", self._place(kind, namespace), query=asked)
            items += page.get("items") or []
            token = page["metadata"].get("continue", "")
            if not token:
                return items

    def table(self, kind: Kind) -> Document:
        """What kubectl prints from."""
        return self._ask("GET", self._place(kind, ""), headers={"Accept": _TABLE})

    def create(self, document: Document, *, dry_run: bool = False) -> Document:
        """As ``kubectl create`` does; warnings are in :attr:`warnings`."""
        query = {"dryRun": "All"} if dry_run else {}
        return self._ask("POST", self._place(*_home(document)), query=query, body=document)

    def apply(self, document: Document) -> Document:
        """As ``kubectl apply --server-side --force-conflicts`` does."""
        query = {"fieldManager": _MANAGER, "force": "true"}
        path = f"{self._place(*_home(document))}/{document['metadata']['name']}"
        return self._ask("PATCH", path, query=query, body=document, kind="application/apply-patch+yaml")

    def merge(self, kind: Kind, name: str, patch: Mapping[str, Any], namespace: str = "") -> Document:
        """A merge patch."""
        path = f"{self._place(kind, namespace)}/{name}"
        return self._ask("PATCH", path, body=patch, kind="application/merge-patch+json")

    def delete(self, kind: Kind, name: str, namespace: str = "", *, grace: int | None = None) -> None:
        """Ask for it to go; no error if it, or its kind, is not there."""
        body = {"propagationPolicy": "Background"}
        try:
            path = f"{self._place(kind, namespace)}/{name}"
            self._ask("DELETE", path, body=body if grace is None else {**body, "gracePeriodSeconds": grace})
        except Refused as refused:
            if refused.code != 404:
                raise

    def bind(self, pod: str, namespace: str, node: str) -> None:
        """The scheduler's part, where there is none."""
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod, "namespace": namespace}}
        self._ask(
            "POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/binding", body={**binding, "target": target}
        )

    def end_namespace(self, name: str) -> None:
        """The namespace controller's part, where there is none: empty it, then let it go."""
        for resource, namespace, each in self.identities():
            if namespace == name:
                self._ask("DELETE", f"{self._prefix_of(resource)}/namespaces/{name}/{resource}/{each}")
        found = self.get(Kind("v1", "Namespace"), name)
        if found is not None:
            body = {**found, "spec": {"finalizers": []}}
            self._ask("PUT", f"/api/v1/namespaces/{name}/finalize", body=body)

    def revision(self, kind: Kind) -> str:
        """The version of the cluster's state now, from which a watch misses nothing."""
        return str(
            self._ask("GET", self._place(kind, ""), query={"limit": "1"})["metadata"]["resourceVersion"]
        )

    def watch(self, kind: Kind, name: str, seconds: float, since: str) -> Iterator[Document]:
        """Every version of one object after the revision ``since``, for at most ``seconds``."""
        query = {
            "watch": "true",
            "resourceVersion": since,
            "fieldSelector": f"metadata.name={name}",
            "timeoutSeconds": f"{seconds:.0f}",
        }
        with self.http.stream("GET", self._place(kind, ""), params=query, timeout=seconds + 5) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield event["object"]

    def account_kubeconfig(self, namespace: str, account: str, node: str) -> Document:
        """A kubeconfig with which a process is this service account, bound to this node if one is named."""
        path = f"{self._place(Kind('v1', 'ServiceAccount'), namespace)}/{account}/token"
        spec: Document = {"audiences": [], "expirationSeconds": _TOKEN_SECONDS}
        request: Document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        if node:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Node", "name": node}
        return self.kubeconfig({"token": self._ask("POST", path, body=request)["status"]["token"]})

    def kubeconfig(self, user: Document | None = None) -> Document:
        """A kubeconfig for this cluster and ``user``: the same as here if none is given."""
        if user is None:
            user = _texts(self.config.user)
        given = self.config.cluster
        cluster: Document = {"server": given.server, "insecure-skip-tls-verify": given.insecure}
        if given.certificate_auth:
            cluster["certificate-authority"] = str(self.config.abs_file(given.certificate_auth))
        if given.certificate_auth_data:
            cluster["certificate-authority-data"] = given.certificate_auth_data
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "e2e", "cluster": cluster}],
            "users": [{"name": "e2e", "user": user}],
            "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
            "current-context": "e2e",
        }

    def identities(self) -> set[tuple[str, str, str]]:
        """Resource, namespace and name of every object, but for those that come and go by themselves."""
        found = set()
        for prefix in self._groups():
            for resource in self._ask("GET", prefix)["resources"]:
                name = resource["name"]
                if "/" in name or name in _CHURNING or "list" not in resource["verbs"]:
                    continue
                try:
                    items = self._ask("GET", f"{prefix}/{name}", query={"limit": "5000"}).get("items") or []
                except Refused:  # an aggregated API without its server, or nothing for us to see
                    continue
                found |= {
                    (name, each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in items
                }
        return found

    def _prefix_of(self, resource: str) -> str:
        for prefix in self._groups():
            if any(each["name"] == resource for each in self._ask("GET", prefix)["resources"]):
                return prefix
        raise Refused(404, f"the cluster has no {resource}")

    def _groups(self) -> Iterator[str]:
        yield "/api/v1"
        for group in self._ask("GET", "/apis")["groups"]:
            yield f"/apis/{group['preferredVersion']['groupVersion']}"

    def _place(self, kind: Kind, namespace: str) -> str:
        plural, namespaced = self._plural(kind)
        inner = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return f"{_prefix(kind)}{inner}/{plural}"

    def _plural(self, kind: Kind) -> tuple[str, bool]:
        if kind not in self._plurals:
            for resource in self._ask("GET", _prefix(kind))["resources"]:
                if "/" not in resource["name"]:
                    known = Kind(kind.api_version, resource["kind"])
                    self._plurals[known] = resource["name"], resource["namespaced"]
        if kind not in self._plurals:
            raise Refused(404, f"the cluster has no {kind.kind} of {kind.api_version}")
        return self._plurals[kind]

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        kind: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> Document:
        content = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": kind, "Accept": "application/json", **(headers or {})}
        try:
            answer = self.http.request(method, path, params=query, content=content, headers=sent)
        except httpx.TransportError as error:
            raise Refused(503, f"the API server cannot be reached: {error}") from error
        self.warnings += answer.headers.get_list("Warning")
        if answer.is_success:
            return dict(answer.json())
        raise Refused(answer.status_code, _message(answer))


def holds(document: Document, kind: str) -> bool:
    """Is a condition of the object true? The list of them may be null."""
    conditions = document.get("status", {}).get("conditions") or ()
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


def wait_for(ask: Callable[[], T | None], what: str, seconds: float, why: Callable[[], str] = str) -> T:
    """The first answer that is something; Failed at the deadline, with ``why`` there was none.

    An API server that is busy or starting anew is asked again.
    """
    deadline = time.monotonic() + seconds
    passing = ""
    while True:
        try:
            answer = ask()
            passing = ""
        except Refused as refused:
            if refused.code not in _PASSING:
                raise
            answer, passing = None, str(refused)
        if answer is not None and answer is not False:
            return answer
        if time.monotonic() > deadline:
            reason = passing or why()
            raise Failed(f"{what}: not within {seconds:g} s{f'; {reason}' if reason else ''}")
        time.sleep(_POLL_SECONDS)  # noqa: TID251  a foreign cluster: many questions have no watch


def _texts(user: Any) -> Document:
    """A user of a kubeconfig as it is written there."""
    found: Document = {} if user is None else msgspec.to_builtins(user)
    return {key: value for key, value in found.items() if value is not None}


def _prefix(kind: Kind) -> str:
    return f"/apis/{kind.api_version}" if "/" in kind.api_version else f"/api/{kind.api_version}"


def _home(document: Mapping[str, Any]) -> tuple[Kind, str]:
    return Kind(document["apiVersion"], document["kind"]), document["metadata"].get("namespace", "")


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:500]
