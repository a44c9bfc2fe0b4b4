"""Where values come from: flags, then ``IMAGECACHED_<SECTION>__<KEY>``, then the TOML file, then defaults.

Every refusal is one line that names the source, the key, what was expected and what was found.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from imagecached.config.sections import KEYS, Config, check_meaning, check_together
from imagecached.errors import InvalidInput, NotFound

DEFAULT_PATH: Final = Path("/etc/imagecached/config.toml")
_PREFIX: Final = "IMAGECACHED_"
_NAMES: Final = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    Path: "an absolute path",
}
_Setting = tuple[str, str, Any]


def load(
    path: Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, str] | None = None,
) -> Config:
    """The effective configuration; ``flags`` maps dotted keys (``daemon.root``) to text.

    ``path`` None means :data:`DEFAULT_PATH`, which may be missing. NotFound: the file named is missing.
    InvalidInput: anything that is wrong with a key or a value.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in KEYS}
    for source in (_file(path), _environment(environ), _flags(flags or {})):
        for section, key, value in source:
            values[section][key] = value
    defaults = Config()
    config = Config(**{name: type(getattr(defaults, name))(**chosen) for name, chosen in values.items()})
    try:
        check_together(config)
    except ValueError as error:
        raise InvalidInput(f"{path or DEFAULT_PATH}, environment and flags together: {error}") from None
    return config


def _file(path: Path | None) -> Iterator[_Setting]:
    chosen = path or DEFAULT_PATH
    for section, table in _document(chosen, required=path is not None).items():
        if section not in KEYS:
            raise InvalidInput(
                f"{chosen}: {_named(section)}: no such section; expected one of {', '.join(KEYS)}"
            )
        if not isinstance(table, dict):
            raise InvalidInput(f"{chosen}: {section}: expected a table, got {_shown(table)}")
        for key, value in table.items():
            yield section, key, _checked(f"{chosen}: {section}.{_named(key)}", section, key, value)


def _document(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise NotFound(f"configuration file {path} does not exist") from None
        return {}
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8 and not TOML are ValueErrors
        raise InvalidInput(f"{path}: cannot be read: {error}") from error


def _environment(environ: Mapping[str, str]) -> Iterator[_Setting]:
    """Variables without ``__`` are not ours: Kubernetes injects ``IMAGECACHED_SERVICE_HOST`` and the like."""
    for name in sorted(environ):
        if name.startswith(_PREFIX) and "__" in name:
            section, _, key = name.removeprefix(_PREFIX).lower().partition("__")
            yield section, key, _from_text(name, section, key, environ[name])


def _flags(flags: Mapping[str, str]) -> Iterator[_Setting]:
    for name, text in flags.items():
        section, _, key = name.partition(".")
        yield section, key, _from_text(f"--{key.replace('_', '-')}", section, key, text)


def _from_text(where: str, section: str, key: str, text: str) -> Any:
    """A value given as text: the items of a list are separated by commas."""
    kind = KEYS.get(section, {}).get(key)
    if kind is not None and get_origin(get_args(kind)[0]) is tuple:
        return _checked(where, section, key, [part.strip() for part in text.split(",") if part.strip()])
    return _checked(where, section, key, text, strict=False)


def _checked(where: str, section: str, key: str, value: Any, *, strict: bool = True) -> Any:
    kind = KEYS.get(section, {}).get(key)
    if kind is None:
        raise InvalidInput(f"{where}: no such key")
    try:
        checked = msgspec.convert(value, kind, strict=strict, dec_hook=_path)
        check_meaning(section, key, checked)
    except (ValueError, OverflowError) as error:  # msgspec.ValidationError is a ValueError
        raise InvalidInput(f"{where}: expected {_expected(kind)}, got {_shown(value)}") from error
    return checked


def _path(kind: type, value: Any) -> Path:
    if kind is not Path or not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("not an absolute path")
    return Path(value)


def _expected(kind: Any) -> str:
    base, meta = get_args(kind)
    if get_origin(base) is Literal:
        return f"one of {', '.join(get_args(base))}"
    if meta.extra:
        return str(meta.extra["form"])
    if get_origin(base) is tuple:
        return f"a list of {_NAMES[get_args(base)[0]].split(maxsplit=1)[1]}s"
    if meta.le is not None:
        return f"{_NAMES[base]} from {meta.ge} to {meta.le}"
    return f"{_NAMES[base]} of at least {meta.ge}" if meta.ge is not None else _NAMES[base]


def _named(key: str) -> str:
    return key if key.isidentifier() else _shown(key)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
