"""JSON as it goes over the socket.

Not ``json`` but the scanner that it is made of: ``json`` imports ``re`` and ``enum`` first, 8 ms of CPU, a
third of all that a command takes. Where an interpreter has no such scanner, ``json``'s own takes its place.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final


class _Rules:
    """What ``json.JSONDecoder()`` tells the scanner."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    try:
        from _json import make_scanner

        return make_scanner(_Rules)  # type: ignore[arg-type]
    except (ImportError, AttributeError, TypeError):
        from json import JSONDecoder

        return JSONDecoder().raw_decode


_BLANK: Final = " \t\n\r"
_ESCAPES: Final = {**{number: f"\\u{number:04x}" for number in range(32)}, 34: '\\"', 92: "\\\\"}
_scan: Final = _scanner()


def decode(data: bytes) -> Any:
    """The value of a JSON text. ValueError: it is none."""
    text = data.decode().strip(_BLANK)
    try:
        value, end = _scan(text, 0)
    except (StopIteration, RecursionError):
        raise ValueError("no JSON") from None
    if end != len(text):
        raise ValueError("more than one JSON text")
    return value


def encode(value: Any) -> str:
    """A request's body: strings, truth values, sequences and dictionaries of them."""
    if isinstance(value, str):
        return f'"{value.translate(_ESCAPES)}"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode(name)}:{encode(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(encode(each) for each in value) + "]"
    return "true" if value else "false"
