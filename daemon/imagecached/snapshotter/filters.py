r"""The filter language of containerd's API: the grammar of its package ``filters``. Pure.

    filters   = filter OR filter OR …                      no filter, or an empty one: everything
    filter    = selector ("," selector)*                   all must hold
    selector  = path [operator value]                      path alone: "is present"
    path      = field ("." field)*
    field     = quoted | [A-Za-z0-9_]+
    operator  = "==" | "!=" | "~="
    value     = quoted | printable characters but blanks and commas, the first no "." and no quote
    quoted    = a Go string literal in "…"; after "~=" also in /…/ and |…|

Blanks may stand before a token, not after the last one of a selector. A value that is no UTF-8 (by ``\xff``)
is kept as surrogates, so it equals no text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from imagecached.errors import InvalidInput

Operator = Literal["", "==", "!=", "~="]
Look = Callable[[tuple[str, ...]], str | None]
"""What an object says of a path, None if it is absent."""

_OPERATORS: Final[dict[str, Operator]] = {"==": "==", "!=": "!=", "~=": "~="}
_FIELD: Final = re.compile(r"[A-Za-z0-9_]+")
_OPERATOR: Final = re.compile(r"[=!~]+")
_ESCAPE: Final = re.compile(r"x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[0-7]{3}|.", re.DOTALL)
_SIMPLE: Final = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92}
_QUOTES: Final = '"/|'
_BLANKS: Final = "\t\n\v\f\r \x85\xa0"
_LARGEST_CODE_POINT: Final = 0x10FFFF
_MOST_CHARACTERS: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Selector:
    """One condition; ``operator`` "" asks only whether ``path`` is present."""

    path: tuple[str, ...]
    operator: Operator = ""
    value: str = ""

    def holds(self, look: Look) -> bool:
        """Whether it holds for the object that ``look`` looks at."""
        found = look(self.path)
        if self.operator == "==":
            return found == self.value
        if self.operator == "!=":
            return (found or "") != self.value
        if self.operator == "~=":
            return _matches(self.value, found or "")
        return found is not None


Filter = tuple[Selector, ...]


def parse_all(texts: Sequence[str]) -> tuple[Filter, ...]:
    """The filters, of which one must hold; none for everything. InvalidInput."""
    return () if "" in texts else tuple(map(parse, texts))


def holds(filters: Sequence[Filter], look: Look) -> bool:
    """Whether one of ``filters`` holds, or there is none."""
    return not filters or any(all(selector.holds(look) for selector in one) for one in filters)


def parse(text: str) -> Filter:
    """The selectors of one filter that is not empty. InvalidInput says where it is wrong."""
    if len(text) > _MOST_CHARACTERS:
        raise InvalidInput(f"filter: longer than {_MOST_CHARACTERS} characters")
    scanner = _Scanner(text)
    selectors = [_selector(scanner)]
    while not scanner.at_end():
        scanner.expect(",")
        selectors.append(_selector(scanner))
    return tuple(selectors)


def _selector(scanner: _Scanner) -> Selector:
    path = [scanner.field()]
    while scanner.next() == ".":
        scanner.expect(".")
        path.append(scanner.field())
    if scanner.at_end() or scanner.next() == ",":
        return Selector(tuple(path))
    operator = scanner.operator()
    return Selector(tuple(path), operator, scanner.value(_QUOTES if operator == "~=" else '"'))


class _Scanner:
    """A position in a filter."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def at_end(self) -> bool:
        return self._at == len(self._text)

    def next(self) -> str:
        """The next character, "" at the end."""
        return self._text[self._at : self._at + 1]

    def expect(self, character: str) -> None:
        if self.next() != character:
            raise self._error(f"expected {character!r}")
        self._at += 1

    def field(self) -> str:
        self._skip_blanks()
        if self.next() and self.next() in _QUOTES:
            return self._quoted('"')
        return self._match(_FIELD, "a field or a quoted one")

    def operator(self) -> Operator:
        self._skip_blanks()
        found = _OPERATORS.get(self._match(_OPERATOR, "an operator"))
        if found is None:
            raise self._error("expected == or != or ~= before this")
        return found

    def value(self, quotes: str) -> str:
        self._skip_blanks()
        first = self.next()
        if first and first in _QUOTES:
            return self._quoted(quotes)
        if not first or first in ",.=!~\x00\ufffd":
            raise self._error("expected a value or a quoted one")
        start, self._at = self._at, self._at + 1
        while (character := self.next()) and _belongs_to_value(character):
            self._at += 1
        return self._text[start : self._at]

    def _match(self, pattern: re.Pattern[str], what: str) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._error(f"expected {what}")
        self._at = match.end()
        return match[0]

    def _quoted(self, allowed: str) -> str:
        quote = self.next()
        if quote not in allowed:
            raise self._error("this quote stands only after ~=")
        self._at += 1
        content = bytearray()
        while (character := self.next()) != quote:
            if not character or character in "\n\x00\ufffd":
                raise self._error("the quoted text does not end")
            self._at += 1
            content += self._escaped(quote) if character == "\\" else _encoded(character)
        self._at += 1
        return content.decode("utf-8", "surrogateescape")

    def _escaped(self, quote: str) -> bytes:
        match = _ESCAPE.match(self._text, self._at)
        if match is None:
            raise self._error("the quoted text does not end")
        found = match[0]
        if found == quote:
            content = found.encode()
        elif found in _SIMPLE:
            content = bytes([_SIMPLE[found]])
        elif len(found) == 1:
            raise self._error("unknown escape")
        else:
            content = self._numbered(found)
        self._at = match.end()
        return content

    def _numbered(self, escape: str) -> bytes:
        """``x41``, ``101``: a byte; ``u0041``, ``U00000041``: a code point."""
        if escape[0] in "uU":
            number = int(escape[1:], 16)
            if number > _LARGEST_CODE_POINT:
                raise self._error("no such code point")
            return _encoded(chr(number))
        number = int(escape[1:], 16) if escape[0] == "x" else int(escape, 8)
        if number > 0xFF:
            raise self._error("no such byte")
        return bytes([number])

    def _skip_blanks(self) -> None:
        while (character := self.next()) and _is_blank(character):
            self._at += 1

    def _error(self, text: str) -> InvalidInput:
        around = self._text[max(0, self._at - 20) : self._at + 20]
        return InvalidInput(f"filter, character {self._at + 1} (near {around!r}): {text}")


def _matches(pattern: str, value: str) -> bool:
    """Whether a regular expression is found; one that is none matches nothing, as in containerd."""
    try:
        return re.search(pattern, value) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _encoded(character: str) -> bytes:
    # Half a surrogate pair is what Go calls the replacement character.
    return b"\xef\xbf\xbd" if "\ud800" <= character <= "\udfff" else character.encode()


def _is_blank(character: str) -> bool:
    return character in _BLANKS or unicodedata.category(character) in ("Zs", "Zl", "Zp")


def _belongs_to_value(character: str) -> bool:
    if character == "," or character == "\ufffd" or _is_blank(character):
        return False
    return unicodedata.category(character)[0] in "LMNPS"
