"""The commands that use images: mount, umount, run."""

from __future__ import annotations

import os
import sys

from imagecached.ctl.client import error_of
from imagecached.ctl.images import pull_images
from imagecached.ctl.program import complain
from imagecached.errors import AccessDenied, FailedPrecondition, ImagecachedError, InvalidInput, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from imagecached.ctl.client import Daemon
    from imagecached.ctl.program import Call


def _pulling_if_needed(asked: Daemon, image: str, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``act`` gives; if the image is not here, or damaged, it is pulled first."""
    try:
        return act()
    except (NotFound, FailedPrecondition):
        [ended] = pull_images(asked, [image])
        if ended["state"] == "failed":
            raise error_of(ended["error"]) from None
        return act()


def _chosen(asked: Daemon, image: str, annotation: Sequence[str]) -> str:
    """The image that an ImageCache has for this one, if one was asked for."""
    if not (annotation or image.startswith("imc-")):
        return image
    from imagecached.ctl.caches import choose

    return choose(asked, image, dict(_variable(text) for text in annotation))


def mount(call: Call, *, image: str, directory: str, read_write: bool, annotation: Sequence[str]) -> None:
    """Mount an image's tree on an empty ``directory``; pulls the image if it is not here."""
    image = _chosen(call.daemon, image, annotation)
    body = {"image": image, "target": directory, "read_write": read_write}
    _pulling_if_needed(call.daemon, image, lambda: call.daemon.post("/v1/mounts", body))


def umount(call: Call, *, directory: str) -> None:
    """Undo a mount."""
    call.daemon.delete("/v1/mounts", target=directory)


def run(
    call: Call,
    *,
    image: str,
    command: Sequence[str],
    env: Sequence[str],
    workdir: str,
    user: str,
    annotation: Sequence[str],
) -> int:
    """Run a container of ``image`` and return its exit code; pulls the image if it is not here."""
    from imagecached.ctl.runtime import run_bundle

    if os.geteuid() != 0:
        raise AccessDenied("running a container needs root")
    image = _chosen(call.daemon, image, annotation)
    body = {
        "image": image,
        "arguments": command,
        "environment": dict(_variable(text) for text in env),
        "working_dir": workdir,
        "user": user,
        "terminal": sys.stdin.isatty() and sys.stdout.isatty(),
    }
    bundle = _pulling_if_needed(call.daemon, image, lambda: call.daemon.post("/v1/containers", body))
    try:
        return run_bundle(bundle)
    finally:
        _release(call.daemon, bundle["id"])


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InvalidInput(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _release(asked: Daemon, container: str) -> None:
    try:
        asked.delete(f"/v1/containers/{container}")
    except ImagecachedError as error:  # the container's own exit code is worth more
        complain(f"container {container} was not cleaned up: {error}")
