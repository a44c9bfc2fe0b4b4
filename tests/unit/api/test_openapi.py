"""api: the OpenAPI document, the router and the types say the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import imagecached.api
from imagecached.api import openapi
from imagecached.api.peers import Gate
from imagecached.api.ports import Ports
from imagecached.api.protocol import Protocol
from imagecached.api.routes import OPERATIONS

DOCUMENT = json.loads((Path(imagecached.api.__file__).parent / "openapi.json").read_text())


def described() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation in the file."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(node: Any) -> Iterator[str]:
    """Every ``$ref`` below ``node``."""
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from references(item)


def test_the_file_is_what_the_types_say() -> None:
    """Regenerate with: python -m imagecached.api.openapi > daemon/imagecached/api/openapi.json"""
    assert openapi.render() == (Path(imagecached.api.__file__).parent / "openapi.json").read_text()


async def test_the_file_has_the_routes_of_the_router() -> None:
    """Every route is described and every description has a route."""
    async with asyncio.TaskGroup() as group:
        application = Protocol(cast(Ports, None), Gate(0, None), group).application
    routes = {
        (route.method, route.resource.canonical)
        for route in application.router.routes()
        if route.resource and route.method != "HEAD"
    }
    assert {(method, path) for method, path, _ in described()} == routes


def test_every_reference_leads_somewhere() -> None:
    """And every component is used."""
    used = set(references(DOCUMENT))
    assert used == {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}


def test_every_field_of_a_request_is_described_where_it_is_given() -> None:
    """Path, query or body; nothing else; placeholders of the path are required parameters."""
    for operation in OPERATIONS:
        found = DOCUMENT["paths"][operation.path][operation.method.lower()]
        parameters = {(each["name"], each["in"]) for each in found.get("parameters", ())}
        fields = operation.request.__struct_fields__
        assert parameters == {
            (name, operation.place(name)) for name in fields if operation.place(name) != "body"
        }
        assert ("requestBody" in found) == (operation.method == "POST")
        assert all(each["required"] for each in found.get("parameters", ()) if each["in"] == "path")


def test_unknown_fields_are_refused_by_every_body() -> None:
    """A spelling mistake must not pass as a default."""
    for name, schema in DOCUMENT["components"]["schemas"].items():
        if name.endswith("Request"):
            assert schema["additionalProperties"] is False


def test_operations_have_names_and_summaries() -> None:
    """One sentence each, and no name twice."""
    operations = [operation for *_, operation in described()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    assert all(operation["summary"].endswith(".") for operation in operations)
