"""Blobs as one stream: what comes out when the server, the network or the consumer breaks off."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from aiohttp import web

from imagecached.errors import AccessDenied, Corrupt, ImagecachedError, NotFound, Unavailable, Unsupported
from imagecached.oci.digest import Digest
from imagecached.registry import Registry, RegistryConfig
from imagecached.registry.fetch import PROGRESS_BYTES
from tests.fakes import faults
from tests.fakes.registry import FakeRegistry
from tests.fakes.time import FakeTime
from tests.unit.registry.pulling import NAME, Counted, blob, content, path, read, reference

DATA = content(3000)


@pytest.fixture(autouse=True)
def stored(fake: FakeRegistry) -> None:
    """One blob, small enough for one stream."""
    fake.put_blob(NAME, DATA)


async def test_one_request(fake: FakeRegistry, client: Registry, counted: Counted) -> None:
    """A small blob comes by one plain GET."""
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert [each.range for each in fake.requests] == [""]
    assert counted == {"registry": len(DATA)}


async def test_empty_blob(fake: FakeRegistry, client: Registry) -> None:
    """Nothing is asked for where nothing is to come."""
    assert await read(client, reference(fake), blob(b"")) == b""
    assert fake.requests == []


@pytest.mark.parametrize("reset", [True, False])
async def test_resumes_at_the_exact_byte(reset: bool, fake: FakeRegistry, client: Registry) -> None:
    """After each break the rest is asked for, and nothing comes twice."""
    fake.script(path(DATA), faults.broken(1000, reset=reset), faults.broken(500, reset=reset))
    assert await read(client, reference(fake), blob(DATA)) == DATA
    ranges = [each.range for each in fake.requests]
    assert ranges[0] == ""
    starts = [int(each.removeprefix("bytes=").partition("-")[0]) for each in ranges[1:]]
    assert all(each.endswith("-2999") for each in ranges[1:])
    assert starts == sorted(starts)
    assert reset or starts == [1000, 1500]


async def test_unsized_body_that_ends_early(fake: FakeRegistry, client: Registry) -> None:
    """Without Content-Length an early end looks like the end; the size of the descriptor tells."""
    fake.script(path(DATA), faults.unsized(cut=600))
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert [each.range for each in fake.requests] == ["", "bytes=2400-2999"]


async def test_server_that_ignores_range(fake: FakeRegistry, client: Registry, counted: Counted) -> None:
    """What was received already is skipped."""
    fake.script(path(DATA), faults.broken(1000), faults.range_ignored())
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert counted == {"registry": len(DATA)}


async def test_long_skip(fake: FakeRegistry, client: Registry) -> None:
    """Also when what is skipped comes in many pieces."""
    data = content(4 << 20)
    fake.put_blob(NAME, data)
    fake.script(path(data), faults.broken(3 << 20), faults.range_ignored())
    async with Registry(RegistryConfig(certs_dirs=()), clock=FakeTime().clock(), environment={}) as single:
        assert await read(single, reference(fake), blob(data)) == data
    assert len(fake.requests) == 2


async def test_break_when_all_was_said(fake: FakeRegistry, client: Registry, time: FakeTime) -> None:
    """A connection that ends badly after the last byte has done its work."""

    async def unfinished(request: web.Request, answer: faults.Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=200)
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(answer.body)
        assert request.transport is not None
        request.transport.close()
        return response

    fake.script(path(DATA), unfinished)
    assert await read(client, reference(fake), blob(DATA)) == DATA
    assert len(fake.requests) == 1
    assert time.slept == []


async def test_stall(fake: FakeRegistry, impatient: RegistryConfig, time: FakeTime) -> None:
    """A body that stops is resumed after the time-out."""
    fake.script(path(DATA), faults.stalled(1000))
    async with Registry(impatient, clock=time.clock(), environment={}) as client:
        assert await read(client, reference(fake), blob(DATA)) == DATA
    assert [each.range for each in fake.requests] == ["", "bytes=1000-2999"]


async def test_slow_consumer_is_no_slow_server(fake: FakeRegistry, client: Registry, time: FakeTime) -> None:
    """Only waiting for the server counts."""
    gate = asyncio.Event()
    fake.script(path(DATA), faults.gated(gate, after=1000))
    received = b""
    async with aclosing(client.fetch(reference(fake), blob(DATA))) as stream:
        async for data in stream:
            received += data
            time.seconds += 10_000
            gate.set()
    assert received == DATA


async def test_gives_up_without_progress(fake: FakeRegistry, client: Registry, time: FakeTime) -> None:
    """As many attempts as allowed, then Unavailable."""
    fake.always(path(DATA), faults.broken(0, reset=True))
    with pytest.raises(Unavailable):
        await read(client, reference(fake), blob(DATA))
    assert len(fake.requests) == 3
    assert time.slept == [1, 2]


async def test_drips_do_not_count_as_progress(fake: FakeRegistry, client: Registry) -> None:
    """A server that gives a few bytes per attempt cannot keep us for ever."""
    fake.always(path(DATA), faults.broken(1))
    received: list[bytes] = []
    with pytest.raises(Unavailable):
        await read(client, reference(fake), blob(DATA), into=received)
    assert b"".join(received) == DATA[:3]


async def test_real_progress_renews_patience(fake: FakeRegistry, client: Registry) -> None:
    """A long blob may break more often than attempts are allowed, if much comes in between."""
    data = content(5 * PROGRESS_BYTES + 17)
    fake.put_blob(NAME, data)
    fake.always(path(data), faults.broken(PROGRESS_BYTES))
    fake.script(path(data), *[faults.broken(PROGRESS_BYTES)] * 5, faults.plainly)
    wanted = replace(blob(data), size=len(data))
    async with Registry(RegistryConfig(certs_dirs=()), clock=FakeTime().clock(), environment={}) as patient:
        assert await read(patient, reference(fake), wanted) == data
    assert len(fake.requests) == 6


@pytest.mark.parametrize(
    "fault",
    [
        faults.resized(1),
        faults.resized(-1),
        faults.unsized(b"!"),
        faults.unsized(b"!" * 100_000),
        faults.other_range("bytes 1-3000/3001"),
        faults.other_range("bytes 0-2999/3001"),
        faults.other_range("bytes 0-2999"),
        faults.other_range("items 0-2999/3000"),
        faults.other_range("bytes " + "9" * 5000 + "-1/2"),
    ],
)
async def test_wrong_size(fault: faults.Fault, fake: FakeRegistry, client: Registry) -> None:
    """A blob of another size is Corrupt at once, and never more than its size comes out."""
    fake.always(path(DATA), fault)
    received: list[bytes] = []
    with pytest.raises(Corrupt):
        await read(client, reference(fake), blob(DATA), into=received)
    assert DATA.startswith(b"".join(received))
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        faults.resized(1),
        faults.other_range("bytes 1001-2999/3000"),
        faults.other_range("bytes 0-2999/3000"),
        faults.other_range("bytes 1000-2999/4000"),
        faults.status(416),
    ],
)
async def test_wrong_answer_to_a_resume(fault: faults.Fault, fake: FakeRegistry, client: Registry) -> None:
    """A part is taken only if it is the part that was asked for."""
    fake.script(path(DATA), faults.broken(1000), fault)
    received: list[bytes] = []
    with pytest.raises(ImagecachedError):
        await read(client, reference(fake), blob(DATA), into=received)
    assert DATA.startswith(b"".join(received))


async def test_server_that_does_not_know_the_total(fake: FakeRegistry, client: Registry) -> None:
    """``*`` is allowed there."""
    fake.script(path(DATA), faults.broken(1000), faults.other_range("bytes 1000-2999/*"))
    assert await read(client, reference(fake), blob(DATA)) == DATA


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.status(404), NotFound),
        (faults.status(403), AccessDenied),
        (faults.html(200), Corrupt),
        (faults.status(503), Unavailable),
        (faults.status(204), Unsupported),
    ],
)
async def test_answers(
    fault: faults.Fault, kind: type[ImagecachedError], fake: FakeRegistry, client: Registry
) -> None:
    """As for documents."""
    fake.always(path(DATA), fault)
    with pytest.raises(kind, match=NAME):
        await read(client, reference(fake), blob(DATA))


async def test_digest_is_not_our_business(fake: FakeRegistry, client: Registry) -> None:
    """Bytes of the right number go through; the pipeline digests them anyway."""
    fake.script(path(DATA), faults.corrupt())
    received = await read(client, reference(fake), blob(DATA))
    assert len(received) == len(DATA)
    assert Digest.of(received) != blob(DATA).digest


async def test_closing_ends_the_request(fake: FakeRegistry, client: Registry) -> None:
    """Whoever has had enough leaves no connection behind."""
    fake.script(path(DATA), faults.stalled(1000))
    async with aclosing(client.fetch(reference(fake), blob(DATA))) as stream:
        async for data in stream:
            assert data == DATA[:1000]
            break
    await _gone(client)


async def test_cancelling_ends_the_request(fake: FakeRegistry, client: Registry) -> None:
    """While waiting for the first byte, or for more."""
    for fault in (faults.silent(), faults.stalled(1000)):
        fake.script(path(DATA), fault)
        before = len(fake.requests)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(read(client, reference(fake), blob(DATA)))
            while len(fake.requests) == before:
                await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()
        await _gone(client)


async def _gone(client: Registry) -> None:
    """No connection of the client is in use."""
    connector = client._transport._session.connector
    assert connector is not None
    assert not connector._acquired
