"""``WWW-Authenticate`` headers (RFC 9110 § 11.6.1; distribution's token specification). Pure.

A registry's word is hostile: whatever does not follow the grammar ends the reading of that header, and what
was read before it still counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

_MOST_CHALLENGES: Final = 16
_MOST_CHARACTERS: Final = 16 << 10

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  a grammar, not a secret
_SEPARATOR: Final = re.compile(r"[ \t,]*")
_SCHEME: Final = re.compile(rf"({_TOKEN})(?:[ \t]+|(?=,)|$)")
_PARAMETER: Final = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")')
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_ESCAPE: Final = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate: ``scheme`` and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of the ``WWW-Authenticate`` headers of one response, in order."""
    found: list[Challenge] = []
    for header in headers:
        found += _challenges(header[:_MOST_CHARACTERS])
    return tuple(found[:_MOST_CHALLENGES])


def _challenges(header: str) -> Iterator[Challenge]:
    position = _skip(header, 0)
    while match := _SCHEME.match(header, position):
        scheme = match[1].lower()
        parameters, position = _parameters(header, match.end())
        yield Challenge(scheme, parameters)


def _parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    """Parameters from ``position`` on, and where the next scheme may begin."""
    parameters: dict[str, str] = {}
    while match := _PARAMETER.match(header, position):
        token, quoted = match[2], match[3]
        parameters.setdefault(match[1].lower(), token if token is not None else _ESCAPE.sub(r"\1", quoted))
        position = _skip(header, match.end())
    if not parameters and (credentials := _TOKEN68.match(header, position)):
        position = credentials.end()  # `Negotiate <token68>`: not for us, but a challenge for us may follow
    return parameters, _skip(header, position)


def _skip(header: str, position: int) -> int:
    match = _SEPARATOR.match(header, position)
    return match.end() if match else position
