"""The kinds of objects that we use: where their paths are. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

Object = dict[str, Any]
Key = tuple[str, str]  # namespace (empty: none), name


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource in one version."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False

    @property
    def api_version(self) -> str:
        """``v1``, ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """The path of one object, or of all; namespaced kinds without a namespace: of all namespaces."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        rest = [self.plural, *(quote(part, safe="") for part in (name, subresource) if part)]
        return f"{base}{place}/{'/'.join(rest)}"

    def named(self, name: str, namespace: str = "") -> Object:
        """An object of this kind with nothing but its name."""
        metadata: Object = {"name": name}
        if namespace:
            metadata["namespace"] = namespace
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata}


def key_of(document: Object) -> Key:
    """Namespace and name of an object."""
    metadata = document["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


_RBAC: Final = "rbac.authorization.k8s.io"

IMAGE_CACHES: Final = Kind("eci.alibabacloud.com", "v1", "imagecaches", "ImageCache")
NODE_IMAGE_CACHES: Final = Kind("imagecached.dev", "v1alpha1", "nodeimagecaches", "NodeImageCache")
NODES: Final = Kind("", "v1", "nodes", "Node")
NAMESPACES: Final = Kind("", "v1", "namespaces", "Namespace")
PODS: Final = Kind("", "v1", "pods", "Pod", namespaced=True)
SECRETS: Final = Kind("", "v1", "secrets", "Secret", namespaced=True)
CONFIG_MAPS: Final = Kind("", "v1", "configmaps", "ConfigMap", namespaced=True)
EVENTS: Final = Kind("", "v1", "events", "Event", namespaced=True)
SERVICE_ACCOUNTS: Final = Kind("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
LEASES: Final = Kind("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
ROLES: Final = Kind(_RBAC, "v1", "roles", "Role", namespaced=True)
ROLE_BINDINGS: Final = Kind(_RBAC, "v1", "rolebindings", "RoleBinding", namespaced=True)
RUNTIME_CLASSES: Final = Kind("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass")
MUTATING_WEBHOOKS: Final = Kind(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration"
)
VALIDATING_WEBHOOKS: Final = Kind(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"
)
DEFINITIONS: Final = Kind(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"
)
DEPLOYMENTS: Final = Kind("apps", "v1", "deployments", "Deployment", namespaced=True)
DAEMON_SETS: Final = Kind("apps", "v1", "daemonsets", "DaemonSet", namespaced=True)
