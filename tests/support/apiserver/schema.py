"""Structural schemas of custom resources: defaults, pruning, validation, CEL rules.

Pure. Order as in the real server: prune, default, validate types and ranges, then the rules, which are
skipped, and that is said, where something is wrong that they could stumble over. Rules run on Google's own
CEL.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_optional, ext_strings

from tests.support.apiserver.refusals import Cause

_KEPT_ALWAYS = frozenset({"apiVersion", "kind", "metadata"})
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
_BLOCKING = frozenset(
    f"FieldValue{kind}" for kind in ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid")
)
_UNCHECKED = Cause(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation",
)
"""The real server names no field there, and this is how it writes that."""


def prune(value: Any, schema: Mapping[str, Any], *, root: bool = True) -> Any:
    """``value`` without the fields that the schema does not name."""
    if isinstance(value, list):
        return [prune(item, schema.get("items", {}), root=False) for item in value]
    if not isinstance(value, dict):
        return value
    named = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    kept = {}
    for key, item in value.items():
        if root and key in _KEPT_ALWAYS:
            kept[key] = item
        elif key in named:
            kept[key] = prune(item, named[key], root=False)
        elif isinstance(rest, Mapping):
            kept[key] = prune(item, rest, root=False)
        elif rest is True or schema.get("x-kubernetes-preserve-unknown-fields"):
            kept[key] = item
    return kept


def unknown(value: Any, schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The fields that pruning would take, as ``spec.x``."""
    pruned = prune(value, schema, root=not path)
    yield from _lost(value, pruned, path)


def _lost(before: Any, after: Any, path: str) -> Iterator[str]:
    if isinstance(before, list):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")
    elif isinstance(before, dict):
        for key, item in before.items():
            place = f"{path}.{key}" if path else key
            if key not in after:
                yield place
            else:
                yield from _lost(item, after[key], place)


