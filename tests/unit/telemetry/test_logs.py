"""logs: one line per record, facts as fields, calm about exceptions."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from imagecached.telemetry import start_logging
from imagecached.telemetry.logs import Format, Level

log = logging.getLogger("imagecached.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """The root logger and the capturing of warnings as they were."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_json_object_with_its_facts() -> None:
    """Time, level, logger, event; what was given by extra beside them; values JSON cannot hold as text."""
    stream = io.StringIO()
    start_logging("info", "auto", stream)
    log.info("pulled", extra={"image": "a:1", "seconds": 1.5, "path": ValueError("odd")})
    [line] = lines(stream)
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "imagecached.test",
        "event": "pulled",
        "image": "a:1",
        "seconds": 1.5,
        "path": "odd",
    }


def test_a_fact_does_not_hide_the_frame() -> None:
    """A fact called like a field of the line gets another name."""
    stream = io.StringIO()
    start_logging("info", "json", stream)
    log.info("happened", extra={"event": "mine", "level": 9})
    [line] = lines(stream)
    assert (line["event"], line["event_"], line["level"], line["level_"]) == ("happened", "mine", "info", 9)


@pytest.mark.parametrize(("level", "shown"), [("info", False), ("debug", True)])
def test_an_exception_is_class_and_message(level: Level, *, shown: bool) -> None:
    """The traceback is written at level debug only."""
    stream = io.StringIO()
    start_logging(level, "json", stream)
    try:
        raise ValueError("no\nsuch thing")
    except ValueError:
        log.exception("failed")
    [line] = lines(stream)
    assert line["error"] == "ValueError: no\nsuch thing"
    assert ("traceback" in line) is shown


@pytest.mark.parametrize(("form", "terminal"), [("auto", True), ("text", False)])
def test_text_for_people(form: Format, *, terminal: bool) -> None:
    """A terminal gets words and fact=value, quoted where needed, on one line."""
    stream = Terminal() if terminal else io.StringIO()
    start_logging("info", form, stream)
    log.warning(
        "pull failed", extra={"image": "a:1", "why": "two words", "seconds": 1.23456, "n": 3, "none": ""}
    )
    log.error("two\nlines", exc_info=KeyError())
    first, second = stream.getvalue().splitlines()
    assert first.split(" ", 1)[1] == 'WARNING pull failed image=a:1 why="two words" seconds=1.235 n=3 none=""'
    assert second.split(" ", 1)[1] == "ERROR   two\\nlines error=KeyError"


def test_a_traceback_follows_the_text() -> None:
    """At level debug a terminal gets the traceback below the line."""
    stream = Terminal()
    start_logging("debug", "auto", stream)
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("failed")
    first, second, *_ = stream.getvalue().splitlines()
    assert first.endswith('failed error="ValueError: no"')
    assert second == "Traceback (most recent call last):"


def test_level_and_libraries() -> None:
    """Less important records are dropped; what libraries and warnings say comes the same way."""
    stream = io.StringIO()
    start_logging("info", "json", stream)
    log.debug("hidden")
    logging.getLogger("asyncio").info("hidden")
    logging.getLogger("asyncio").error("shown %s", "once")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("odd", stacklevel=1)
    assert [line["logger"] for line in lines(stream)] == ["asyncio", "py.warnings"]
    assert lines(stream)[0]["event"] == "shown once"
