"""Documents as TOML, for configuration files of servers under test."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any


def toml(document: Mapping[str, Any]) -> str:
    """Tables of tables, lists of tables, and values that JSON spells like TOML."""
    return "\n".join(_lines(document, "")) + "\n"


def _lines(table: Mapping[str, Any], path: str) -> Iterator[str]:
    tables = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lists = {key: value for key, value in table.items() if _is_list_of_tables(value)}
    for key, value in table.items():
        if key not in tables and key not in lists:
            yield f"{json.dumps(key)} = {json.dumps(value)}"
    for key, value in tables.items():
        below = f"{path}{json.dumps(key)}"
        yield f"[{below}]"
        yield from _lines(value, f"{below}.")
    for key, value in lists.items():
        below = f"{path}{json.dumps(key)}"
        for each in value:
            yield f"[[{below}]]"
            yield from _lines(each, f"{below}.")


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, Mapping) for each in value)
