"""An event loop whose time passes only when nobody has anything to do: hours of waiting in a moment.

    def test_renews() -> None:
        run(scenario())

Time stands still while anything is ready, a socket has bytes, or a thread works; then it jumps to the next
timer. ``asyncio.sleep``, ``asyncio.timeout`` and ``loop.time()`` all see it.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_QUIET_SECONDS = 0.002  # how long sockets must be silent before time may jump
START = 1_700_000_000.0


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run ``scenario`` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(scenario)


def wall() -> float:
    """Seconds since 1970 as the running virtual loop has it; begins at :data:`START`."""
    return START + asyncio.get_running_loop().time()


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` begins at 0. ``quiet_seconds`` 0 is for scenarios without sockets."""

    def __init__(self) -> None:
        self._jumper = _Jumper()
        super().__init__(self._jumper)

    def time(self) -> float:
        return self._jumper.now

    def run_in_executor(  # type: ignore[override]  # the base's signature cannot be spelled
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As ever, and time stands still until the thread has ended."""
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self._jumper.threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: Any) -> None:
        self._jumper.threads -= 1


class _Jumper(selectors.DefaultSelector):
    """Waits for sockets only a moment, then moves the time instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0 or self.threads:
            return super().select(0.05 if timeout and self.threads else timeout)
        ready = super().select(_QUIET_SECONDS if len(self.get_map()) > 1 else 0)
        if not ready:
            self.now += timeout
        return ready
