"""How long a pod's admission takes, with few caches and with many: over TLS, to a process of its own.

    python -m tests.bench.admission [REVIEWS]

A review is a pod of Knative's kind (two containers, an init container, forty environment variables). Caches
hold five images each; one in a hundred pods finds all of its images. Printed: percentiles one after the other
and sixteen at once, and the CPU time of deciding alone.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import msgspec

from imagecached.imagecache import Candidates
from imagecached.kube.webhook.admission import Admission
from imagecached.kube.webhook.authority import fresh
from imagecached.kube.webhook.certificates import load_into
from imagecached.kube.webhook.decide import Rules, Seen, Told
from imagecached.kube.webhook.review import answer_document, parse_review
from imagecached.kube.webhook.server import application, serve
from tests.unit.imagecache.building import cache, candidate, pod
from tests.unit.kube.webhook.reviewing import AUTO, review

_REVIEWS = 2000
_COUNTS = (50, 500)
_AT_ONCE = (1, 16)
_IMAGES = 5


class _Nothing:
    """No aftermath: it happens after the answer."""

    def look_at(self, seen: Seen) -> None: ...

    def tell(self, *told: Told) -> None: ...


def caches(count: int) -> Candidates:
    """Each of five images; every cache has the sidecar's, as clusters do."""
    return Candidates(
        candidate(cache(f"c{number}", *(image(number, part) for part in range(_IMAGES - 1)), "mesh/proxy:1"))
        for number in range(count)
    )


def image(number: int, part: int) -> str:
    return f"registry.example.com/team-{number}/part-{part}:v1"


def body(number: int, count: int) -> bytes:
    """The review of one pod; every tenth asks for what nobody holds."""
    own = number % count if number % 10 else count + number
    document = pod(image(own, 0), "mesh/proxy:1", annotations=AUTO)
    document["spec"]["initContainers"] = [{"name": "init", "image": image(own, 1)}]
    for container in document["spec"]["containers"]:
        container["env"] = [{"name": f"VARIABLE_{n}", "value": "x" * 60} for n in range(40)]
    return msgspec.json.encode(review(document))


async def measured(what: str, calls: int, call: Callable[[int], Awaitable[None]], at_once: int) -> None:
    """Print what each of ``calls`` calls took."""
    seconds: list[float] = []

    async def worker(first: int) -> None:
        for number in range(first, calls, at_once):
            begun = time.perf_counter()
            await call(number)
            seconds.append(time.perf_counter() - begun)

    async with asyncio.TaskGroup() as group:
        for first in range(at_once):
            group.create_task(worker(first))
    _print(f"{what}, {at_once} at once", seconds)


def _print(what: str, seconds: list[float]) -> None:
    seconds.sort()
    median, late, worst = (1000 * seconds[int(len(seconds) * part) - 1] for part in (0.5, 0.99, 1))
    print(f"{what:32}  p50 {median:7.2f} ms  p99 {late:7.2f} ms  max {worst:7.2f} ms")


def decide_alone(count: int, reviews: int) -> None:
    """Bytes in, bytes out, without TLS and HTTP; CPU time, which a busy machine does not lengthen much."""
    known = caches(count)
    admission, seconds = Admission(lambda: known, _Nothing(), Rules()), []
    for number in range(reviews):
        data = body(number, count)
        begun = time.thread_time()
        request = parse_review(data)
        answer_document(request.uid, admission.mutate(request))
        seconds.append(time.thread_time() - begun)
    _print(f"{count} caches, CPU of deciding", seconds)


async def serving(count: int) -> None:
    """Serve until the standard input ends; where, and whom to believe, is printed."""
    known, credentials = caches(count), fresh(["localhost"], datetime.now(UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_into(context, credentials)
    pages = application(Admission(lambda: known, _Nothing(), Rules()), lambda: None)
    async with serve(pages, "127.0.0.1", 0, context) as port:
        print(json.dumps({"port": port, "bundle": credentials.bundle.decode()}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def over_tls(count: int, reviews: int) -> None:
    """The same reviews as an API server sends them, on connections that stay open."""
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, "serve", str(count), stdin=PIPE, stdout=PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        place: dict[str, Any] = json.loads(await server.stdout.readline())
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=place["bundle"]))
        async with aiohttp.ClientSession(
            f"https://localhost:{place['port']}",
            connector=connector,
            headers={"Content-Type": "application/json"},
        ) as client:
            bodies = [body(number, count) for number in range(reviews)]

            async def call(number: int) -> None:
                async with client.post("/mutate", data=bodies[number]) as answer:
                    assert answer.status == 200
                    await answer.read()

            await call(0)  # the handshake is not counted
            for at_once in _AT_ONCE:
                await measured(f"{count} caches over TLS", reviews, call, at_once)
    finally:
        server.stdin.close()
        await server.wait()


def main(reviews: int) -> None:
    for count in _COUNTS:
        decide_alone(count, reviews)
    for count in _COUNTS:
        asyncio.run(over_tls(count, reviews))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serving(int(sys.argv[2])))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else _REVIEWS)
