"""The command line of ``imagecachectl``: options, exit codes, what is said when something fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast

import click

from imagecached.ctl.client import Daemon
from imagecached.ctl.output import FORMS, Form
from imagecached.errors import ImagecachedError
from imagecached.exits import DONE, EXIT_CODES, FAILED, INTERRUPTED, USAGE

DEFAULT_SOCKET: Final = "/run/imagecached/imagecached.sock"
_FORM: Final = "imagecached.form"

F = TypeVar("F", bound=Callable[..., Any])


def _set_form(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.meta[_FORM] = value


output_option: Final[Callable[[F], F]] = click.option(
    "-o",
    "--output",
    type=click.Choice(FORMS),
    expose_value=False,
    callback=_set_form,
    help="How to print the answer; table by default.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--socket",
    default=DEFAULT_SOCKET,
    envvar="IMAGECACHED_DAEMON__SOCKET",
    show_default=True,
    show_envvar=True,
    help="The daemon's unix socket.",
)
@output_option
@click.pass_context
def program(context: click.Context, socket: str) -> None:
    """Container images, ready in milliseconds."""
    context.obj = Daemon(socket)


def daemon() -> Daemon:
    """The daemon that the command talks to."""
    return cast(Daemon, click.get_current_context().obj)


def form() -> Form:
    """What ``-o`` said, before or behind the command."""
    return cast(Form, click.get_current_context().meta.get(_FORM, "table"))


def complain(message: str) -> None:
    """One line on standard error."""
    print(f"imagecachectl: {message}", file=sys.stderr)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    from imagecached.ctl import images, upkeep, use  # they add their commands to ``program``

    for module in (images, use, upkeep):
        module.add_to(program)
    try:
        code = program.main(arguments, prog_name="imagecachectl", standalone_mode=False)
        sys.stdout.flush()
    except ImagecachedError as error:
        complain(str(error))
        return EXIT_CODES[error.kind]
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        error.show()
        return FAILED
    except click.Abort:
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code if isinstance(code, int) else DONE
