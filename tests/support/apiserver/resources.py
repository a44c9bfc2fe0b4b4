"""The kinds that the server knows: the built-in ones we use, and those of custom resource definitions.

A resource says how its objects are named, scoped, validated, merged and printed; it holds none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``; ``wide`` ones only with ``-o wide``."""

    name: str
    kind: str
    path: str
    wide: bool = False
    description: str = ""


@dataclass(frozen=True, eq=False)
class Resource:
    """One kind in one version. ``schema`` (OpenAPI v3) drives merging, and for custom ones validation."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    status: bool = False
    custom: bool = False
    schema: Schema = field(default_factory=dict)
    columns: tuple[Column, ...] = ()
    selectable: tuple[str, ...] = ()
    counted: bool = True  # has metadata.generation
    unconditional: bool = True  # may be replaced without a resourceVersion

    @property
    def key(self) -> tuple[str, str]:
        """Group and plural: what all versions share."""
        return self.group, self.plural

    @property
    def api_version(self) -> str:
        """``v1`` or ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def discovery(self) -> list[dict[str, Any]]:
        """Its entries of an APIResourceList."""
        entry: dict[str, Any] = {
            "name": self.plural,
            "singularName": self.singular or self.kind.lower(),
            "namespaced": self.namespaced,
            "kind": self.kind,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
        if self.short_names:
            entry["shortNames"] = list(self.short_names)
        if self.categories:
            entry["categories"] = list(self.categories)
        if not self.status:
            return [entry]
        verbs = ["get", "patch", "update"]
        status = {**entry, "name": f"{self.plural}/status", "singularName": "", "verbs": verbs}
        status.pop("shortNames", None)
        status.pop("categories", None)
        return [entry, status]


def _map(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _by(*keys: str, **properties: Any) -> dict[str, Any]:
    """A list whose items are known by these keys."""
    return {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": list(keys),
        "items": _map(**properties),
    }


_ATOMIC: Final = {"type": "array", "x-kubernetes-list-type": "atomic"}
_SET: Final = {"type": "array", "x-kubernetes-list-type": "set"}
METADATA: Final = _map(ownerReferences=_by("uid"), finalizers=_SET)
_CONDITIONS: Final = _map(conditions=_by("type"))
_CONTAINER: Final = {
    "env": _by("name"),
    "ports": _by("containerPort", "protocol"),
    "volumeMounts": _by("mountPath"),
    "volumeDevices": _by("devicePath"),
}
_POD: Final = _map(
    containers=_by("name", **_CONTAINER),
    initContainers=_by("name", **_CONTAINER),
    ephemeralContainers=_by("name", **_CONTAINER),
    volumes=_by("name"),
    imagePullSecrets=_by("name"),
    hostAliases=_by("ip"),
    tolerations=_ATOMIC,
    topologySpreadConstraints=_by("topologyKey", "whenUnsatisfiable"),
)
_WORKLOAD: Final = _map(
    spec=_map(template=_map(metadata=_map(), spec=_POD)), status=_CONDITIONS, metadata=METADATA
)


def _with(**properties: Any) -> dict[str, Any]:
    return _map(metadata=METADATA, **properties)


_AGE: Final = Column("Age", "string", ".metadata.creationTimestamp")
_MUTATING: Final = "mutatingwebhookconfigurations"
_VALIDATING: Final = "validatingwebhookconfigurations"

BUILT_IN: Final = (
    Resource("", "v1", "namespaces", "Namespace", short_names=("ns",), status=True, counted=False,
             schema=_with(), columns=(Column("Status", "string", ".status.phase"), _AGE)),
    Resource("", "v1", "nodes", "Node", short_names=("no",), status=True, counted=False,
             schema=_with(spec=_map(taints=_by("key", "effect")),
                          status=_map(conditions=_by("type"), addresses=_by("type"))),
             columns=(_AGE,), selectable=("spec.unschedulable",)),
    Resource("", "v1", "pods", "Pod", True, short_names=("po",), categories=("all",), status=True,
             counted=False, schema=_with(spec=_POD, status=_CONDITIONS),
             columns=(Column("Status", "string", ".status.phase"), _AGE),
             selectable=("spec.nodeName", "status.phase", "spec.schedulerName", "spec.restartPolicy")),
    Resource("", "v1", "secrets", "Secret", True, counted=False, schema=_with(), columns=(_AGE,),
             selectable=("type",)),
    Resource("", "v1", "configmaps", "ConfigMap", True, short_names=("cm",), counted=False, schema=_with(),
             columns=(_AGE,)),
    Resource("", "v1", "events", "Event", True, short_names=("ev",), counted=False, schema=_with(),
             columns=(_AGE,),
             selectable=("involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
                         "involvedObject.uid", "reason", "type", "reportingComponent", "source")),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", True, short_names=("sa",), counted=False,
             schema=_with(secrets=_by("name"), imagePullSecrets=_ATOMIC), columns=(_AGE,)),
    Resource("", "v1", "services", "Service", True, short_names=("svc",), categories=("all",), status=True,
             counted=False, schema=_with(spec=_map(ports=_by("port", "protocol"))), columns=(_AGE,)),
    Resource("events.k8s.io", "v1", "events", "Event", True, counted=False, schema=_with(), columns=(_AGE,)),
    Resource("coordination.k8s.io", "v1", "leases", "Lease", True, counted=False, unconditional=False,
             schema=_with(), columns=(Column("Holder", "string", ".spec.holderIdentity"), _AGE)),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role", True, counted=False,
             schema=_with(rules=_ATOMIC), columns=(_AGE,)),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", True, counted=False,
             schema=_with(subjects=_ATOMIC), columns=(_AGE,)),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", counted=False,
             schema=_with(rules=_ATOMIC), columns=(_AGE,)),
    Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", counted=False,
             schema=_with(subjects=_ATOMIC), columns=(_AGE,)),
    Resource("admissionregistration.k8s.io", "v1", _MUTATING, "MutatingWebhookConfiguration",
             schema=_with(webhooks=_by("name")), columns=(_AGE,)),
    Resource("admissionregistration.k8s.io", "v1", _VALIDATING, "ValidatingWebhookConfiguration",
             schema=_with(webhooks=_by("name")), columns=(_AGE,)),
    # Stored and never asked: what they would refuse is not emulated.
    Resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy",
             status=True, schema=_with(), columns=(_AGE,)),
    Resource("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings",
             "ValidatingAdmissionPolicyBinding", schema=_with(), columns=(_AGE,)),
    Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", counted=False, schema=_with(),
             columns=(Column("Handler", "string", ".handler"), _AGE)),
    Resource("apps", "v1", "deployments", "Deployment", True, short_names=("deploy",), categories=("all",),
             status=True, schema=_WORKLOAD, columns=(_AGE,)),
    Resource("apps", "v1", "daemonsets", "DaemonSet", True, short_names=("ds",), categories=("all",),
             status=True, schema=_WORKLOAD, columns=(_AGE,)),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, short_names=("pdb",),
             status=True, schema=_with(status=_CONDITIONS), columns=(_AGE,)),
    Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition",
             short_names=("crd", "crds"), status=True, schema=_with(), columns=(_AGE,)),
)  # fmt: skip


