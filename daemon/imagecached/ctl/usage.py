"""What ``--help`` prints."""

from __future__ import annotations

from textwrap import wrap

from imagecached.ctl import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Final

    from imagecached.ctl.arguments import Command, Option

_COLUMNS: Final = 100
_LEFT: Final = 34


def explain(command: Command) -> str:
    """How ``command`` is called and what its options are; of the program itself, also its commands."""
    options = [(_shown(option), option.help) for option in command.options]
    lines = [command.usage(), "", *_wrapped(command.help), "", "Options:"]
    lines += _columns([*options, ("-h, --help", "Say this.")])
    if command is commands.PROGRAM:
        lines += ["", "Commands:"]
        lines += _columns((each.name, each.help) for each in commands.COMMANDS.values())
    return "\n".join(lines)


def _shown(option: Option) -> str:
    return ", ".join(option.names) + (f" {option.metavar}" if option.metavar else "")


def _wrapped(text: str) -> Iterator[str]:
    yield from wrap(text, _COLUMNS, initial_indent="  ", subsequent_indent="  ")


def _columns(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    pairs = list(rows)
    width = min(_LEFT, max(len(name) for name, _ in pairs))
    margin = " " * (width + 4)
    for name, text in pairs:
        yield from wrap(text, _COLUMNS, initial_indent=f"  {name.ljust(width)}  ", subsequent_indent=margin)
