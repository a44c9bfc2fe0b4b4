"""Logs: the standard library's records as JSON lines, or as text for a person at a terminal.

Owns the form of a line. A record is a constant event and facts given by ``extra``; an exception is one fact,
``error``, and its traceback is written at level debug only. Libraries' records take the same way.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]

_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_QUIET: Final = (
    "httpx2",
    "httpcore2",
    "asyncio",
    "aiohttp.access",
)  # their info is of interest to nobody who runs a node


def start_logging(level: Level, form: Format, stream: TextIO | None = None) -> None:
    """Send every record of ``level`` and above to ``stream`` (standard error) and nowhere else."""
    stream = stream or sys.stderr
    text = form == "text" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    traceback = level == "debug"
    handler.setFormatter(TextFormatter(traceback=traceback) if text else JsonFormatter(traceback=traceback))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET if traceback else logging.WARNING)


class _Formatter(logging.Formatter):
    def __init__(self, *, traceback: bool) -> None:
        super().__init__()
        self._traceback = traceback

    def facts(self, record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
        """What was given by ``extra``, then the exception."""
        for name, value in vars(record).items():
            if name not in _OWN:
                yield name, value
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            yield "error", f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if self._traceback:
                yield "traceback", self.formatException(record.exc_info)


class JsonFormatter(_Formatter):
    """``{"time": RFC 3339, "level", "logger", "event", facts…}``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update((name if name not in line else f"{name}_", value) for name, value in self.facts(record))
        return json.dumps(line, default=str)


class TextFormatter(_Formatter):
    """``15:04:05.678 INFO event  fact=value``; a traceback on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        moment = _time(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        words = [moment, f"{record.levelname:<7}", record.getMessage()]
        last = ""
        for name, value in self.facts(record):
            if name == "traceback":
                last = f"\n{value}"
            else:
                words.append(f"{name}={_shown(value)}")
        return " ".join(words).replace("\n", "\\n") + last


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return (
        text
        if isinstance(value, str) and text and not set(text) & set(' "=\n')
        else json.dumps(value, default=str)
    )