def of_definition(document: Mapping[str, Any]) -> list[Resource]:
    """The resources that a CustomResourceDefinition makes, one for each served version."""
    spec = document["spec"]
    return [_custom(spec, version) for version in spec["versions"] if version.get("served", True)]


def _custom(spec: Mapping[str, Any], version: Mapping[str, Any]) -> Resource:
    names = spec["names"]
    schema = dict(version.get("schema", {}).get("openAPIV3Schema", {}))
    schema["properties"] = {**schema.get("properties", {}), "metadata": METADATA}
    return Resource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        namespaced=spec["scope"] == "Namespaced",
        singular=names.get("singular", ""),
        short_names=tuple(names.get("shortNames", ())),
        categories=tuple(names.get("categories", ())),
        status="status" in version.get("subresources", {}),
        custom=True,
        schema=schema,
        columns=_columns(version),
        selectable=tuple(each["jsonPath"].removeprefix(".") for each in version.get("selectableFields", ())),
        unconditional=False,
    )


def _columns(version: Mapping[str, Any]) -> tuple[Column, ...]:
    given = version.get("additionalPrinterColumns")
    if given is None:
        return (_AGE,)
    return tuple(
        Column(
            each["name"],
            each["type"],
            each["jsonPath"],
            each.get("priority", 0) > 0,
            each.get("description", ""),
        )
        for each in given
    )
