"""Large blobs over several requests at once: order, bound, fall-back, cancellation."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from dataclasses import replace

import pytest
from aiohttp import web

from imagecached.errors import Corrupt, InvalidInput, NotFound, Unavailable
from imagecached.registry import Ranged, Registry, RegistryConfig
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import NAME, Counted, blob, content, path, read, reference
from tests.unit.registry.test_fetch import _gone

DATA = content(10_500)  # eleven parts of 1000 bytes, three at a time


@pytest.fixture(autouse=True)
def stored(fake: FakeRegistry) -> None:
    """One blob above the threshold."""
    fake.put_blob(NAME, DATA)


def starts(fake: FakeRegistry) -> list[int]:
    """Where the requests so far began."""
    return [int(each.range.removeprefix("bytes=").partition("-")[0]) for each in fake.requests if each.range]


async def test_parts_in_order(fake: FakeRegistry, client: Registry, counted: Counted) -> None:
    """Every part once, the last one shorter, and the whole in order."""
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert sorted(starts(fake)) == list(range(0, 10_500, 1000))
    assert {each.range for each in fake.requests} >= {"bytes=0-999", "bytes=10000-10499"}
    assert counted == {"registry": len(DATA)}


@pytest.mark.parametrize("size", [4000, 4001, 4999, 5000])
async def test_sizes_around_parts(size: int, fake: FakeRegistry, client: Registry) -> None:
    """No byte too many or too few at the borders."""
    data = content(size)
    fake.put_blob(NAME, data)
    assert await read(client, reference(fake), blob(data)) == data
    assert len(fake.requests) == -(-size // 1000)


async def test_below_the_threshold_or_with_one_connection(
    fake: FakeRegistry, client: Registry, config: RegistryConfig
) -> None:
    """One plain stream."""
    data = content(3999)
    fake.put_blob(NAME, data)
    assert await read(client, reference(fake), blob(data)) == data
    one = replace(config, ranged=replace(config.ranged, connections=1))
    async with Registry(one, environment={}) as single:
        assert await read(single, reference(fake), blob(DATA)) == DATA
    assert [each.range for each in fake.requests] == ["", ""]


@pytest.mark.parametrize("settings", [{"connections": 0}, {"chunk_bytes": 0}])
def test_settings_that_would_never_end(settings: dict[str, int]) -> None:
    """Refused when they are made."""
    with pytest.raises(InvalidInput):
        Ranged(**settings)


async def test_window_is_bounded(fake: FakeRegistry, client: Registry) -> None:
    """While the first part hangs, no more parts are asked for than there are connections."""
    gate = asyncio.Event()

    async def first_hangs(request: web.Request, answer: faults.Answer) -> web.StreamResponse:
        if request.headers["Range"].startswith("bytes=0-"):
            return await faults.gated(gate, after=10)(request, answer)
        return await faults.plainly(request, answer)

    fake.always(path(DATA), first_hangs)
    received = b""
    async with aclosing(client.fetch(reference(fake), blob(DATA))) as stream:
        async for data in stream:
            received += data
            if not gate.is_set():
                assert received == DATA[:10], "the first part is given out while it arrives"
                for _ in range(200):
                    await asyncio.sleep(0)
                assert sorted(starts(fake)) == [0, 1000, 2000]
                gate.set()
    assert received == DATA


async def test_slow_consumer_bounds_the_window(fake: FakeRegistry, client: Registry) -> None:
    """What nobody takes is not fetched ahead."""
    async with aclosing(client.fetch(reference(fake), blob(DATA))) as stream:
        async for _ in stream:
            for _ in range(200):
                await asyncio.sleep(0)
            assert max(starts(fake)) == 2000
            break
    await _gone(client)


async def test_any_order_of_arrival(fake: FakeRegistry, client: Registry) -> None:
    """Parts that arrive, break and come again in any order make the same blob."""
    chance = random.Random(7)

    async def moody(request: web.Request, answer: faults.Answer) -> web.StreamResponse:
        for _ in range(chance.randrange(20)):
            await asyncio.sleep(0)
        if chance.random() < 0.2:
            return await faults.broken(chance.randrange(len(answer.body)))(request, answer)
        return await faults.plainly(request, answer)

    fake.always(path(DATA), moody)
    assert await read(client, reference(fake), blob(DATA)) == DATA


async def test_server_that_ignores_range(fake: FakeRegistry, client: Registry, counted: Counted) -> None:
    """One stream instead, and nothing is counted twice."""
    fake.always(path(DATA), faults.range_ignored())
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert fake.requests[-1].range == ""
    assert len(fake.requests) <= 4
    assert counted == {"registry": len(DATA)}
    await _gone(client)


async def test_server_that_stops_honouring_range(fake: FakeRegistry, client: Registry) -> None:
    """In the middle: what was given out stays, the rest comes as one stream."""

    async def sometimes(request: web.Request, answer: faults.Answer) -> web.StreamResponse:
        ignores = not request.headers.get("Range", "").startswith(("bytes=0-", "bytes=1000-"))
        return await (faults.range_ignored() if ignores else faults.plainly)(request, answer)

    fake.always(path(DATA), sometimes)
    assert await read(client, reference(fake), blob(DATA)) == DATA


async def test_error_of_a_part(fake: FakeRegistry, client: Registry) -> None:
    """It is raised when its turn comes, after every byte before it, and ends the others."""

    async def fails(request: web.Request, answer: faults.Answer) -> web.StreamResponse:
        bad = request.headers["Range"].startswith("bytes=2000-")
        return await (faults.status(404) if bad else faults.plainly)(request, answer)

    fake.always(path(DATA), fails)
    received: list[bytes] = []
    with pytest.raises(NotFound):
        await read(client, reference(fake), blob(DATA), into=received)
    assert b"".join(received) == DATA[:2000]
    await _gone(client)


@pytest.mark.parametrize(
    "fault",
    [faults.unsized(b"!"), faults.other_range("bytes 0-999/10501"), faults.other_range("bytes 1-1000/10500")],
)
async def test_parts_that_lie(fault: faults.Fault, fake: FakeRegistry, client: Registry) -> None:
    """A part that is longer, of another blob size or from another place is Corrupt."""
    fake.always(path(DATA), fault)
    received: list[bytes] = []
    with pytest.raises(Corrupt):
        await read(client, reference(fake), blob(DATA), into=received)
    assert DATA.startswith(b"".join(received))


async def test_closing_and_cancelling_end_everything(fake: FakeRegistry, client: Registry) -> None:
    """All connections, whether the consumer leaves or is cancelled."""
    fake.always(path(DATA), faults.stalled(100))
    async with aclosing(client.fetch(reference(fake), blob(DATA))) as stream:
        async for data in stream:
            assert data == DATA[:100]
            break
    await _gone(client)
    before = len(fake.requests)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(read(client, reference(fake), blob(DATA)))
        while len(fake.requests) < before + 3:
            await asyncio.sleep(0)
        task.cancel()
    assert task.cancelled()
    await _gone(client)


async def test_closing_the_client_ends_a_read(
    fake: FakeRegistry, config: RegistryConfig, time: FakeTime
) -> None:
    """A reader that is left behind gets an error and the client does not hang."""
    fake.always(path(DATA), faults.stalled(100))
    async with Registry(config, clock=time.clock(), environment={}) as client:
        stream = client.fetch(reference(fake), blob(DATA))
        assert await anext(stream) == DATA[:100]
    with pytest.raises(Unavailable, match="closed"):
        await anext(stream)


async def test_two_blobs_at_once(fake: FakeRegistry, client: Registry) -> None:
    """Readers do not disturb each other."""
    more = content(8_200)[::-1]
    fake.put_blob(NAME, more)
    async with asyncio.TaskGroup() as group:
        one = group.create_task(read(client, reference(fake), blob(DATA)))
        two = group.create_task(read(client, reference(fake), blob(more)))
    assert (one.result(), two.result()) == (DATA, more)
