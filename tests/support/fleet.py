"""Emulated nodes: what node agents say to the API server, without pulling anything.

    fleet = Fleet(server, [f"n{number}" for number in range(100)])
    async with asyncio.TaskGroup() as group:
        group.create_task(fleet.run())

All nodes share one watch of ImageCaches and one clockwork; each has its own NodeImageCache and writes it as
an agent does: what matters at once, the rest seldom. ``seconds`` says how long a node fetches a cache;
``fails`` says why it cannot, "" if it can.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from imagecached.errors import InvalidInput
from imagecached.imagecache import ImageCache, Status, parse_object, parse_status, phases, rollout_rank
from imagecached.kube.client import Change, Reflector, kinds
from imagecached.kube.nodes import Node, selects
from tests.support.apiserver import ApiServer
from tests.support.apiserver.faults import label_of
from tests.support.apiserver.requests import MERGE, Call
from tests.support.direct import direct

Entry = dict[str, Any]
_BYTES = 100_000_000  # each cache on each node
_AT_ONCE = 4  # caches that one node fetches at the same time
_URGENT_SECONDS = 1.0
_URGENT_NODES_PER_SECOND = 250
_SELDOM_SECONDS = 5.0
_SELDOM_NODES_PER_SECOND = 100
_LABELS = {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}


def node_document(name: str, **labels: str) -> dict[str, Any]:
    """A Node that is up, with what a real one brings along."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **labels},
        },
        "spec": {"podCIDR": "10.0.0.0/24", "providerID": f"kind://{name}"},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64", "kernelVersion": "6.12.0"},
        },
    }


@dataclass
class _Rollout:
    """One build of one cache: its nodes in the order in which the window lets them in."""

    cache: ImageCache
    status: Status
    order: list[tuple[int, str]]
    begun: int = 0


@dataclass(order=True)
class _Due:
    """Something that happens at a time: the end of a fetch, or a write when ``cache`` is empty."""

    at: float
    node: str
    cache: str = field(compare=False, default="")
    generation: int = field(compare=False, default=0)


@dataclass
class _Agent:
    """One node: what it holds, what it fetches, and when it wrote."""

    node: Node
    entries: dict[str, Entry] = field(default_factory=dict)
    waiting: deque[tuple[str, int]] = field(default_factory=deque)
    fetching: int = 0
    wrote: float = float("-inf")
    writes: float = float("inf")