def default(value: Any, schema: Mapping[str, Any]) -> None:
    """Fill in the defaults, in place; a null where null is not allowed counts as absent."""
    if isinstance(value, list):
        for item in value:
            default(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for key, inner in schema.get("properties", {}).items():
        if key in value and value[key] is None and not inner.get("nullable") and "default" in inner:
            del value[key]
        if key not in value and "default" in inner:
            value[key] = copy.deepcopy(inner["default"])
        if key in value:
            default(value[key], inner)
    rest = schema.get("additionalProperties")
    if isinstance(rest, Mapping):
        for key in value.keys() - schema.get("properties", {}).keys():
            default(value[key], rest)


def validate(value: Any, schema: Mapping[str, Any], old: Any = None) -> list[Cause]:
    """What is wrong with ``value``; ``old`` is the object that it replaces, for transition rules."""
    found = list(_typed(value, schema, ""))
    if any(cause.reason in _BLOCKING for cause in found):
        return [*found, _UNCHECKED] if _has_rules(schema) else found
    return [*found, *_ruled(value, schema, old, "")]


def _has_rules(schema: Any) -> bool:
    if isinstance(schema, list):
        return any(map(_has_rules, schema))
    if not isinstance(schema, Mapping):
        return False
    return "x-kubernetes-validations" in schema or any(map(_has_rules, schema.values()))


def _typed(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if value is None:
        if not schema.get("nullable") and path:
            yield _wrong_type(value, schema, path)
        return
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, (int, str)):
            yield Cause(path, f'Invalid value: "{_kind(value)}": must be an integer or a string')
        return
    wanted = schema.get("type")
    if wanted and (
        not isinstance(value, _TYPES[wanted]) or (wanted != "boolean" and isinstance(value, bool))
    ):
        yield _wrong_type(value, schema, path)
        return
    yield from _bounded(value, schema, path)
    if isinstance(value, dict):
        yield from _typed_object(value, schema, path)
    elif isinstance(value, list):
        yield from _typed_list(value, schema, path)


def _wrong_type(value: Any, schema: Mapping[str, Any], path: str) -> Cause:
    kind, wanted = _kind(value), schema.get("type", "object")
    message = f'Invalid value: "{kind}": {path or "body"} in body must be of type {wanted}: "{kind}"'
    return Cause(path, message, "FieldValueTypeInvalid")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return next(
        (name for name, types in _TYPES.items() if isinstance(value, types) and type(value) in types), "?"
    )


def _typed_object(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    for key in schema.get("required", ()):
        if key not in value:
            yield Cause(_join(path, key), "Required value", "FieldValueRequired")
    if len(value) > schema.get("maxProperties", len(value)):
        yield Cause(
            path,
            f"Too many: {len(value)}: must have at most {schema['maxProperties']} items",
            "FieldValueTooMany",
        )
    named, rest = schema.get("properties", {}), schema.get("additionalProperties")
    for key, item in value.items():
        if key in named:
            yield from _typed(item, named[key], _join(path, key))
        elif isinstance(rest, Mapping):
            yield from _typed(item, rest, _join(path, key))


def _typed_list(value: list[Any], schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxItems", len(value)):
        message = f"Too many: {len(value)}: must have at most {schema['maxItems']} items"
        yield Cause(path, message, "FieldValueTooMany")
    if len(value) < schema.get("minItems", 0):
        message = (
            f"Invalid value: {len(value)}: {path} in body should have at least {schema['minItems']} items"
        )
        yield Cause(path, message)
    for number, item in enumerate(value):
        yield from _typed(item, schema.get("items", {}), f"{path}[{number}]")
    yield from _duplicates(value, schema, path)


def _duplicates(value: list[Any], schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("set", "map"):
        return
    seen: list[Any] = []
    for number, item in enumerate(value):
        known = item if kind == "set" else [item.get(key) for key in schema["x-kubernetes-list-map-keys"]]
        if known in seen:
            yield Cause(f"{path}[{number}]", f'Duplicate value: "{known}"', "FieldValueDuplicate")
        seen.append(known)


def _bounded(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if "enum" in schema and value not in schema["enum"]:
        known = ", ".join(f'"{each}"' for each in schema["enum"])
        yield Cause(
            path, f'Unsupported value: "{value}": supported values: {known}', "FieldValueNotSupported"
        )
    if isinstance(value, str):
        yield from _bounded_text(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from _bounded_number(value, schema, path)


def _bounded_text(value: str, schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxLength", len(value)):
        message = f"Too long: may not be more than {schema['maxLength']} bytes"
        yield Cause(path, message, "FieldValueTooLong")
    if len(value) < schema.get("minLength", 0):
        message = (
            f'Invalid value: "{value}": {path} in body should be at least {schema["minLength"]} chars long'
        )
        yield Cause(path, message)
    if "pattern" in schema and not re.search(schema["pattern"], value):
        message = f"Invalid value: \"{value}\": {path} in body should match '{schema['pattern']}'"
        yield Cause(path, message)
    if schema.get("format") == "date-time" and not _is_time(value):
        yield Cause(path, f'Invalid value: "{value}": {path} in body must be of type date-time: "{value}"')


def _bounded_number(value: float, schema: Mapping[str, Any], path: str) -> Iterator[Cause]:
    least, most = schema.get("minimum", value), schema.get("maximum", value)
    if value < least:
        message = f"Invalid value: {value}: {path} in body should be greater than or equal to {least}"
        yield Cause(path, message)
    if value > most:
        yield Cause(path, f"Invalid value: {value}: {path} in body should be less than or equal to {most}")
    bits = {"int32": 31, "int64": 63}.get(schema.get("format", ""))
    if bits and not -(1 << bits) <= value < 1 << bits:
        yield Cause(path, f"Invalid value: {value}: {path} in body must be of type {schema['format']}")


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None and "T" in text
    except ValueError:
        return False


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _ruled(value: Any, schema: Mapping[str, Any], old: Any, path: str) -> Iterator[Cause]:
    for rule in schema.get("x-kubernetes-validations", ()):
        yield from _rule(rule, value, old, path)
    if isinstance(value, dict):
        named, rest = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            inner = named.get(key, rest if isinstance(rest, Mapping) else {})
            before = old.get(key) if isinstance(old, dict) else None
            yield from _ruled(item, inner, before, _join(path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _ruled(item, schema.get("items", {}), None, f"{path}[{number}]")


def _rule(rule: Mapping[str, Any], value: Any, old: Any, path: str) -> Iterator[Cause]:
    data = {"self": value}
    if re.search(r"\boldSelf\b", rule["rule"]):
        if old is None:
            return  # a transition rule says nothing about what is new
        data["oldSelf"] = old
    if evaluate(rule["rule"], data) is True:
        return
    message = rule.get("message") or f"failed rule: {rule['rule']}"
    if "messageExpression" in rule:
        said = evaluate(rule["messageExpression"], data)
        message = said if isinstance(said, str) else message
    place = path + rule.get("fieldPath", "")
    yield Cause(
        place.removeprefix("."),
        f'Invalid value: "{_kind(value)}": {message}',
        rule.get("reason", "FieldValueInvalid"),
    )


class CelError(ValueError):
    """The expression does not compile."""


def evaluate(expression: str, data: Mapping[str, Any]) -> Any:
    """The value of a CEL expression; an error of evaluation is an :class:`Exception` value's text as None."""
    result = _compiled(expression, tuple(sorted(data))).eval(data=dict(data))
    return None if result.type() == cel.Type.ERROR else result.value()


@cache
def _compiled(expression: str, names: tuple[str, ...]) -> Any:
    try:
        return _environment(names).compile(expression)
    except RuntimeError as error:
        raise CelError(str(error)) from error


@cache
def _environment(names: tuple[str, ...]) -> Any:
    variables = dict.fromkeys(names, cel.Type.DYN)
    return cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings(), ext_optional.ExtOptional()])
