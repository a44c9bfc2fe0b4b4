"""What every resource may answer: done, an error, an event."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from msgspec import Struct


class Done(Struct, frozen=True):
    """It is done, and there is nothing to say."""


class ErrorDetail(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``kind`` says what to do about it (see errors); ``message`` is one line for people."""

    kind: str
    message: str
    retry_after_seconds: float | None = None


class ErrorAnswer(Struct, frozen=True, kw_only=True, tag="error", tag_field="type"):
    """Why there is no answer; also the last line of a stream that failed."""

    error: ErrorDetail


class EventLine(Struct, frozen=True, kw_only=True, tag="event", tag_field="type"):
    """Something that happened."""

    number: int
    time: datetime
    kind: str
    subject: str
    facts: dict[str, Any]