class Fleet:
    """``writes`` counts the status writes of all nodes, ``most_fetching`` is by cache.

    ``thorough`` writes go through the server's validation; without it a simulation of thousands of nodes
    takes minutes instead of hours.
    """

    def __init__(
        self,
        server: ApiServer,
        names: Iterable[str],
        *,
        seconds: Callable[[str, str], float] = lambda _node, _cache: 20.0,
        fails: Callable[[str, str], str] = lambda _node, _cache: "",
        thorough: bool = True,
        jitter: random.Random | None = None,
    ) -> None:
        self._server, self._seconds, self._fails, self._thorough = server, seconds, fails, thorough
        self._jitter = jitter or random.Random(7)
        self._agents: dict[str, _Agent] = {}
        self._rollouts: dict[str, _Rollout] = {}
        self._same: dict[tuple[Any, ...], Entry] = {}
        self._heap: list[_Due] = []
        self._news = asyncio.Event()
        self._total = 0
        self._fetching: Counter[str] = Counter()
        self.most_fetching: Counter[str] = Counter()
        self.writes = 0
        for name in names:
            self.join(name)

    def join(self, name: str, **labels: str) -> None:
        """A node with a daemon that holds nothing yet."""
        agent = self._agents[name] = _Agent(Node.of(self._server.put(node_document(name, **labels))))
        self._server.put(self._document(name, {}))
        for rollout in self._rollouts.values():
            if selects(rollout.cache.options, agent.node):
                self._begin(agent, rollout)

    def leave(self, name: str) -> None:
        """The node is gone for good; nobody deletes its NodeImageCache."""
        self._server.remove("nodes", name)
        del self._agents[name]

    def set_up(self, name: str, *, up: bool) -> None:
        """The kubelet answers, or does not."""
        found = self._server.get("nodes", name)
        conditions = [{"type": "Ready", "status": "True" if up else "Unknown"}]
        self._server.put({**found, "status": {**found["status"], "conditions": conditions}})

    async def run(self) -> None:
        """Live for ever."""
        reflector = Reflector(direct(self._server), kinds.IMAGE_CACHES, self._changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(reflector.run())
            group.create_task(self._tick())

    # What the cluster wants.

    def _changed(self, change: Change) -> None:
        name = change.key[1]
        if change.new is None:
            self._forget(name)
            return
        try:
            cache, status = parse_object(change.new), parse_status(change.new.get("status"))
        except InvalidInput:
            return
        if phases.needs_build(cache, status) or any(image.digest is None for image in status.images):
            return
        self._total = max(self._total, status.nodes_total)
        self._go_on(name, cache, status)

    def _forget(self, name: str) -> None:
        self._rollouts.pop(name, None)
        for agent in self._agents.values():
            if agent.entries.pop(name, None):
                self._say(agent, urgent=False)

    def _go_on(self, name: str, cache: ImageCache, status: Status) -> None:
        rollout = self._rollouts.get(name)
        build = (cache.uid, status.generation)
        if rollout is None or (rollout.cache.uid, rollout.status.generation) != build:
            chosen = [node for node, agent in self._agents.items() if selects(cache.options, agent.node)]
            order = sorted((rollout_rank(cache.uid, status.generation, node), node) for node in chosen)
            rollout = self._rollouts[name] = _Rollout(cache, status, order)
        rollout.status = status
        while rollout.begun < len(rollout.order) and rollout.order[rollout.begun][0] < status.rollout_window:
            agent = self._agents.get(rollout.order[rollout.begun][1])
            rollout.begun += 1
            if agent is not None:
                self._begin(agent, rollout)

    # What nodes do.

    def _begin(self, agent: _Agent, rollout: _Rollout) -> None:
        """Let a node fetch, if it does not hold the build already."""
        name, generation = rollout.cache.name, rollout.status.generation
        before = agent.entries.get(name, {})
        serving = before.get("servingGeneration", 0) if before.get("uid") == rollout.cache.uid else 0
        if serving == generation:
            return
        phase = "Updating" if serving else "Creating"
        agent.entries[name] = self._entry(rollout.cache, generation, phase, serving)
        agent.waiting.append((name, generation))
        self._fetch(agent)
        self._say(agent, urgent=False)

    def _fetch(self, agent: _Agent) -> None:
        """Take up what waits, a few at a time."""
        while agent.waiting and agent.fetching < _AT_ONCE:
            name, generation = agent.waiting.popleft()
            agent.fetching += 1
            self._fetching[name] += 1
            self.most_fetching[name] = max(self.most_fetching[name], self._fetching[name])
            end = asyncio.get_running_loop().time() + self._seconds(agent.node.name, name)
            self._at(_Due(end, agent.node.name, name, generation))

    def _end(self, due: _Due) -> None:
        """A fetch came to its end."""
        self._fetching[due.cache] -= 1
        agent, rollout = self._agents.get(due.node), self._rollouts.get(due.cache)
        if agent is None:
            return
        agent.fetching -= 1
        entry = agent.entries.get(due.cache)
        if rollout is not None and entry is not None and entry["generation"] == due.generation:
            serving = entry.get("servingGeneration", 0)
            why = self._fails(due.node, due.cache)
            if why:
                phase = "UpdateFailed" if serving else "Failed"
                news = self._entry(rollout.cache, due.generation, phase, serving, why)
            else:
                news = self._entry(rollout.cache, due.generation, "Ready", due.generation)
            agent.entries[due.cache] = news
            self._say(agent, urgent=True)
        self._fetch(agent)

    def _entry(self, cache: ImageCache, generation: int, phase: str, serving: int, why: str = "") -> Entry:
        """What a node says of a cache; equal entries are one object, as there are a million of them."""
        key = (cache.name, cache.uid, generation, phase, serving, why)
        if key not in self._same:
            done = _BYTES if phase == "Ready" else 0
            entry = {
                "name": cache.name,
                "uid": cache.uid,
                "generation": generation,
                "phase": phase,
                "servingGeneration": serving,
                "bytesTotal": _BYTES,
                "bytesDone": done,
                "bytesFetched": done,
                "reason": "OutOfSpace" if why else "",
                "message": why,
            }
            self._same[key] = {name: value for name, value in entry.items() if value}
        return self._same[key]

    # What nodes say.

    def _say(self, agent: _Agent, *, urgent: bool) -> None:
        """Write this node's object when it may be."""
        now = asyncio.get_running_loop().time()
        pause = max(_URGENT_SECONDS, self._total / _URGENT_NODES_PER_SECOND)
        at = max(now, agent.wrote + pause)
        if not urgent:
            seldom = max(_SELDOM_SECONDS, self._total / _SELDOM_NODES_PER_SECOND)
            at = max(now + _SELDOM_SECONDS, agent.wrote + seldom * self._jitter.uniform(0.75, 1.25))
        if at < agent.writes:
            agent.writes = at
            self._at(_Due(at, agent.node.name))

    def _at(self, due: _Due) -> None:
        heapq.heappush(self._heap, due)
        if self._heap[0] is due:
            self._news.set()

    async def _tick(self) -> None:
        """Do what is due, for ever."""
        clock = asyncio.get_running_loop().time
        while True:
            self._news.clear()
            while self._heap and self._heap[0].at <= clock():
                due = heapq.heappop(self._heap)
                if due.cache:
                    self._end(due)
                else:
                    await self._write(due)
            try:
                async with asyncio.timeout_at(self._heap[0].at if self._heap else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _write(self, due: _Due) -> None:
        """One status write, as the agent's client would send it."""
        agent = self._agents.get(due.node)
        if agent is None or agent.writes != due.at:
            return
        agent.writes, agent.wrote = float("inf"), asyncio.get_running_loop().time()
        status = self._document(due.node, agent.entries)["status"]
        body = msgspec.json.encode({"status": status})
        resource = self._server.paths.find("imagecached.dev", "nodeimagecaches")
        assert resource is not None
        query = {"fieldManager": "imagecached-node"}
        call = Call("patch", resource, "", due.node, "status", query, MERGE, body, "node")
        self._server.traffic.requests[label_of(call)] += 1
        self._server.traffic.received[label_of(call)] += len(body)
        self.writes += 1
        if self._thorough:
            await self._server._carry_out(call)
            return
        stored = self._server.storage.get(resource, "", due.node)
        document = {**stored.document, "metadata": {**stored.meta}, "status": status}
        self._server.storage.write(resource, document, previous=stored)
        await asyncio.sleep(0)  # whoever watches has a turn

    @staticmethod
    def _document(name: str, entries: dict[str, Entry]) -> dict[str, Any]:
        return {
            "apiVersion": "imagecached.dev/v1alpha1",
            "kind": "NodeImageCache",
            "metadata": {"name": name},
            "status": {
                "daemonVersion": "0.1.0",
                "platform": "linux/amd64",
                "handlerReady": True,
                "caches": list(entries.values()),
            },
        }
