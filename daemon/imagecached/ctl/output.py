"""How answers are shown: aligned text for people, JSON and YAML for programs. Standard output only."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Final, Literal

    Form = Literal["table", "wide", "json", "yaml"]

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DIGEST_DIGITS: Final = 12


def print_document(document: Mapping[str, Any], form: Form) -> None:
    """``document`` as JSON or YAML."""
    if form == "yaml":
        import yaml

        print(yaml.safe_dump(dict(document), sort_keys=False, explicit_start=True), end="")
    else:
        import json

        print(json.dumps(document, indent=2, ensure_ascii=False))


def print_line(document: Mapping[str, Any], form: Form) -> None:
    """One of many documents: a line of JSON, or a document of a YAML stream."""
    if form == "json":
        import json

        print(json.dumps(document, ensure_ascii=False), flush=True)
    else:
        print_document(document, form)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "") -> None:
    """Columns aligned to the left with three spaces between them."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(indent + "   ".join(cells).rstrip())


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """``Name:  value`` lines, values aligned."""
    shown = [(f"{name}:", value) for name, value in fields]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        print(f"{name.ljust(width)}  {value}".rstrip())


def size(count: int | None) -> str:
    """Bytes for people: ``1.4 GiB``; ``-`` for None."""
    if count is None:
        return "-"
    amount, unit = float(count), 0
    while amount >= 1023.95 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit else f"{count} B"


def seconds(duration: float) -> str:
    """A duration for people, to three digits: ``4 ms``, ``1.23 s``, ``95 s``."""
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    return (
        f"{duration:.2f} s"
        if duration < 10
        else f"{duration:.1f} s"
        if duration < 60
        else f"{duration:.0f} s"
    )


def age(moment: str, now: float | None = None) -> str:
    """How long ago an RFC 3339 time is, as kubectl says it: ``42s``, ``5m10s``, ``3h20m``, ``9d``."""
    from datetime import datetime

    passed = (time.time() if now is None else now) - datetime.fromisoformat(moment).timestamp()
    return duration(max(0, int(passed)))


def duration(passed: int) -> str:
    """Seconds as kubectl writes them (apimachinery: util/duration, HumanDuration): two units while they
    matter.
    """
    minutes, hours, days = passed // 60, passed // 3600, passed // 86400
    if passed < 2 * 60:
        return f"{passed}s"
    if minutes < 10:
        return _two(minutes, "m", passed % 60, "s")
    if minutes < 3 * 60:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 2 * 365:
        return f"{days}d"
    years = days // 365
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def short(digest: str | None) -> str:
    """The first digits of a digest."""
    return digest.partition(":")[2][:_DIGEST_DIGITS] if digest else "-"


def percent(done: int, total: int) -> str:
    """A share, rounded down, so that only the whole is 100%."""
    return f"{100 * done // total if total else 100}%"
