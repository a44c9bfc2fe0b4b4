"""What the configuration files of a node say together, as that node's containerd understands them.

Reads the main file and what it imports. Everything is bounded; a file that cannot be read is named.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Any, Final

from imagecached.dropin.version import Version
from imagecached.errors import InvalidInput

_FILE_BYTES: Final = 4 << 20
_FILES: Final = 100


@dataclass(frozen=True, slots=True)
class Written:
    """``files`` in the order in which they count, the main file first; none if there is no main file."""

    main: Path
    files: tuple[Path, ...]
    document: Mapping[str, Any]

    @property
    def form(self) -> int:
        """The version of the form that the files are written in; 0 if none says."""
        version = self.document.get("version", 0)
        return version if isinstance(version, int) else 0


def read(main: Path, version: Version, *, without: Path | None = None) -> Written:
    """What stands in ``main`` and its imports, the file ``without`` left out. InvalidInput."""
    document: dict[str, Any] = {}
    seen: list[Path] = []
    waiting = [main]
    while waiting:
        path = waiting.pop(0)
        if path in seen or path == without or (path == main and not path.exists()):
            continue
        if len(seen) == _FILES:
            raise InvalidInput(f"{main}: imports more than {_FILES} files")
        seen.append(path)
        table = _load(path)
        waiting += _imported(path, table, version)
        document = _merged(document, table) if version.merges else _replaced(document, table)
    return Written(main, tuple(seen), document)


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
        if len(content) > _FILE_BYTES:
            raise InvalidInput(f"{path}: larger than {_FILE_BYTES} bytes")
        return tomllib.loads(content.decode())
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from error


def _imported(path: Path, table: Mapping[str, Any], version: Version) -> Iterator[Path]:
    imports = table.get("imports", [])
    if not isinstance(imports, list) or not all(isinstance(each, str) for each in imports):
        raise InvalidInput(f"{path}: imports: expected a list of strings")
    for each in imports:
        found = Path(normpath(path.parent / each))  # as containerd does, which follows no links for it
        if "*" in each and not each.startswith("/") and not version.finds_relative_patterns:
            continue  # it counts from a folder that nobody knows
        if "*" in each:  # in folder names too
            yield from sorted(Path(found.anchor).glob(str(found.relative_to(found.anchor))))
        else:
            yield found


def _merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """containerd 2: tables key by key, lists as sets, other values replaced."""
    result = dict(first)
    for key, value in second.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[key] = _merged(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            result[key] = [*old, *(each for each in value if each not in old)]
        else:
            result[key] = value
    return result


def _replaced(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """containerd 1: like that, but the last section of a plugin is all there is of it."""
    result = _merged(first, second)
    for table in ("plugins", "proxy_plugins"):
        if isinstance(second.get(table), Mapping):
            result[table] = {**first.get(table, {}), **second[table]}
    return result
