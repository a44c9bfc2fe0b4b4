"""The part of kustomize that ``daemonset/`` uses, for machines without kubectl.

Only the fields listed in ``_FIELDS`` are known; any other is an error, so that nothing is silently left out.
A test compares the result with ``kubectl kustomize`` where there is one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

Document = dict[str, Any]

_FIELDS: Final = frozenset(
    "apiVersion kind resources components labels images patches configMapGenerator".split()
)
_FILE: Final = "kustomization.yaml"


def build(folder: Path) -> list[Document]:
    """The objects of the kustomization in ``folder``, in the order in which they are to be created."""
    return sorted(_build(folder, []), key=_rank)


def sources(folder: Path) -> set[Path]:
    """Every file that the kustomization in ``folder`` is made of."""
    found = {folder / _FILE}
    spec = _load(folder)
    for entry in (*spec.get("resources", ()), *spec.get("components", ())):
        place = (folder / entry).resolve()
        found |= sources(place) if place.is_dir() else {place}
    for generator in spec.get("configMapGenerator", ()):
        found |= {folder / _split(entry)[1] for entry in generator["files"]}
    return found


def with_image(documents: Iterable[Document], image: str) -> list[Document]:
    """``documents`` with every image of ours replaced by ``image``."""
    changed = copy.deepcopy(list(documents))
    for container in _containers(changed):
        container["image"] = image
    return changed


def _build(folder: Path, inherited: list[Document]) -> list[Document]:
    spec = _load(folder)
    documents = inherited
    for entry in spec.get("resources", ()):
        place = (folder / entry).resolve()
        documents = documents + (_build(place, []) if place.is_dir() else _read(place))
    documents = documents + [
        _config_map(folder, generator) for generator in spec.get("configMapGenerator", ())
    ]
    for entry in spec.get("components", ()):
        documents = _build((folder / entry).resolve(), documents)
    for patch in spec.get("patches", ()):
        _patch(documents, patch)
    for labels in spec.get("labels", ()):
        _require(set(labels) == {"pairs"}, f"{folder}: labels with selectors")
        for document in documents:
            document["metadata"].setdefault("labels", {}).update(labels["pairs"])
    for image in spec.get("images", ()):
        _rename_images(documents, image)
    return documents


def _load(folder: Path) -> Mapping[str, Any]:
    spec = yaml.safe_load((folder / _FILE).read_text())
    _require(set(spec) <= _FIELDS, f"{folder}: unknown fields {sorted(set(spec) - _FIELDS)}")
    return dict(spec)


def _read(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document is not None]


def _config_map(folder: Path, generator: Mapping[str, Any]) -> Document:
    options = generator.get("options", {})
    _require(options.get("disableNameSuffixHash", False), f"{folder}: a generated name with a suffix")
    entries = [_split(entry) for entry in generator["files"]]
    metadata: Document = {"name": generator["name"]}
    if "namespace" in generator:
        metadata["namespace"] = generator["namespace"]
    if options.get("labels"):
        metadata["labels"] = dict(options["labels"])
    data = {key: (folder / path).read_text() for key, path in entries}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _split(entry: str) -> tuple[str, str]:
    """``key=path``, or a path whose last part is the key."""
    key, equals, path = entry.partition("=")
    return (key, path) if equals else (Path(entry).name, entry)


def _patch(documents: list[Document], patch: Mapping[str, Any]) -> None:
    target = patch["target"]
    found = [
        document
        for document in documents
        if document["kind"] == target["kind"] and document["metadata"]["name"] == target["name"]
    ]
    _require(bool(found), f"a patch has no target: {target}")
    for document in found:
        for step in yaml.safe_load(patch["patch"]):
            _step(document, step)


def _step(document: Document, step: Mapping[str, Any]) -> None:
    """One operation of RFC 6902."""
    _require(step["op"] in ("add", "replace"), f"patch operation {step['op']}")
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
    place: Any = document
    for part in way:
        place = place[int(part)] if isinstance(place, list) else place[part]
    if not isinstance(place, list):
        place[last] = step["value"]
    elif last == "-":
        place.append(step["value"])
    elif step["op"] == "add":
        place.insert(int(last), step["value"])
    else:
        place[int(last)] = step["value"]


def _rename_images(documents: list[Document], image: Mapping[str, str]) -> None:
    for container in _containers(documents):
        if container["image"] == image["name"]:
            name = image.get("newName", image["name"])
            container["image"] = (
                f"{name}@{image['digest']}" if "digest" in image else f"{name}:{image['newTag']}"
            )


def _containers(documents: Iterable[Document]) -> Iterable[Document]:
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        yield from (*pod.get("initContainers", ()), *pod.get("containers", ()))


_ORDER: Final = (
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "ConfigMap",
    "Service",
    "RuntimeClass",
)
_LAST: Final = (
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)


def _rank(document: Mapping[str, Any]) -> int:
    """What others stand on comes first, what may refuse others last."""
    kind = document["kind"]
    if kind in _ORDER:
        return _ORDER.index(kind)
    return len(_ORDER) + 1 + _LAST.index(kind) if kind in _LAST else len(_ORDER)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def walk(node: Any) -> Iterable[Any]:
    """``node`` and everything in it, mappings and lists and values."""
    yield node
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    for child in children:
        yield from walk(child)
