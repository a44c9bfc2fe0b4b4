"""The OpenAPI document of the HTTP API, made from the operations and the types of their requests and answers.

``python -m imagecached.api.openapi`` prints what ``openapi.json`` beside this file must hold; a test
compares them.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

import msgspec

from imagecached.api.documents import ErrorAnswer
from imagecached.api.operation import Operation
from imagecached.api.requests import Request
from imagecached.api.routes import OPERATIONS

_TEMPLATE: Final = "#/components/schemas/{name}"


def document() -> dict[str, Any]:
    """The whole document."""
    types = {operation.request for operation in OPERATIONS} | {
        answer for operation in OPERATIONS for answer in operation.answers
    }
    _, schemas = msgspec.json.schema_components(
        sorted(types | {ErrorAnswer}, key=lambda kind: kind.__name__), ref_template=_TEMPLATE
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    in_bodies = {operation.request.__name__ for operation in OPERATIONS if operation.method == "POST"}
    parameters_only = {operation.request.__name__ for operation in OPERATIONS} | {Request.__name__}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imagecached",
            "version": "v1",
            "description": "HTTP over the daemon's unix socket. A stream (application/x-ndjson) is one JSON"
            " object per line; its last line is an ErrorAnswer if it failed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": {
                name: schema
                for name, schema in sorted(schemas.items())
                if name in in_bodies or name not in parameters_only
            }
        },
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    if operation.method == "POST":
        described["requestBody"] = {
            "required": True,
            "content": _content("application/json", operation.request),
        }
    elif parameters := _parameters(operation, schemas[operation.request.__name__]):
        described["parameters"] = parameters
    answers = operation.answers + ((ErrorAnswer,) if operation.streams else ())
    kind = "application/x-ndjson" if operation.streams else "application/json"
    described["responses"] = {
        "200": {"description": _first_line(operation.answers[-1]), "content": _content(kind, *answers)},
        "default": {
            "description": _first_line(ErrorAnswer),
            "content": _content("application/json", ErrorAnswer),
        },
    }
    return described


def _parameters(operation: Operation, schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": operation.place(name),
            "required": name in schema["required"],
            "schema": shape,
        }
        for name, shape in schema["properties"].items()
    ]


def _content(kind: str, *types: type[msgspec.Struct]) -> dict[str, Any]:
    references = [{"$ref": _TEMPLATE.format(name=each.__name__)} for each in types]
    return {kind: {"schema": references[0] if len(references) == 1 else {"oneOf": references}}}


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def render() -> str:
    """The document as the file holds it."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
