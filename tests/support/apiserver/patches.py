"""The three kinds of patch that are not server-side apply. Pure: a new document each."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.apiserver import refusals
from tests.support.apiserver.refusals import Refused

_MOST_OPERATIONS = 10_000


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396)."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """JSON patch (RFC 6902). A test that fails, or a path that is not there, refuses the whole."""
    if not isinstance(operations, list) or len(operations) > _MOST_OPERATIONS:
        raise refusals.bad_request("a JSON patch is a list of at most 10000 operations")
    document = copy.deepcopy(target)
    for operation in operations:
        try:
            document = _operate(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise Refused(
                422, "Invalid", f"the server rejected our request due to an error in our request: {error}"
            ) from error
    return document


def _operate(document: Any, operation: Mapping[str, Any]) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _put(document, path, copy.deepcopy(operation["value"]), insert=True)
        case "replace":
            _look(document, path)
            return _put(document, path, copy.deepcopy(operation["value"]), insert=False)
        case "remove":
            _take(document, path)
            return document
        case "test":
            if _look(document, path) != operation["value"]:
                raise ValueError(f"testing value {operation['path']} failed")
            return document
        case "copy":
            return _put(
                document, path, copy.deepcopy(_look(document, _pointer(operation["from"]))), insert=True
            )
        case "move":
            return _put(document, path, _take(document, _pointer(operation["from"])), insert=True)
    raise ValueError(f"Unexpected kind: {operation['op']}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is no JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _step(holder: Any, key: str) -> Any:
    return holder[int(key)] if isinstance(holder, list) else holder[key]


def _look(document: Any, path: Sequence[str]) -> Any:
    for key in path:
        document = _step(document, key)
    return document


def _put(document: Any, path: Sequence[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    holder, key = _look(document, path[:-1]), path[-1]
    if not isinstance(holder, list):
        holder[key] = value
    elif key == "-":
        holder.append(value)
    elif insert:
        holder.insert(_index(holder, key), value)
    else:
        holder[int(key)] = value
    return document


def _index(holder: list[Any], key: str) -> int:
    index = int(key)
    if not 0 <= index <= len(holder):
        raise IndexError(f"Unable to access invalid index: {key}")
    return index


def _take(document: Any, path: Sequence[str]) -> Any:
    holder, key = _look(document, path[:-1]), path[-1]
    return holder.pop(int(key)) if isinstance(holder, list) else holder.pop(key)


def strategic(target: Any, patch: Any, schema: Mapping[str, Any]) -> Any:
    """Strategic merge patch: lists that have keys are merged by them, ``$patch`` says replace or delete."""
    if isinstance(patch, list):
        return _strategic_list(target if isinstance(target, list) else [], patch, schema)
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, Mapping) else {}
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
        else:
            result[key] = strategic(result.get(key), value, schema.get("properties", {}).get(key, {}))
    return result


def _strategic_list(target: list[Any], patch: list[Any], schema: Mapping[str, Any]) -> list[Any]:
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        return [*target, *(item for item in patch if item not in target)]
    if kind != "map":
        return copy.deepcopy(patch)
    key = schema["x-kubernetes-list-map-keys"][0]
    merged = {item.get(key): item for item in target}
    for item in patch:
        if item.get("$patch") == "replace":
            merged = {}
        elif item.get("$patch") == "delete":
            merged.pop(item.get(key), None)
        else:
            merged[item.get(key)] = strategic(merged.get(item.get(key)), item, schema.get("items", {}))
    return list(merged.values())
