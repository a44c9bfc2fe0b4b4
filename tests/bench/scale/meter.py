"""Who spends the processor: an event loop in virtual time that knows for whom each of its steps is.

Tasks carry the name of their owner in their context, and tasks that they start inherit it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

from tests.fakes.virtual import VirtualLoop

T = TypeVar("T")

_OWNER: ContextVar[str] = ContextVar("owner", default="bench")


class MeasuredLoop(VirtualLoop):
    """``spent``: seconds of processor time by owner."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: Counter[str] = Counter()

    def call_soon(  # type: ignore[override]  # the base's signature cannot be spelled
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """As ever, with a stopwatch."""
        return super().call_soon(self._measured, callback, *args, context=context)

    def _measured(self, callback: Callable[..., Any], *args: Any) -> None:
        began = time.thread_time()
        try:
            callback(*args)
        finally:
            self.spent[_OWNER.get()] += time.thread_time() - began  # type: ignore[assignment]


def owned(name: str) -> Context:
    """A context in which work is ``name``'s."""
    context = copy_context()
    context.run(_OWNER.set, name)
    return context


async def on_account_of(name: str, work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` in a task of ``name``'s."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, context=owned(name))
    return task.result()


def spent() -> Counter[str]:
    """Seconds by owner up to now."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, MeasuredLoop)
    return Counter(loop.spent)


def run(scenario: Coroutine[Any, Any, T]) -> T:
    """Run ``scenario`` in virtual time, measured."""
    with asyncio.Runner(loop_factory=MeasuredLoop) as runner:
        return runner.run(scenario)
