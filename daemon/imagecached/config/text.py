"""A configuration as a commented TOML file, which :func:`imagecached.config.load` reads back unchanged."""

from __future__ import annotations

import json
import textwrap
from typing import Any, Final, get_args

from imagecached.config.sections import KEYS, Config

_HEAD: Final = """\
# Configuration of imagecached. Every key may be left out; the defaults are printed by `imagecached config`.
# The environment (IMAGECACHED_<SECTION>__<KEY>, lists separated by commas) goes before this file,
# flags go before both.
"""


def render(config: Config) -> str:
    """Every key of ``config`` with its description and its value."""
    lines = [_HEAD.rstrip()]
    for name, keys in KEYS.items():
        section = getattr(config, name)
        lines += ["", f"# {section.__doc__}", f"[{name}]"]
        for key, kind in keys.items():
            description = get_args(kind)[1].description
            lines += textwrap.wrap(description, 100, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"{key} = {_literal(getattr(section, key))}")
    return "\n".join(lines) + "\n"


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )  # TOML wants DEL escaped, JSON does not
