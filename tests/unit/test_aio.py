"""aio: threads that are never abandoned, one flight per key, errors out of their groups."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from imagecached.aio import Flights, apart, backoff, finish, leaves


async def test_finish_returns_the_result_and_raises_the_error() -> None:
    """What the function gives or raises reaches the caller."""
    assert await finish(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await finish(divmod, 7, 0)


async def test_finish_waits_for_the_thread_when_cancelled() -> None:
    """A cancelled caller gets CancelledError only after the work is done."""
    started, release, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        release.wait(10)
        done.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(finish(work))
        await finish(started.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        release.set()
        await asyncio.wait([task])
    assert task.cancelled()
    assert done.is_set()


async def test_one_flight_serves_everyone() -> None:
    """Two passengers of one key share one start and one result."""
    starts = 0
    gate = asyncio.Event()

    async def start() -> int:
        nonlocal starts
        starts += 1
        await gate.wait()
        return 42

    async with asyncio.TaskGroup() as group:
        flights: Flights[str, int] = Flights(group, "test")
        first = group.create_task(flights.join("a", start))
        second = group.create_task(flights.join("a", start))
        await asyncio.sleep(0)
        gate.set()
        assert (await first, await second, starts) == (42, 42, 1)
        assert len(flights) == 0


async def test_an_error_reaches_every_passenger_and_not_the_group() -> None:
    """A failed flight fails its passengers only, and the next join starts anew."""

    async def fail() -> int:
        raise ValueError("no")

    async def succeed() -> int:
        return 1

    async with asyncio.TaskGroup() as group:
        flights: Flights[str, int] = Flights(group, "test")
        joins = [asyncio.ensure_future(flights.join("a", fail)) for _ in range(2)]  # noqa: TID251
        results = await asyncio.gather(*joins, return_exceptions=True)  # noqa: TID251
        assert [type(result) for result in results] == [ValueError, ValueError]
        assert await flights.join("a", succeed) == 1


async def test_the_flight_goes_on_while_somebody_wants_it() -> None:
    """One passenger leaving changes nothing; the last one leaving cancels, after unwinding."""
    unwound = asyncio.Event()

    async def start() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            unwound.set()
        return 0

    async with asyncio.TaskGroup() as group:
        flights: Flights[str, int] = Flights(group, "test")
        first = group.create_task(flights.join("a", start))
        second = group.create_task(flights.join("a", start))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        assert not unwound.is_set()
        assert len(flights) == 1
        second.cancel()
        await asyncio.wait([second])
        assert unwound.is_set()
        assert second.cancelled()
        assert len(flights) == 0


async def test_a_newcomer_waits_for_the_unwinding_flight() -> None:
    """Joining while the old flight is being cancelled starts a new one after it has gone."""
    order: list[str] = []

    async def slow() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("old gone")
        return 0

    async def fresh() -> int:
        order.append("new started")
        return 7

    async with asyncio.TaskGroup() as group:
        flights: Flights[str, int] = Flights(group, "test")
        first = group.create_task(flights.join("a", slow))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        assert await flights.join("a", fresh) == 7
        assert order == ["old gone", "new started"]


def test_backoff_grows_and_is_bounded() -> None:
    """The ceiling doubles per attempt up to the most."""
    top = [max(backoff(n, first=1, most=10, jitter=random.Random(i)) for i in range(200)) for n in range(6)]
    assert top[0] <= 1 < top[1] <= 2 < top[2] <= 4 < top[3] <= 8
    assert max(top) <= 10


def test_the_errors_of_nested_groups_come_out_in_order() -> None:
    """Whatever the nesting, first to last."""
    first, second, third = ValueError("1"), KeyError("2"), OSError("3")
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [first, second]), third])
    assert list(leaves(nested)) == [first, second, third]


async def test_apart_is_cancelled_with_its_caller() -> None:
    """The call has ended when its caller has, whatever error it makes of that."""
    begun, ended = asyncio.Event(), []

    async def stubborn() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)
            raise ValueError("instead")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(apart(stubborn()))
        await begun.wait()
        task.cancel()
    assert task.cancelled()
    assert ended == [1]


async def test_apart_gives_result_and_error() -> None:
    """As a plain await would."""

    async def double(number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    assert await apart(double(2)) == 4
    with pytest.raises(ValueError, match="negative"):
        await apart(double(-1))
