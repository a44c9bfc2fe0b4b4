"""The kubelet's half of CRI: calls over containerd's socket, and pods the way the kubelet makes them.

Pods use the host's network, so that no test needs a network plugin.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from grpclib import GRPCError
from grpclib.client import Channel, UnaryUnaryMethod

from tests.support._proto import cri_pb2 as pb

T = TypeVar("T")

_SECONDS: Final = 60.0
_HOST_NETWORK: Final = pb.NamespaceOption(network=pb.NODE, ipc=pb.NODE)
_SERVICES: Final = {
    "runtime.v1.ImageService": "ImageFsInfo ImageStatus ListImages PullImage RemoveImage".split(),
    "runtime.v1.RuntimeService": (
        "ContainerStats ContainerStatus CreateContainer ExecSync ListContainerStats RemoveContainer"
        " RemovePodSandbox RunPodSandbox StartContainer Status StopContainer StopPodSandbox Version"
    ).split(),
}
_PATHS: Final = {name: f"/{service}/{name}" for service, names in _SERVICES.items() for name in names}


class Cri:
    """A containerd whose CRI is on, seen by the kubelet; ``logs`` is where its containers write."""

    def __init__(self, channel: Channel, logs: Path) -> None:
        self._channel = channel
        self.logs = logs

    async def call(self, method: str, /, *, deadline_seconds: float = _SECONDS, **fields: Any) -> Any:
        """Any method, by its name and the fields of its request; its answer, or GRPCError."""
        request, answer = getattr(pb, f"{method}Request"), getattr(pb, f"{method}Response")
        return await UnaryUnaryMethod(self._channel, _PATHS[method], request, answer)(
            request(**fields), timeout=deadline_seconds
        )

    async def pull(self, reference: str, *, handler: str = "") -> str:
        """The image reference that a pull answers with. ``handler``: for which runtime handler."""
        sandbox = _sandbox(annotations=_for_handler(handler))
        answer = await self.call("PullImage", image=_spec(reference, handler), sandbox_config=sandbox)
        return str(answer.image_ref)

    async def image(self, reference: str) -> pb.Image | None:
        """What is known of an image, if anything."""
        answer = await self.call("ImageStatus", image=pb.ImageSpec(image=reference))
        return answer.image if answer.HasField("image") else None

    async def images(self) -> list[pb.Image]:
        """All images."""
        return list((await self.call("ListImages")).images)

    async def remove_image(self, reference: str) -> None:
        """As the kubelet's garbage collection does."""
        await self.call("RemoveImage", image=pb.ImageSpec(image=reference))

    async def stats(self) -> dict[str, pb.ContainerStats]:
        """Statistics of all containers by their id."""
        return {each.attributes.id: each for each in (await self.call("ListContainerStats")).stats}

    async def ensure(self, reference: str, *, handler: str = "", always: bool = False) -> None:
        """Make an image present by the pull policy IfNotPresent, or Always."""
        if always or await self.image(reference) is None:
            await self.pull(reference, handler=handler)

    async def start_pod(
        self, reference: str, command: Sequence[str], *, handler: str = "", always: bool = False
    ) -> Pod:
        """A running container in a sandbox of its own; what was made of it is removed if that fails."""
        await self.ensure(reference, handler=handler, always=always)
        config = _sandbox(self.logs)
        answer = await self.call("RunPodSandbox", config=config, runtime_handler=handler)
        pod = Pod(self, answer.pod_sandbox_id, config)
        try:
            await pod.start(reference, command)
        except BaseException:
            await pod.remove()
            raise
        return pod

    @asynccontextmanager
    async def pod(
        self, reference: str, *command: str, handler: str = "", always: bool = False
    ) -> AsyncIterator[Pod]:
        """The same for the length of the body."""
        pod = await self.start_pod(reference, command or ("sleep", "1000"), handler=handler, always=always)
        try:
            yield pod
        finally:
            await pod.remove()


