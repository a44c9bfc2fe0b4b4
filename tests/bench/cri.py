"""What CRI takes with our snapshots: cold pulls beside our own, pulls and starts of a prepared image.

    scripts/bench cri [--image flink] [--repetitions 5] [--containerd 1|2] [--cache DIRECTORY]

In turns, each on empty roots: ``imagecachectl pull``; CRI's PullImage of an image that nobody holds; then of
one that is prepared and known, and the start of a pod from a small one with IfNotPresent, by which the
registry must not be asked. Prints medians and whether the goals are met; ends with 1 if one is not. Root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from tests.bench import recipes, traffic
from tests.bench.__main__ import push
from tests.support.containerd import CONTAINERD2, STABLE
from tests.support.cri import Cri
from tests.support.nodes import Node, push_pause
from tests.support.registered import await_state, serve_registered
from tests.support.registry import Registry, serve_registry

OWN: Final = "imagecachectl pull"
COLD: Final = "CRI PullImage, cold"
PREPARED: Final = "CRI PullImage, prepared"
START: Final = "CRI pod from a prepared image"

_MOST_OF_OWN: Final = 1.1
_MOST_PREPARED_MS: Final = 50
_MANIFESTS: Final = 2  # a HEAD by tag, and at most one GET of what it names


class Runs:
    """Seconds of every run by what was done, and the requests that prepared images cost."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.requests: dict[str, list[list[str]]] = defaultdict(list)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Time the body."""
        os.sync()
        begun = time.perf_counter()
        yield
        self.seconds[what].append(time.perf_counter() - begun)
        print(f"{what}: {self.seconds[what][-1]:.3f} s", file=sys.stderr, flush=True)

    def middle(self, what: str) -> float:
        """The median."""
        return statistics.median(self.seconds[what])

    def goals(self) -> Iterator[tuple[str, bool]]:
        """What was to be reached, and whether it was."""
        ratio = self.middle(COLD) / self.middle(OWN)
        yield f"cold by CRI / by imagecachectl: {ratio:.2f}, at most {_MOST_OF_OWN}", ratio <= _MOST_OF_OWN
        prepared = self.middle(PREPARED)
        words = f"pull of a prepared image: {1000 * prepared:.0f} ms, at most {_MOST_PREPARED_MS}"
        yield words, 1000 * prepared <= _MOST_PREPARED_MS
        pulled = [line for run in self.requests[PREPARED] for line in run]
        only = all("/manifests/" in line for line in pulled) and len(pulled) <= _MANIFESTS * len(
            self.requests[PREPARED]
        )
        yield f"its requests: {sorted(set(pulled))}, of manifests only", only
        started = [line for run in self.requests[START] for line in run]
        yield f"requests of a start with IfNotPresent: {len(started)}, none", not started


@asynccontextmanager
async def node(registry: Registry, pause: str, programs: Path | None) -> AsyncIterator[tuple[Node, Cri]]:
    """Both on empty roots; the first call of CRI is made, so that it is not timed."""
    with serve_registered(registry, pause, "default", programs) as served:
        async with served.cri() as cri:
            await cri.images()
            yield served, cri


async def measure(registry: Registry, image: str, pause: str, programs: Path | None, runs: Runs) -> None:
    """One repetition."""
    reference = registry.reference(f"bench/{image}:1")
    traffic.read_blobs(registry)
    async with node(registry, pause, programs) as (_, cri):
        with runs.timed(COLD):
            await cri.pull(reference)
    async with node(registry, pause, programs) as (served, cri):
        with runs.timed(OWN):
            served.daemon.ctl("pull", reference)
        await_state(served.daemon, reference)
        for _ in range(3):
            with registry.requests(f"bench/{image}") as requests, runs.timed(PREPARED):
                await cri.pull(reference)
            runs.requests[PREPARED].append(requests)
        served.daemon.ctl("pull", pause)
        await_state(served.daemon, pause)
        with registry.requests() as requests, runs.timed(START):
            pod = await cri.start_pod(pause, ["sleep", "1000"])
        runs.requests[START].append([line for line in requests if "/v2/?mark" not in line])
        await pod.remove()


async def main() -> int:
    """Build, push, measure, judge."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.cri", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--image", default="flink", choices=sorted(recipes.RECIPES))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--containerd", choices=("1", "2"), default="2")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench").resolve())
    arguments = parser.parse_args()
    cache: Path = arguments.cache
    programs = CONTAINERD2 if arguments.containerd == "2" else STABLE
    runs = Runs()
    cache.mkdir(parents=True, exist_ok=True)
    with serve_registry(cache / "registry") as registry:
        push(recipes.build(cache, arguments.image), registry.reference(f"bench/{arguments.image}:1"))
        pause = push_pause(registry, cache / "pause")
        for _ in range(arguments.repetitions):
            await measure(registry, arguments.image, pause, programs, runs)
    for what in runs.seconds:
        print(f"{what:32} {runs.middle(what):8.3f} s")
    judged = list(runs.goals())
    for words, met in judged:
        print(f"{'met' if met else 'MISSED':6} {words}")
    return 0 if all(met for _, met in judged) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
