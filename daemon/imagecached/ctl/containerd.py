"""The command about containerd: containerd-config. Asks no daemon; what it prints is ``dropin``'s."""

from __future__ import annotations

from pathlib import Path
from subprocess import CalledProcessError, run

from imagecached.dropin import Mode, Places, Version, explained, read
from imagecached.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imagecached.ctl.program import Call


def containerd_config(
    call: Call,  # noqa: ARG001  every command gets it
    *,
    mode: Mode | None,
    version: str,
    config: str,
    snapshots: str,
    root: str,
) -> None:
    """Print the settings with which containerd starts pods from here."""
    if mode is None:
        raise InvalidInput("containerd-config: say --mode handler or --mode default")
    default, asked = Places(), Version.parse(version or _installed())
    places = Places(Path(snapshots or default.socket), Path(root or default.root))
    print(explained(asked, mode, read(Path(config), asked), places), end="")


def _installed() -> str:
    try:
        return run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, CalledProcessError):
        raise InvalidInput("no containerd is found here: say its --version") from None
