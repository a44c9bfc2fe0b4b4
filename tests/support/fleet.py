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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from imagecached.errors import InvalidInput
from imagecached.imagecache import ImageCache, Status, parse_object, parse_status, rollout_rank
from imagecached.kube.client import Change, Reflector, kinds
from imagecached.kube.nodes import Node, selects
from tests.support.apiserver import ApiServer
from tests.support.apiserver.faults import label_of
from tests.support.apiserver.requests import MERGE, Call
from tests.support.direct import direct

Entry = dict[str, Any]
_BYTES = 100_000_000  # each cache on each node
_URGENT_SECONDS = 1.0
_SELDOM_SECONDS = 5.0
_NODES_PER_SECOND = 100
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


class Fleet:
    """``writes`` counts the status writes of all nodes."""

    def __init__(
        self,
        server: ApiServer,
        names: Iterable[str],
        *,
        seconds: Callable[[str, str], float] = lambda _node, _cache: 20.0,
        fails: Callable[[str, str], str] = lambda _node, _cache: "",
        jitter: random.Random | None = None,
    ) -> None:
        self._server, self._seconds, self._fails = server, seconds, fails
        self._jitter = jitter or random.Random(7)
        self.entries: dict[str, dict[str, Entry]] = {}
        self._rollouts: dict[str, _Rollout] = {}
        self._heap: list[_Due] = []
        self._write_at: dict[str, float] = {}
        self._news = asyncio.Event()
        self._total = 0
        self.writes = 0
        self.most_fetching: dict[str, int] = {}
        self._fetching: dict[str, int] = {}
        for name in names:
            self.join(name)

    def join(self, name: str, **labels: str) -> None:
        """A node with a daemon that holds nothing yet."""
        self._server.put(node_document(name, **labels))
        self._server.put(self._document(name, {}))
        self.entries[name] = {}
        for rollout in self._rollouts.values():
            if selects(rollout.cache.options, self._node(name)):
                self._begin(name, rollout)

    def leave(self, name: str) -> None:
        """The node is gone for good; nobody deletes its NodeImageCache."""
        self._server.remove("nodes", name)
        self.entries.pop(name, None)

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

    def _changed(self, change: Change) -> None:
        name = change.key[1]
        if change.new is None:
            self._rollouts.pop(name, None)
            for node, entries in self.entries.items():
                if entries.pop(name, None):
                    self._say(node, urgent=False)
            return
        try:
            cache, status = parse_object(change.new), parse_status(change.new.get("status"))
        except InvalidInput:
            return
        if status.build != cache.build or any(image.digest is None for image in status.images):
            return
        self._total = max(self._total, status.nodes_total)
        self._go_on(name, cache, status)

    def _go_on(self, name: str, cache: ImageCache, status: Status) -> None:
        rollout = self._rollouts.get(name)
        if rollout is None or (rollout.cache.uid, rollout.status.generation) != (
            cache.uid,
            status.generation,
        ):
            chosen = [node for node in self.entries if selects(cache.options, self._node(node))]
            order = sorted((rollout_rank(cache.uid, status.generation, node), node) for node in chosen)
            rollout = self._rollouts[name] = _Rollout(cache, status, order)
        rollout.status = status
        while rollout.begun < len(rollout.order) and rollout.order[rollout.begun][0] < status.rollout_window:
            self._begin(rollout.order[rollout.begun][1], rollout)
            rollout.begun += 1

    def _begin(self, node: str, rollout: _Rollout) -> None:
        """Let a node fetch, if it is there and does not hold the build already."""
        name, status = rollout.cache.name, rollout.status
        if node not in self.entries:
            return
        before = self.entries[node].get(name, {})
        if before.get("uid") != rollout.cache.uid:
            before = {}
        if before.get("servingGeneration") == status.generation:
            return
        phase = "Updating" if before.get("servingGeneration") else "Creating"
        entry = {"name": name, "uid": rollout.cache.uid, "generation": status.generation, "phase": phase}
        if before.get("servingGeneration"):
            entry["servingGeneration"] = before["servingGeneration"]
        self.entries[node][name] = {**entry, "bytesTotal": _BYTES}
        self._fetching[name] = self._fetching.get(name, 0) + 1
        self.most_fetching[name] = max(self.most_fetching.get(name, 0), self._fetching[name])
        end = asyncio.get_running_loop().time() + self._seconds(node, name)
        self._at(_Due(end, node, name, status.generation))
        self._say(node, urgent=False)

    def _end(self, due: _Due) -> None:
        """A fetch came to its end."""
        self._fetching[due.cache] = self._fetching.get(due.cache, 1) - 1
        entry = self.entries.get(due.node, {}).get(due.cache)
        if entry is None or entry["generation"] != due.generation:
            return
        why = self._fails(due.node, due.cache)
        if why:
            phase = "UpdateFailed" if entry.get("servingGeneration") else "Failed"
            news: Entry = {"phase": phase, "reason": "OutOfSpace", "message": why}
        else:
            news = {
                "phase": "Ready",
                "servingGeneration": due.generation,
                "bytesDone": _BYTES,
                "bytesFetched": _BYTES,
            }
        self.entries[due.node][due.cache] = {**entry, **news}
        self._say(due.node, urgent=True)

    def _say(self, node: str, *, urgent: bool) -> None:
        """Write this node's object soon."""
        seldom = max(_SELDOM_SECONDS, self._total / _NODES_PER_SECOND)
        wait = _URGENT_SECONDS if urgent else seldom * self._jitter.uniform(0.5, 1.0)
        at = asyncio.get_running_loop().time() + wait
        if at < self._write_at.get(node, float("inf")):
            self._write_at[node] = at
            self._at(_Due(at, node))

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
                elif self._write_at.get(due.node) == due.at:
                    del self._write_at[due.node]
                    await self._write(due.node)
            try:
                async with asyncio.timeout_at(self._heap[0].at if self._heap else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _write(self, node: str) -> None:
        """One status write, as the agent's client would send it."""
        if node not in self.entries:
            return
        body = msgspec.json.encode({"status": self._document(node, self.entries[node])["status"]})
        resource = self._server.paths.find("imagecached.dev", "nodeimagecaches")
        assert resource is not None
        call = Call(
            "patch", resource, "", node, "status", {"fieldManager": "imagecached-node"}, MERGE, body, "node"
        )
        self._server.traffic.requests[label_of(call)] += 1
        self._server.traffic.received[label_of(call)] += len(body)
        self.writes += 1
        await self._server._carry_out(call)

    def _node(self, name: str) -> Node:
        return Node.of(self._server.get("nodes", name))

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
