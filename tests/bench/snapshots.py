"""How long the snapshots service takes with a full store: 1,000 images of 10 layers, all known to containerd.

    scripts/bench snapshots [CALLS]

Over the socket to a process of its own, one call after the other and sixteen at once. Needs root. The layers
are rows without files but for one image, whose chain is really mounted. The last row is the disk's own: what
a call that must outlive a power loss cannot do without.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

from grpclib.client import Channel

from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.store import Record
from imagecached.store.ledger import REF, Book
from tests.support.mounts import unmount_below
from tests.support.snapshots import NAME, Snapshots, World, served
from tests.unit.store import building, test_scale

_CALLS = 1000
_AT_ONCE = 16
_FIRST_NUMBER = 1_000_000


def know_everything(world: World) -> None:
    """A record for every chain of the store, as after containerd has registered every image."""

    def body(book: Book) -> None:
        number = _FIRST_NUMBER
        for image in range(test_scale.IMAGES):
            parent = ""
            for chain_id in chain_ids(test_scale.diff_ids(image)):
                number += 1
                name = f"imagecached/{chain_id}/{number}"
                book.put(
                    Record(
                        snapshotter=NAME,
                        name=name,
                        number=number,
                        kind="committed",
                        parent=parent,
                        labels={REF: str(chain_id)},
                        created=1,
                        updated=1,
                        chain_id=chain_id,
                    )
                )
                parent = name

    world.store.ledger.change(body)


async def measured(what: str, calls: int, call: Callable[[int], Awaitable[object]], at_once: int = 1) -> None:
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
    seconds.sort()
    median, late, worst = (1000 * seconds[int(len(seconds) * part) - 1] for part in (0.5, 0.99, 1))
    print(f"{what:34} {at_once:3} at once  p50 {median:7.2f} ms  p99 {late:7.2f} ms  max {worst:7.2f} ms")


async def measure_all(snapshots: Snapshots, chain_id: str, top: str, calls: int, at_once: int) -> None:
    """Every method that a container's start or containerd's statistics wait for."""
    asked = f'labels."{REF}"=={chain_id},parent=="{top}"'
    await measured("Stat", calls, lambda _: snapshots.stat(top), at_once)
    await measured("Mounts", calls, lambda _: snapshots.mounts("first"), at_once)
    await measured("Prepare", calls, lambda n: snapshots.prepare(f"{at_once}-{n}", top), at_once)
    await measured("Usage of a prepared one", calls, lambda _: snapshots.usage(top), at_once)
    await measured("List of the handshake", calls, lambda _: snapshots.walk(asked), at_once)
    await measured("Remove", calls, lambda n: snapshots.remove(f"{at_once}-{n}"), at_once)


async def serve(root: Path) -> None:
    """Fill the store and serve it until the standard input ends; the chain of the real image is printed."""
    async with served(root) as world:
        test_scale.fill(world.store._state)
        know_everything(world)
        # The rows have no files, so opening again would drop them.
        image = world.hold_image("real", *(building.layer(number) for number in range(10)))
        print(" ".join(image.diff_ids), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def measure(channel: Channel, diff_ids: list[Digest], calls: int) -> None:
    """Adopt the real image, then every method."""
    snapshots, top = Snapshots(channel), ""
    begun = time.perf_counter()
    for chain_id in chain_ids(diff_ids):
        top = (await snapshots.adopt(chain_id, top)).name
    print(f"adopting ten layers: {1000 * (time.perf_counter() - begun):.1f} ms")
    begun = time.perf_counter()
    await snapshots.prepare("first", top)
    print(f"first Prepare, mounting ten layers: {1000 * (time.perf_counter() - begun):.1f} ms")
    for at_once in (1, _AT_ONCE):
        await measure_all(snapshots, chain_ids(diff_ids)[-1], top, calls, at_once)
    begun = time.perf_counter()
    found = len(await snapshots.walk())
    print(f"List of all {found}: {1000 * (time.perf_counter() - begun):.0f} ms")
    begun = time.perf_counter()
    await snapshots.cleanup()
    print(f"Cleanup after {2 * calls} removals: {1000 * (time.perf_counter() - begun):.0f} ms")
    await snapshots.remove("first")


async def measure_disk(file: Path, calls: int) -> None:
    """A small write and its fdatasync, on the file system of the store."""
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)

    async def written(number: int) -> None:
        os.pwrite(descriptor, bytes(4096), 4096 * (number % 64))
        os.fdatasync(descriptor)

    try:
        await measured("write and fdatasync alone", calls, written)
    finally:
        os.close(descriptor)


async def main(calls: int) -> None:
    """Serve in a process of its own, as containerd finds it, and measure from here."""
    folder = Path(tempfile.mkdtemp(prefix="b-"))
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name, "serve", folder / "r", stdin=PIPE, stdout=PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        diff_ids = [Digest(text) for text in (await server.stdout.readline()).decode().split()]
        channel = Channel(path=str(folder / "r.sock"))
        await measure(channel, diff_ids, calls)
        channel.close()
        await measure_disk(folder / "alone", calls)
    finally:
        server.stdin.close()
        await server.wait()
        unmount_below(folder)
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Path(sys.argv[2])))
    else:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else _CALLS))
