"""``kubectl get``: objects as a ``Table``, with the columns that the resource declares."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tests.support.apiserver.reads import Page
from tests.support.apiserver.resources import Column, Resource
from tests.support.apiserver.storage import Stored

Document = dict[str, Any]
_STEP = re.compile(
    r"\.?([A-Za-z0-9_-]+)|\[(\d+)\]|\['([^']*)'\]|\[\?\(@\.(\w+)\s*==\s*[\"']([^\"']*)[\"']\)\]"
)


def wants_table(accept: str) -> bool:
    """Does the client ask for a table before anything else?"""
    return "as=Table" in accept.split(",")[0].replace(" ", "")


def table(resource: Resource, page: Page | Sequence[Stored], *, include: str = "Metadata") -> Document:
    """The ``Table`` (meta.k8s.io/v1)."""
    items = page.items if isinstance(page, Page) else page
    meta: Document = {}
    if isinstance(page, Page):
        meta = {"resourceVersion": str(page.revision)}
        if page.token:
            meta["continue"] = page.token
    name = {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": [name, *map(_definition, resource.columns)],
        "rows": [_row(resource, stored, include) for stored in items],
    }


def _definition(column: Column) -> Document:
    return {
        "name": column.name,
        "type": column.kind,
        "format": "",
        "description": column.description,
        "priority": int(column.wide),
    }


def _row(resource: Resource, stored: Stored, include: str) -> Document:
    cells = [stored.meta["name"], *(_cell(column, stored.document) for column in resource.columns)]
    row: Document = {"cells": cells}
    if include == "Object":
        row["object"] = stored.document
    elif include != "None":
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": stored.meta,
        }
    return row


def _cell(column: Column, document: Document) -> Any:
    value = look(document, column.path)
    if value is None:
        return None
    if column.kind == "date" or column.path == ".metadata.creationTimestamp":
        return age(value)
    return value


def look(document: Any, path: str) -> Any:
    """What a JSONPath of the printer columns' subset names; None when it is not there."""
    for step in _STEP.finditer(path):
        key, number, quoted, field, wanted = step.groups()
        if field is not None:
            found = (
                [item for item in document if item.get(field) == wanted] if isinstance(document, list) else []
            )
            document = found[0] if found else None
        elif number is not None:
            document = (
                document[int(number)] if isinstance(document, list) and int(number) < len(document) else None
            )
        else:
            document = document.get(key or quoted) if isinstance(document, dict) else None
    return document


def age(text: str) -> str:
    """``5s``, ``3m``, ``2h``, ``4d`` since a time."""
    try:
        seconds = int((datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds())
    except (ValueError, TypeError):
        return "<unknown>"
    if seconds < 120:
        return f"{max(0, seconds)}s"
    if seconds < 3 * 3600:
        return f"{seconds // 60}m"
    if seconds < 48 * 3600:
        return f"{seconds // 3600}h"
    return f"{seconds // 86400}d"
