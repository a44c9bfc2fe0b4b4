"""Nested tables as TOML with comments. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import date, time
from typing import Any, Final

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
Path = tuple[str, ...]


def render(document: Mapping[str, Any], head: str = "", comments: Mapping[Path, str] | None = None) -> str:
    """``comments``: what to say before a table or a key, by its path."""
    lines = [*(f"# {line}".rstrip() for line in head.splitlines()), *_table(document, (), comments or {})]
    return "\n".join(lines) + "\n"


def _table(table: Mapping[str, Any], path: Path, comments: Mapping[Path, str]) -> Iterator[str]:
    below = {key: value for key, value in table.items() if _has_own_head(value)}
    for key, value in table.items():
        if key not in below:
            yield from _comment(comments, (*path, key))
            yield f"{_key(key)} = {_value(value)}"
    for key, value in below.items():
        inner = (*path, key)
        name = ".".join(map(_key, inner))
        if _is_tables(value):
            yield from _list(value, inner, name, comments)
            continue
        if inner in comments or not value or not all(map(_has_own_head, value.values())):
            yield ""
            yield from _comment(comments, inner)
            yield f"[{name}]"
        yield from _table(value, inner, comments)


def _list(tables: list[Any], path: Path, name: str, comments: Mapping[Path, str]) -> Iterator[str]:
    for number, each in enumerate(tables):
        yield ""
        if number == 0:
            yield from _comment(comments, path)
        yield f"[[{name}]]"
        yield from _table(each, path, {})


def _comment(comments: Mapping[Path, str], path: Path) -> Iterator[str]:
    for line in comments.get(path, "").splitlines():
        yield f"# {line}"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _has_own_head(value: Any) -> bool:
    return _is_table(value) or _is_tables(value)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_table, value))


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _text(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case date() | time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():  # in a list beside other values
            return f"{{{', '.join(f'{_key(key)} = {_value(each)}' for key, each in value.items())}}}"
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    # TOML wants DEL escaped, JSON does not.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
