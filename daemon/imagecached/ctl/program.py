"""``imagecachectl`` from argv to exit code, and what is said when something fails."""

from __future__ import annotations

import os
import sys

from imagecached.ctl.arguments import PROGRAM, HelpWanted, UsageError
from imagecached.ctl.commands import COMMANDS, DEFAULT_SOCKET, SOCKET_VARIABLE
from imagecached.ctl.commands import PROGRAM as PROGRAM_COMMAND
from imagecached.errors import ImagecachedError
from imagecached.exits import DONE, EXIT_CODES, FAILED, INTERRUPTED, USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from imagecached.ctl.client import Daemon
    from imagecached.ctl.output import Form


class Call:
    """What every command gets: ``daemon``, which it talks to, and ``form``, in which it answers."""

    __slots__ = ("daemon", "form")

    def __init__(self, daemon: Daemon, form: Form) -> None:
        self.daemon = daemon
        self.form = form


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"{PROGRAM}: {message}", file=sys.stderr)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        code = _answer(sys.argv[1:] if arguments is None else arguments)
        if sys.stdout:
            sys.stdout.flush()
        return code
    except UsageError as error:
        complain(f"{error.command.name}: {error}" if error.command.name else str(error))
        print(f"{error.command.usage()}   (-h explains)", file=sys.stderr)
        return USAGE
    except ImagecachedError as error:
        complain(str(error))
        return EXIT_CODES[error.kind]
    except KeyboardInterrupt:
        print(file=sys.stderr)  # behind the ^C that the terminal shows
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        _silence()
        return FAILED
    except OSError as error:
        complain(str(error))
        _silence()
        return FAILED


def _answer(arguments: Sequence[str]) -> int:
    try:
        return _perform(arguments)
    except HelpWanted as wanted:
        from imagecached.ctl.usage import explain

        print(explain(wanted.command))
        return DONE


def _perform(arguments: Sequence[str]) -> int:
    before = PROGRAM_COMMAND.read(_text(arguments))
    name, *rest = before["words"]
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(PROGRAM_COMMAND, f"no such command: {name}")
    values = command.read(rest)
    form: Form = values.pop("output", None) or before["output"] or "table"
    socket = before["socket"] or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET
    from imagecached.ctl.client import Daemon

    return _function(command.module, name)(Call(Daemon(socket), form), **values) or DONE


def _text(arguments: Sequence[str]) -> Sequence[str]:
    try:
        "".join(arguments).encode()
    except UnicodeEncodeError:
        raise UsageError(PROGRAM_COMMAND, "arguments must be UTF-8") from None
    return arguments


def _function(module: str, name: str) -> Callable[..., int | None]:
    """The function of command ``name``; no other module of commands is imported."""
    name = name.replace("-", "_")
    found: Any = __import__(f"imagecached.ctl.{module}", fromlist=[name])
    return getattr(found, name)  # type: ignore[no-any-return]


def _silence() -> None:
    """Standard output takes no more: neither may the interpreter try at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
