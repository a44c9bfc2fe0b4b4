"""Having containerd's main file import one more, by changing one line of its text. Pure.

What comes out is read back: it must say what it said before and the new import, or nothing is changed.
"""

from __future__ import annotations

import json
import re
import tomllib
from os.path import normpath
from pathlib import Path
from typing import Any, Final

from imagecached.dropin.version import Version
from imagecached.errors import FailedPrecondition

_IMPORTS: Final = re.compile(r"^[ \t]*[\"']?imports[\"']?[ \t]*=", re.MULTILINE)
_TABLE: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)


def covers(document: dict[str, Any], main: Path, path: Path, version: Version) -> bool:
    """The main file imports ``path`` already, by name or by a pattern."""
    for each in document.get("imports", ()):
        counts = "*" not in each or each.startswith("/") or version.finds_relative_patterns
        if counts and path.match(normpath(main.parent / each)):
            return True
    return False


def with_import(text: str, entry: str) -> str:
    """The text of a main file that imports ``entry`` too. FailedPrecondition: it is beyond us."""
    before = _loaded(text)
    imports = [*before.get("imports", ()), entry]
    return _checked(_replaced(text, imports), {**before, "imports": imports})


def without_import(text: str, entry: str) -> str:
    """The reverse, for a text that was changed since. FailedPrecondition: it is beyond us."""
    before = _loaded(text)
    imports = [each for each in before.get("imports", ()) if each != entry]
    wanted = (
        {**before, "imports": imports} if imports else {k: v for k, v in before.items() if k != "imports"}
    )
    return _checked(_replaced(text, imports), wanted)


def _replaced(text: str, imports: list[str]) -> str:
    """``text`` with this value of ``imports``, on one line where the old one was, else at the top."""
    line = f"imports = {json.dumps(imports)}\n" if imports else ""
    begin, end = _place(text)
    return text[:begin] + line + text[end:]


def _place(text: str) -> tuple[int, int]:
    """Where the assignment begins and ends, its line end included; an empty place if there is none."""
    tables = _TABLE.search(text)
    head = text[: tables.start()] if tables else text
    found = _IMPORTS.search(head)
    if found is None:
        return 0, 0
    end = found.end()
    while end < len(text):
        end = text.find("\n", end) + 1 or len(text)
        if _is_toml(text[found.start() : end]):  # the first line end at which it is a whole assignment
            return found.start(), end
    return found.start(), end


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


def _loaded(text: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise FailedPrecondition(f"containerd's configuration cannot be read: {error}") from error
    imports = document.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(each, str) for each in imports):
        raise FailedPrecondition("`imports` of containerd's configuration is no list of strings")
    return document


def _checked(text: str, wanted: dict[str, Any]) -> str:
    if not _is_toml(text) or tomllib.loads(text) != wanted:
        raise FailedPrecondition("the line `imports` of containerd's configuration cannot be changed by us")
    return text