@dataclass
class Pod:
    """A sandbox with one container."""

    cri: Cri
    sandbox: str
    config: pb.PodSandboxConfig
    container: str = ""

    def of(self, cri: Cri) -> Pod:
        """The same over another connection."""
        return replace(self, cri=cri)

    async def start(self, reference: str, command: Sequence[str], name: str = "main") -> None:
        """Create and start the container."""
        security = pb.LinuxContainerSecurityContext(namespace_options=_HOST_NETWORK)
        config = pb.ContainerConfig(
            metadata=pb.ContainerMetadata(name=name),
            image=pb.ImageSpec(image=reference),
            command=command,
            log_path=f"{self.config.metadata.uid}.log",
            linux=pb.LinuxContainerConfig(security_context=security),
        )
        answer = await self.cri.call(
            "CreateContainer", pod_sandbox_id=self.sandbox, config=config, sandbox_config=self.config
        )
        self.container = answer.container_id
        await self.cri.call("StartContainer", container_id=self.container)

    async def execute(self, *command: str) -> str:
        """What a command in the container says; it must succeed."""
        answer = await self.cri.call("ExecSync", container_id=self.container, cmd=command, timeout=30)
        assert answer.exit_code == 0, answer.stderr.decode()
        said: str = answer.stdout.decode()
        return said

    async def status(self) -> pb.ContainerStatus:
        """Of the container."""
        status: pb.ContainerStatus = (
            await self.cri.call("ContainerStatus", container_id=self.container)
        ).status
        return status

    def log(self) -> str:
        """What the container wrote, without the times and stream names of CRI's format."""
        lines = (self.cri.logs / f"{self.config.metadata.uid}.log").read_text().splitlines(keepends=True)
        return "".join(line.split(" ", 3)[3] for line in lines)

    async def remove(self) -> None:
        """Stop and forget all of it."""
        if self.container:
            await self.cri.call("StopContainer", container_id=self.container, timeout=0)
            await self.cri.call("RemoveContainer", container_id=self.container)
        await self.cri.call("StopPodSandbox", pod_sandbox_id=self.sandbox)
        await self.cri.call("RemovePodSandbox", pod_sandbox_id=self.sandbox)


async def patiently(work: Callable[[], Awaitable[T]], deadline_seconds: float = 20.0) -> T:
    """Do it again until it works, as the kubelet does; at the deadline with the last error."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_seconds
    while True:
        try:
            return await work()
        except GRPCError:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(0.05)


@asynccontextmanager
async def connected(socket: Path, logs: Path) -> AsyncIterator[Cri]:
    """CRI on a containerd's socket."""
    logs.mkdir(exist_ok=True)
    channel = Channel(path=str(socket))
    cri = Cri(channel, logs)
    try:
        await patiently(lambda: cri.call("Status"))  # it answers before it has looked at what is there
        yield cri
    finally:
        channel.close()


def _spec(reference: str, handler: str) -> pb.ImageSpec:
    return pb.ImageSpec(image=reference, annotations=_for_handler(handler), runtime_handler=handler)


def _for_handler(handler: str) -> dict[str, str]:
    # On the pod this is what containerd before 2.3 reads; the field is what it reads from then on.
    return {"io.containerd.cri.runtime-handler": handler} if handler else {}


def _sandbox(logs: Path | None = None, annotations: Mapping[str, str] | None = None) -> pb.PodSandboxConfig:
    uid = secrets.token_hex(8)
    security = pb.LinuxSandboxSecurityContext(namespace_options=_HOST_NETWORK)
    return pb.PodSandboxConfig(
        metadata=pb.PodSandboxMetadata(name=f"pod-{uid}", uid=uid, namespace="default"),
        log_directory=str(logs or ""),
        annotations=annotations,
        linux=pb.LinuxPodSandboxConfig(security_context=security),
    )
