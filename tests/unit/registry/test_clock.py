"""Retry-After and waits, without waiting."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecached.errors import Unavailable
from imagecached.registry import Patience
from imagecached.registry.clock import Clock
from tests.fakes.time import FakeTime


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 400, None),
        ("٣", None),
        (formatdate(1_000_030, usegmt=True), 30.0),
        (formatdate(999_000, usegmt=True), 0.0),
        ("Wed, 99 Foo 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """Seconds or an HTTP date; a date that has passed means now; anything else means nothing."""
    assert FakeTime().clock().retry_after(value) == seconds


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_retry_after(value: str) -> None:
    """Whatever a server writes there."""
    seconds = Clock().retry_after(value)
    assert seconds is None or seconds >= 0


async def test_waits_double_up_to_the_most() -> None:
    """Exponential, bounded."""
    time = FakeTime()
    patience = Patience(first_wait_seconds=1, most_wait_seconds=5)
    for attempt in range(5):
        await time.clock().wait(Unavailable("x"), attempt, patience)
    assert time.slept == [1, 2, 4, 5, 5]


async def test_waits_are_jittered() -> None:
    """Full jitter: anything from nothing to the longest wait, so that nodes do not return all at once."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    clock = Clock(sleep=sleep)
    for _ in range(200):
        await clock.wait(Unavailable("x"), 3, Patience(first_wait_seconds=1, most_wait_seconds=8))
    assert min(slept) < 2
    assert max(slept) > 6
    assert max(slept) <= 8


async def test_retry_after_is_honoured_within_reason() -> None:
    """At least as long as asked; a longer wait than allowed is for the caller to decide."""
    time = FakeTime()
    await time.clock().wait(Unavailable("x", retry_after=20), 0, Patience())
    assert time.slept == [20]
    with pytest.raises(Unavailable) as caught:
        await time.clock().wait(Unavailable("x", retry_after=61), 0, Patience(retry_after_most_seconds=60))
    assert caught.value.retry_after == 61
    assert time.slept == [20]
