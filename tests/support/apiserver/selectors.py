"""Label and field selectors, as the query parameters of list, watch and deletecollection spell them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.apiserver import refusals
from tests.support.apiserver.resources import Resource

Selects = Callable[[Mapping[str, Any]], bool]
_SET = re.compile(r"(?P<key>[^\s!=,()]+)\s+(?P<operator>in|notin)\s+\((?P<values>[^()]*)\)")
_EQUALS = re.compile(r"(?P<key>[^\s!=,()]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^\s!=,()]*)")
_EXISTS = re.compile(r"(?P<no>!?)\s*(?P<key>[^\s!=,()]+)")


def compile_selectors(resource: Resource, labels: str, fields: str) -> Selects | None:
    """A test of one object; None when everything is selected."""
    tests = [_label(term) for term in _terms(labels)] + [_field(resource, term) for term in _terms(fields)]
    if not tests:
        return None
    return lambda document: all(test(document) for test in tests)


def matches_labels(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A ``LabelSelector`` object: ``matchLabels`` and ``matchExpressions``."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_expression(each, labels) for each in selector.get("matchExpressions", ()))


def _expression(term: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(term["key"])
    match term["operator"]:
        case "In":
            return value in term["values"]
        case "NotIn":
            return value not in term["values"]
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
    raise refusals.bad_request(f"{term['operator']!r} is not a valid label selector operator")


def _terms(text: str) -> list[str]:
    """Split at commas outside of parentheses."""
    return [part.strip() for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def _labels(document: Mapping[str, Any]) -> Mapping[str, str]:
    labels: Mapping[str, str] = document["metadata"].get("labels") or {}
    return labels


def _label(term: str) -> Selects:
    if match := _SET.fullmatch(term):
        key, wanted = match["key"], match["operator"] == "in"
        values = {value.strip() for value in match["values"].split(",")}
        return lambda document: (_labels(document).get(key) in values) is wanted
    if match := _EQUALS.fullmatch(term):
        key, value, wanted = match["key"], match["value"], match["operator"] != "!="
        return lambda document: (_labels(document).get(key) == value) is wanted
    if match := _EXISTS.fullmatch(term):
        key, wanted = match["key"], not match["no"]
        return lambda document: (key in _labels(document)) is wanted
    raise refusals.bad_request(f"unable to parse requirement: {term!r}")


def _field(resource: Resource, term: str) -> Selects:
    match = _EQUALS.fullmatch(term)
    if match is None:
        raise refusals.bad_request(f"invalid field selector: {term!r}")
    known = {"metadata.name", *(["metadata.namespace"] if resource.namespaced else []), *resource.selectable}
    if match["key"] not in known:
        raise refusals.bad_request(f"field label not supported: {match['key']}")
    path, value, wanted = match["key"].split("."), match["value"], match["operator"] != "!="
    return lambda document: (_text(document, path) == value) is wanted


def _text(document: Any, path: list[str]) -> str:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    if isinstance(document, bool):
        return str(document).lower()
    return "" if document is None else str(document)
