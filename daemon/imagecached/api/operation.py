"""What an operation of the HTTP API is. Routes, the OpenAPI document and tests are made from such values."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from msgspec import Struct

from imagecached.api.ports import Ports
from imagecached.api.requests import Request

R = TypeVar("R", bound=Request)
Place = Literal["body", "path", "query"]
Lines = AsyncGenerator[Struct, None]


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """One request: what is asked, of whom, by which process; ``group`` owns the tasks it needs."""

    ports: Ports
    request: R
    client: int
    group: asyncio.TaskGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method on one path.

    ``answers``: the type of the answer, or the types of a stream's lines (NDJSON).
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    request: type[Request]
    answers: tuple[type[Struct], ...]
    handler: Callable[[Call[Any]], Awaitable[Struct | Lines]]

    @property
    def streams(self) -> bool:
        """Whether it answers line by line."""
        return all(answer.__struct_config__.tag for answer in self.answers)

    @property
    def name(self) -> str:
        """The operation's id: the name of its handler."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring."""
        return (self.handler.__doc__ or "").partition("\n")[0]

    def place(self, field: str) -> Place:
        """Where the request's ``field`` is given."""
        if field in re.findall(r"\{(\w+)\}", self.path):
            return "path"
        return "body" if self.method == "POST" else "query"
