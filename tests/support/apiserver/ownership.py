"""Who set which field: ``managedFields``, and server-side apply on top of it.

A field is a path of the elements that fieldsV1 knows: ``f:name``, ``k:{"name":"x"}``, ``v:"x"``. Pure.
Simpler than structured-merge-diff in one way: an empty map is owned as one field, others by their leaves.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.support.apiserver import refusals
from tests.support.apiserver.refusals import Cause

Path = tuple[str, ...]
Fields = frozenset[Path]
Document = dict[str, Any]

_UNOWNED = frozenset(
    ("f:metadata", f"f:{name}")
    for name in (
        *("name", "namespace", "uid", "creationTimestamp", "generation", "managedFields", "resourceVersion"),
        *("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"),
    )
)


@dataclass(frozen=True)
class Writer:
    """Who writes: ``operation`` is Apply or Update; ``subresource`` is status or empty."""

    name: str
    operation: str
    subresource: str
    api_version: str
    time: str

    def same(self, entry: Mapping[str, Any]) -> bool:
        """Is ``entry`` of managedFields ours?"""
        return (self.name, self.operation, self.subresource, self.api_version) == (
            entry["manager"], entry["operation"], entry.get("subresource", ""), entry["apiVersion"],
        )  # fmt: skip

    def entry(self, fields: Fields) -> Document:
        """Our entry of managedFields."""
        entry: Document = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(fields),
        }
        return {**entry, "subresource": self.subresource} if self.subresource else entry


def fields_of(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Fields:
    """Every field that somebody can own."""
    return _ownable(path for path, _ in _leaves(_bare(document), schema, ()))


def _leaves(value: Any, schema: Mapping[str, Any], path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping) and value and schema.get("x-kubernetes-map-type") != "atomic":
        named, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            inner = named.get(key, rest if isinstance(rest, Mapping) else {})
            yield from _leaves(item, inner, (*path, f"f:{key}"))
    elif isinstance(value, list) and value and schema.get("x-kubernetes-list-type") in ("map", "set"):
        for item in value:
            element = element_of(item, schema)
            yield (*path, element), None
            if element.startswith("k:"):
                yield from _leaves(item, schema.get("items", {}), (*path, element))
    else:
        yield path, value


def element_of(item: Any, schema: Mapping[str, Any]) -> str:
    """How a list names one of its items."""
    if schema["x-kubernetes-list-type"] == "set":
        return "v:" + json.dumps(item, separators=(",", ":"))
    keys = {key: item[key] for key in schema["x-kubernetes-list-map-keys"] if key in item}
    return "k:" + json.dumps(keys, separators=(",", ":"), sort_keys=True)


def differing(
    old: Mapping[str, Any], new: Mapping[str, Any], schema: Mapping[str, Any]
) -> tuple[Fields, Fields]:
    """Fields that are new or have another value, and fields that are gone."""
    before = dict(_leaves(_bare(old), schema, ()))
    after = dict(_leaves(_bare(new), schema, ()))
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    return _ownable(changed), _ownable(before.keys() - after.keys())


def _bare(document: Mapping[str, Any]) -> Document:
    return {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}


def _ownable(paths: Iterable[Path]) -> Fields:
    return frozenset(path for path in paths if path[:2] not in _UNOWNED and path not in ((), ("f:metadata",)))


def updated(old: Document | None, new: Document, writer: Writer, schema: Mapping[str, Any]) -> list[Document]:
    """managedFields after a create, update or patch by ``writer``."""
    entries = list((old or {}).get("metadata", {}).get("managedFields", ()))
    changed, gone = differing(old or {}, new, schema)
    if not changed and not gone:
        return entries
    kept = []
    mine: Fields = frozenset()
    for entry in entries:
        fields = frozenset(_paths(entry["fieldsV1"], ()))
        if writer.same(entry):
            mine = fields
            continue
        left = fields - changed - gone
        if left:
            kept.append(entry if left == fields else {**entry, "fieldsV1": _tree(left)})
    mine = (mine | changed) - gone
    return [*kept, writer.entry(mine)] if mine else kept


def applied(
    live: Document | None, config: Document, writer: Writer, schema: Mapping[str, Any], *, force: bool
) -> Document:
    """The object after ``writer`` applied ``config``; a refusal names the fields that others own."""
    wanted = fields_of(config, schema)
    entries = (live or {}).get("metadata", {}).get("managedFields", [])
    others = {number: frozenset(_paths(entry["fieldsV1"], ())) for number, entry in enumerate(entries)
              if not writer.same(entry)}  # fmt: skip
    before = next(
        (frozenset(_paths(entry["fieldsV1"], ())) for entry in entries if writer.same(entry)), frozenset()
    )
    merged: Document = _merged(live or {}, _without_managed(config), schema)
    taken = frozenset().union(*others.values()) if others else frozenset()
    for path in sorted(before - wanted - taken, key=len, reverse=True):
        _remove(merged, path, schema)
    changed, _ = differing(live or {}, merged, schema)
    causes = [
        Cause(_shown(path), _holder(entries[number]), "FieldManagerConflict")
        for number, fields in others.items()
        for path in sorted(fields & changed & wanted)
    ]
    if causes and not force:
        raise refusals.apply_conflict(causes)
    kept = [_left(entries[number], fields, changed & wanted) for number, fields in others.items()]
    meta = {**merged.get("metadata", {}), "managedFields": [*filter(None, kept), writer.entry(wanted)]}
    return {**merged, "metadata": meta}


def _left(entry: Document, fields: Fields, lost: Fields) -> Document | None:
    left = fields - lost
    if not left:
        return None
    return entry if left == fields else {**entry, "fieldsV1": _tree(left)}


def _holder(entry: Mapping[str, Any]) -> str:
    using = "" if entry["operation"] == "Apply" else f" using {entry['apiVersion']}"
    return f'conflict with "{entry["manager"]}"{using}'


def _without_managed(config: Document) -> Document:
    meta = {key: value for key, value in config.get("metadata", {}).items() if key != "managedFields"}
    return {**config, "metadata": meta}


def _merged(live: Any, config: Any, schema: Mapping[str, Any]) -> Any:
    if (
        isinstance(config, Mapping)
        and isinstance(live, Mapping)
        and schema.get("x-kubernetes-map-type") != "atomic"
    ):
        named, rest = schema.get("properties", {}), schema.get("additionalProperties")
        result = dict(live)
        for key, value in config.items():
            inner = named.get(key, rest if isinstance(rest, Mapping) else {})
            result[key] = _merged(live.get(key), value, inner)
        return result
    kind = schema.get("x-kubernetes-list-type")
    if isinstance(config, list) and isinstance(live, list) and kind in ("map", "set"):
        items = {element_of(item, schema): item for item in live}
        for item in config:
            known = items.get(element_of(item, schema))
            items[element_of(item, schema)] = _merged(known, item, schema.get("items", {}))
        return list(items.values())
    return copy.deepcopy(config)


def _remove(document: Any, path: Path, schema: Mapping[str, Any]) -> None:
    """Take the field at ``path`` away, in place of copies; nothing when it is gone already."""
    for number, element in enumerate(path):
        last = number == len(path) - 1
        if element.startswith("f:"):
            key = element[2:]
            if not isinstance(document, dict) or key not in document:
                return
            if last:
                del document[key]
                return
            rest = schema.get("additionalProperties")
            schema = schema.get("properties", {}).get(key, rest if isinstance(rest, Mapping) else {})
            document[key] = copy.copy(document[key])
            document = document[key]
        else:
            index = next(
                (at for at, item in enumerate(document) if element_of(item, schema) == element), None
            )
            if index is None:
                return
            if last:
                del document[index]
                return
            schema = schema.get("items", {})
            document[index] = copy.copy(document[index])
            document = document[index]


def _tree(fields: Fields) -> Document:
    tree: Document = {}
    for path in sorted(fields):
        place = tree
        for element in path:
            place = place.setdefault(element, {})
        if not path[-1].startswith("f:") and path[-1].startswith("k:"):
            place.setdefault(".", {})
    return tree


def _paths(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for element, inner in tree.items():
        if element == ".":
            yield path
        elif not inner:
            yield (*path, element)
        else:
            yield from _paths(inner, (*path, element))


def _shown(path: Path) -> str:
    """``.spec.images``, ``.spec.containers[name="x"].image``."""
    text = ""
    for element in path:
        if element.startswith("f:"):
            text += f".{element[2:]}"
        elif element.startswith("v:"):
            text += f"[={element[2:]}]"
        else:
            keys = json.loads(element[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
    return text
