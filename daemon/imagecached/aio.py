"""The asyncio tools that the rest is built on: shielded threads, bells, flights, errors of groups, backoff.

Knows none of our nouns and does no I/O of its own. Invariants: work handed to :func:`finish` is wholly done
or has wholly failed when the call ends, cancelled or not; a flight's task ends before its last passenger's
``join`` returns.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import signal
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


async def asked_to_stop() -> None:
    """Until SIGTERM or SIGINT; the second one ends the process at once."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    await asked.wait()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


async def finish(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run ``function`` in a thread and return its result.

    Cancelling the caller does not abandon the thread: the call waits for it and then raises CancelledError,
    so a mutation is never left running behind the caller's back. Use it for short work that must not be torn.
    """
    context = contextvars.copy_context()
    call = partial(context.run, partial(function, *args, **kwargs))
    future = asyncio.get_running_loop().run_in_executor(None, call)
    cancelled = await _wait_for(future)
    if cancelled is not None:
        future.exception()
        raise cancelled
    return future.result()


async def apart(call: Coroutine[Any, Any, T]) -> T:
    """Run ``call`` in a task of its own, which has ended when this has, and is cancelled with the caller.

    For what cancels its own task to wake it: a cancellation of the caller does not get lost in that.
    """
    task = asyncio.get_running_loop().create_task(call)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await _wait_for(task)
        if not task.cancelled():
            task.exception()  # looked at, and of no interest any more
        raise
    return task.result()


async def _wait_for(future: asyncio.Future[T]) -> asyncio.CancelledError | None:
    """Wait until ``future`` is done whatever happens; return the cancellation that came meanwhile, if any."""
    cancelled = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled


class Bell:
    """Rung when something has changed: it wakes whoever waits at that moment, and nobody who comes later.

    Look first, then wait: nothing can change in between, as there is no await.
    """

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Something has changed."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self) -> None:
        """Until the next ring."""
        await self._next.wait()


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T | BaseException]) -> None:
        self.task = task
        self.passengers = 0


class Flights(Generic[K, T]):
    """Same key asked twice at once = one flight.

    Everyone who joins gets the one result or the one error. A passenger who is cancelled leaves; when the
    last one has left, the flight is cancelled and unwound before ``join`` raises. Tasks belong to the
    ``group`` given.
    """

    def __init__(self, group: asyncio.TaskGroup, name: str) -> None:
        self._group = group
        self._name = name
        self._flights: dict[K, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def join(self, key: K, start: Callable[[], Awaitable[T]]) -> T:
        """Result of the flight for ``key``, started by ``start()`` if none is under way."""
        while (flight := self._flights.get(key)) is not None and flight.passengers == 0:
            await asyncio.wait([flight.task])  # the last flight is still unwinding
            self._land(key, flight)
        if flight is None:
            flight = self._take_off(key, start)
        flight.passengers += 1
        try:
            await asyncio.wait([flight.task])
        finally:
            flight.passengers -= 1
            if flight.passengers == 0:
                flight.task.cancel()
                await _wait_for(flight.task)
                self._land(key, flight)
        outcome = flight.task.result()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _take_off(self, key: K, start: Callable[[], Awaitable[T]]) -> _Flight[T]:
        task = self._group.create_task(_outcome(start), name=f"{self._name} {key}")
        flight = self._flights[key] = _Flight(task)
        return flight

    def _land(self, key: K, flight: _Flight[T]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _outcome(start: Callable[[], Awaitable[T]]) -> T | BaseException:
    """The result or the error as a value: an error must reach the passengers, not the task group."""
    try:
        return await start()
    except Exception as error:  # noqa: BLE001  re-raised by every passenger's join
        return error


def leaves(errors: ExceptionGroup[Exception]) -> Iterator[Exception]:
    """The errors of a task group, however nested, first to last."""
    for error in errors.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def backoff(attempt: int, *, first: float, most: float, jitter: random.Random | None = None) -> float:
    """Seconds to wait before retry ``attempt`` (0, 1, …): exponential with full jitter, at most ``most``."""
    ceiling = min(most, first * 2 ** min(attempt, 32))
    return (jitter or random).uniform(0, ceiling)
