"""The commands that use images: mount, umount, run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from imagecached.ctl.client import Daemon, error_of
from imagecached.ctl.images import pull_images
from imagecached.ctl.program import complain, daemon
from imagecached.errors import AccessDenied, FailedPrecondition, ImagecachedError, InvalidInput, NotFound

if TYPE_CHECKING:
    from subprocess import Popen

_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)

T = TypeVar("T")


def _pulling_if_needed(asked: Daemon, image: str, act: Callable[[], T]) -> T:
    """What ``act`` gives; if the image is not here, or damaged, it is pulled first."""
    try:
        return act()
    except (NotFound, FailedPrecondition):
        [ended] = pull_images(asked, [image])
        if ended["state"] == "failed":
            raise error_of(ended["error"]) from None
        return act()


@click.command()
@click.argument("image")
@click.argument("directory", type=click.Path(resolve_path=True))
@click.option("--read-write", is_flag=True, help="Allow changes, which umount drops.")
def mount(image: str, directory: str, *, read_write: bool) -> None:
    """Mount an image's tree on an empty DIRECTORY; pulls the image if it is not here."""
    body = {"image": image, "target": directory, "read_write": read_write}
    asked = daemon()
    _pulling_if_needed(asked, image, lambda: asked.post("/v1/mounts", body))


@click.command()
@click.argument("directory", type=click.Path(resolve_path=True))
def umount(directory: str) -> None:
    """Undo a mount."""
    daemon().delete("/v1/mounts", target=directory)


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="Over the image's environment.")
@click.option("-w", "--workdir", default="", metavar="DIR", help="Instead of the image's.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Instead of the image's.")
def run(image: str, command: tuple[str, ...], env: tuple[str, ...], workdir: str, user: str) -> int:
    """Run a container of IMAGE and return its exit code; pulls the image if it is not here."""
    if os.geteuid() != 0:
        raise AccessDenied("running a container needs root")
    asked = daemon()
    body = {
        "image": image,
        "arguments": command,
        "environment": dict(_variable(text) for text in env),
        "working_dir": workdir,
        "user": user,
        "terminal": sys.stdin.isatty() and sys.stdout.isatty(),
    }
    bundle = _pulling_if_needed(asked, image, lambda: asked.post("/v1/containers", body))
    try:
        return _run(bundle)
    finally:
        _release(asked, bundle["id"])


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidInput(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _run(bundle: Mapping[str, Any]) -> int:
    """The container's exit code; 128 and the signal's number if the runtime was killed."""
    from subprocess import DEVNULL, Popen, call

    program = bundle["runtime"]
    with (
        _forwarding() as forward_to,
        Popen([program, "run", "--bundle", bundle["dir"], bundle["id"]]) as child,
    ):
        forward_to(child)
        code = child.wait()
    if code >= 0:
        return code
    call([program, "delete", "--force", bundle["id"]], stdout=DEVNULL, stderr=DEVNULL)
    return 128 - code


@contextlib.contextmanager
def _forwarding() -> Iterator[Callable[[Popen[bytes]], None]]:
    """Signals are for the container: the runtime passes them on. Ctrl-C reaches it from the terminal."""
    children: list[Popen[bytes]] = []

    def forward(number: int, _: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield children.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _release(asked: Daemon, container: str) -> None:
    try:
        asked.delete(f"/v1/containers/{container}")
    except ImagecachedError as error:  # the container's own exit code is worth more
        complain(f"container {container} was not cleaned up: {error}")


def add_to(program: click.Group) -> None:
    """Add this module's commands."""
    for command in (mount, umount, run):
        program.add_command(command)
