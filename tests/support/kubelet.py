"""A kubelet for the emulated API server: binds pods to its one node and runs them over CRI.

Only what pods of the scenarios need, done as the kubelet does it: pull policies IfNotPresent and Always, the
RuntimeClass's handler and node selector, a container status, the events about images, tries again after a
failure, and no object gone before its container is. Volumes, probes, networks and restarts are not there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from grpclib.exceptions import GRPCError, StreamTerminatedError

from tests.support import cri
from tests.support.apiserver import ApiServer
from tests.support.apiserver.rules import now

Document = dict[str, Any]

_HELD: Final = "imagecached.test/kubelet"
_AGAIN_SECONDS: Final = 1.0
_FAILURES: Final = (GRPCError, StreamTerminatedError, OSError)


class Kubelet:
    """One node called ``name``. Lives on the server's event loop."""

    def __init__(self, server: ApiServer, connection: cri.Cri, name: str) -> None:
        self._server, self._cri, self._name = server, connection, name
        self._running: dict[str, cri.Pod] = {}
        self._busy: set[str] = set()
        self._events = 0

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                pods = self._server.storage.shelf_of("", "pods").news
                nodes = self._server.storage.shelf_of("", "nodes").news
                for pod in self._server.all("pods"):
                    uid = pod["metadata"]["uid"]
                    if uid not in self._busy and self._has_work(pod):
                        self._busy.add(uid)
                        group.create_task(
                            self._tend(uid, pod["metadata"]["namespace"], pod["metadata"]["name"])
                        )
                waits = [group.create_task(event.wait()) for event in (pods, nodes)]
                _, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for wait in left:
                    wait.cancel()

    async def stop(self) -> None:
        """End every container."""
        for pod in self._running.values():
            await pod.remove()

    def _has_work(self, pod: Document) -> bool:
        ending = "deletionTimestamp" in pod["metadata"]
        if ending:
            return _HELD in pod["metadata"].get("finalizers", ())
        return pod["metadata"]["uid"] not in self._running and self._fits(pod)

    def _fits(self, pod: Document) -> bool:
        """The scheduler's part: our node has what the RuntimeClass asks for."""
        wanted = self._runtime_class(pod).get("scheduling", {}).get("nodeSelector", {})
        labels = self._server.get("nodes", self._name)["metadata"].get("labels", {})
        return bool(wanted.items() <= labels.items())

    def _runtime_class(self, pod: Document) -> Document:
        name = pod["spec"].get("runtimeClassName")
        return self._server.get("runtimeclasses.node.k8s.io", name) if name else {}

    async def _tend(self, uid: str, namespace: str, name: str) -> None:
        try:
            await self._once(uid, namespace, name)
        finally:
            self._busy.discard(uid)
            self._server.storage.shelf_of("", "pods").tell()

    async def _once(self, uid: str, namespace: str, name: str) -> None:
        pod = self._server.get("pods", name, namespace)
        if "deletionTimestamp" in pod["metadata"]:
            if uid in self._running:
                await self._running.pop(uid).remove()
            self._change(namespace, name, metadata={"finalizers": []})
            self._server.remove("pods", name, namespace)
            return
        self._change(namespace, name, metadata={"finalizers": [_HELD]}, spec={"nodeName": self._name})
        self._change(namespace, name, status={"phase": "Pending"})
        try:
            await self._start(uid, pod)
        except _FAILURES as error:
            self._tell(pod, "Failed", f"Error: {error}", "Warning")
            waiting = {"reason": "CreateContainerError", "message": str(error)}
            self._change(
                namespace, name, status={"containerStatuses": [{"name": "", "state": {"waiting": waiting}}]}
            )
            await asyncio.sleep(_AGAIN_SECONDS)  # the kubelet's own pause before it tries again

    async def _start(self, uid: str, pod: Document) -> None:
        handler = self._runtime_class(pod).get("handler", "")
        statuses = []
        [container] = pod["spec"]["containers"]  # the scenarios' pods have one
        image = container["image"]
        await self._ensure(pod, image, always=container.get("imagePullPolicy") == "Always", handler=handler)
        command = [*container.get("command", ()), *container.get("args", ())]
        running = await self._cri.start_pod(image, command, handler=handler)
        self._running[uid] = running
        identity = f"containerd://{running.container}"
        state = {"running": {"startedAt": now()}}
        statuses.append(
            {
                "name": container["name"],
                "image": image,
                "containerID": identity,
                "restartCount": 0,
                "state": state,
                "started": True,
            }
        )
        place = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self._change(*place, status={"phase": "Running", "containerStatuses": statuses})
        self._tell(pod, "Started", f"Started container {container['name']}")

    async def _ensure(self, pod: Document, image: str, *, always: bool, handler: str) -> None:
        if not always and await self._cri.image(image) is not None:
            self._tell(
                pod,
                "Pulled",
                f'Container image "{image}" already present on machine and can be accessed by the pod',
            )
            return
        self._tell(pod, "Pulling", f'Pulling image "{image}"')
        began = time.monotonic()
        await self._cri.pull(image, handler=handler)
        taken = time.monotonic() - began
        self._tell(
            pod,
            "Pulled",
            f'Successfully pulled image "{image}" in {taken:.3f}s ({taken:.3f}s including waiting)',
        )

    def _tell(self, pod: Document, reason: str, message: str, kind: str = "Normal") -> None:
        meta = pod["metadata"]
        self._events += 1
        self._server.put(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{meta['name']}.{self._events:016x}", "namespace": meta["namespace"]},
                "involvedObject": {
                    "kind": "Pod",
                    "namespace": meta["namespace"],
                    "name": meta["name"],
                    "uid": meta["uid"],
                },
                "reason": reason,
                "message": message,
                "type": kind,
                "lastTimestamp": now(),
                "source": {"component": "kubelet", "host": self._name},
            }
        )

    def _change(self, namespace: str, name: str, **parts: Document) -> None:
        pod = self._server.get("pods", name, namespace)
        self._server.put({**pod, **{part: {**pod.get(part, {}), **values} for part, values in parts.items()}})


@asynccontextmanager
async def kubelet(server: ApiServer, containerd: Path, logs: Path, name: str) -> AsyncIterator[Kubelet]:
    """Run it for the length of the block, on a Node of its own that is Ready; then end its containers."""
    server.put(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name,
                "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
            },
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"operatingSystem": "linux", "architecture": "amd64"},
            },
        }
    )
    async with cri.connected(containerd, logs) as connection:
        found = Kubelet(server, connection, name)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(found.run())
            try:
                yield found
            finally:
                task.cancel()
        await found.stop()
