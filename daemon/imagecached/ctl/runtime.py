"""The container runtime, runc or crun, as a child of ours: it gets our streams and our signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from subprocess import DEVNULL, Popen, call
from types import FrameType
from typing import Any, Final

_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run_bundle(bundle: Mapping[str, Any]) -> int:
    """The container's exit code; 128 and the signal's number if the runtime was killed."""
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


@contextmanager
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
