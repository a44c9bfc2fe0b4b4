"""The order of looks, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from imagecached.errors import FailedPrecondition, Unavailable
from imagecached.kube.controller.queue import Look, Queue
from tests.fakes.virtual import run


class Looks:
    """A look that takes ``seconds`` and remembers when it began; ``answers`` come one after the other."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.begun: list[tuple[str, float]] = []
        self.now: set[str] = set()
        self.most = 0
        self.answers: list[float | Exception | None] = []

    async def __call__(self, key: str) -> float | None:
        assert key not in self.now, "two looks at one key at the same time"
        self.now.add(key)
        self.most = max(self.most, len(self.now))
        self.begun.append((key, asyncio.get_running_loop().time()))
        await asyncio.sleep(self.seconds)
        self.now.discard(key)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


def scenario(
    look: Look,
    act: Callable[[Queue], Coroutine[Any, Any, None]],
    *,
    workers: int = 4,
    seconds: float = 1000.0,
    apart: float = 0.0,
) -> None:
    """Let ``act`` name keys while the workers run; all ends after ``seconds``."""

    async def whole() -> None:
        queue = Queue(look, apart=lambda: apart)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                group.create_task(queue.run(workers))
                await act(queue)

    run(whole())


def test_a_key_named_often_is_looked_at_once() -> None:
    """Events only say that something changed; how many said so does not matter."""
    looks = Looks()

    async def act(queue: Queue) -> None:
        for _ in range(100):
            queue.add("a")

    scenario(looks, act)
    assert looks.begun == [("a", 0.0)]


def test_news_during_a_look_lead_to_another_look_after_it() -> None:
    """What changed after a look read it would be lost otherwise."""
    looks = Looks(seconds=5)

    async def act(queue: Queue) -> None:
        queue.add("a")
        await asyncio.sleep(1)
        queue.add("a")

    scenario(looks, act)
    assert looks.begun == [("a", 0.0), ("a", 5.0)]


def test_keys_are_looked_at_in_parallel_up_to_the_number_of_workers() -> None:
    """One slow object must not hold up the others, nor may all be worked on at once."""
    looks = Looks(seconds=10)

    async def act(queue: Queue) -> None:
        for key in "abcdef":
            queue.add(key)

    scenario(looks, act, workers=2)
    assert looks.most == 2
    assert [at for _, at in looks.begun] == [0.0, 0.0, 10.0, 10.0, 20.0, 20.0]


def test_looks_at_one_key_are_spaced() -> None:
    """A storm of news costs one look per interval, and its end is never missed."""
    looks = Looks()

    async def act(queue: Queue) -> None:
        for _ in range(50):
            queue.add("a")
            await asyncio.sleep(0.1)

    scenario(looks, act, apart=2.0)
    assert [at for _, at in looks.begun] == [0.0, 2.0, 4.0, 6.0]


def test_the_earlier_of_two_times_counts() -> None:
    """A look that is due in an hour is done at once when there are news, and not a second time in an hour."""
    looks = Looks()

    async def act(queue: Queue) -> None:
        queue.add("a", 3600)
        queue.add("a", 10)
        queue.add("a", 20)

    scenario(looks, act, seconds=10_000)
    assert looks.begun == [("a", 10.0)]


def test_a_look_says_when_it_wants_to_be_repeated() -> None:
    """That is how deadlines come about without a timer per object."""
    looks = Looks()
    looks.answers = [60.0, 60.0]

    async def act(queue: Queue) -> None:
        queue.add("a")

    scenario(looks, act)
    assert [at for _, at in looks.begun] == [0.0, 60.0, 120.0]


def test_failures_are_repeated_after_longer_and_longer_waits() -> None:
    """An API server in trouble is not hammered, and a programming error on one object stops nobody else."""
    looks = Looks()
    looks.answers = [
        FailedPrecondition("changed"),
        ValueError("a fault of ours"),
        *[Unavailable("down")] * 10,
    ]

    async def act(queue: Queue) -> None:
        queue.add("a")

    scenario(looks, act, seconds=100_000)
    waits = [later - sooner for (_, sooner), (_, later) in zip(looks.begun, looks.begun[1:], strict=False)]
    assert len(waits) == 12
    assert all(1 <= wait <= 301 for wait in waits)
    assert max(waits[-4:]) > max(waits[:2])


def test_the_server_s_own_wish_for_patience_is_honoured() -> None:
    """Retry-After comes before our own idea."""
    looks = Looks()
    looks.answers = [Unavailable("too many requests", retry_after=500)]

    async def act(queue: Queue) -> None:
        queue.add("a")

    scenario(looks, act, seconds=5000)
    assert [at for _, at in looks.begun] == [0.0, 500.0]


def test_a_forgotten_key_is_not_looked_at() -> None:
    """Keys of objects that are gone leave nothing behind."""
    looks = Looks()

    async def act(queue: Queue) -> None:
        queue.add("a", 10)
        queue.add("b", 10)
        queue.forget("a")

    scenario(looks, act)
    assert looks.begun == [("b", 10.0)]


def test_looks_that_wait_for_nothing_let_others_work_in_between() -> None:
    """A leader that looks at thousands of nodes must renew its lease meanwhile."""
    looked: list[str] = []
    turns: list[int] = []

    async def look(key: str) -> None:
        looked.append(key)

    async def act(queue: Queue) -> None:
        for number in range(1000):
            queue.add(str(number))
        while len(looked) < 1000:
            turns.append(len(looked))
            await asyncio.sleep(0)

    scenario(look, act, workers=8)
    assert len(turns) >= 1000 // 8


def test_a_key_that_waits_for_its_own_look_holds_up_no_other() -> None:
    """It was named again while it was looked at for long; what is named later has its turn all the same."""
    looks = Looks(seconds=500.0)

    async def act(queue: Queue) -> None:
        queue.add("long")
        await asyncio.sleep(1)
        queue.add("long")
        await asyncio.sleep(1)
        queue.add("other")

    scenario(looks, act, seconds=400.0)
    assert looks.begun == [("long", 0.0), ("other", 2.0)]
