"""Which Secrets the node daemons may read: exactly those that caches name, by name. Pure.

One Role with ``resourceNames`` and one RoleBinding in each namespace that has such Secrets, told by their
labels to be ours, and gone with the last cache that names a Secret there. Only Secrets made for pulling
images are granted: a cache can be made by people who may not read Secrets, and must not read others for them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import SecretName

NAME: Final = "imagecached-pull-secrets"
LABELS: Final = {"app.kubernetes.io/managed-by": "imagecached", "imagecached.dev/part": "pull-secrets"}
SELECTOR: Final = ",".join(f"{key}={value}" for key, value in LABELS.items())
_API: Final = "rbac.authorization.k8s.io/v1"
_ROLE_REF: Final = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME}
_DOCUMENTS: Final = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}


def role(namespace: str, secrets: Iterable[str]) -> dict[str, Any]:
    """The Role that lets its subjects read ``secrets`` and nothing else."""
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": sorted(secrets), "verbs": ["get"]}
    return {"apiVersion": _API, "kind": "Role", "metadata": _metadata(namespace), "rules": [rule]}


def binding(namespace: str, account: str, home: str) -> dict[str, Any]:
    """The RoleBinding for service account ``account`` of namespace ``home``."""
    return {
        "apiVersion": _API,
        "kind": "RoleBinding",
        "metadata": _metadata(namespace),
        "roleRef": dict(_ROLE_REF),
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": home}],
    }


def stands(
    found: Mapping[str, Any] | None, bound: Mapping[str, Any] | None, account: str, home: str
) -> frozenset[str] | None:
    """The Secrets that a namespace's Role and RoleBinding grant; None if somebody changed what they say."""
    if found is None and bound is None:
        return frozenset()
    if found is None or bound is None or not binds_ours(bound):
        return None
    same = bound.get("subjects") == binding("", account, home)["subjects"]
    return _granted_by(found) if same else None


def binds_ours(bound: Mapping[str, Any]) -> bool:
    """Is our Role what it gives? If not it must be made anew: the API never lets it be changed."""
    return bound.get("roleRef") == _ROLE_REF


def _granted_by(found: Mapping[str, Any]) -> frozenset[str] | None:
    try:
        names = frozenset(map(str, found["rules"][0]["resourceNames"]))
    except (LookupError, TypeError):
        return None
    return names if found["rules"] == role("", names)["rules"] else None


def pull_document(secret: SecretName, found: Mapping[str, Any]) -> bytes:
    """The docker config in a Secret. InvalidInput, without a word of its content, if it is not
    for pulling.
    """
    kind = found.get("type")
    key = _DOCUMENTS.get(kind) if isinstance(kind, str) else None
    if key is None:
        raise InvalidInput(f"Secret {secret} is not for pulling images: its type is {str(kind)[:80]!r}")
    data = found.get("data")
    text = data.get(key) if isinstance(data, Mapping) else None
    if not isinstance(text, str):
        raise InvalidInput(f"Secret {secret} has no data {key!r}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"Secret {secret}: data {key!r} is not base64") from None


def _metadata(namespace: str) -> dict[str, Any]:
    return {"name": NAME, "namespace": namespace, "labels": dict(LABELS)}
