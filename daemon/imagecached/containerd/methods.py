"""The methods of containerd that we call: paths and message types of the public contract, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from imagecached.containerd._proto import containerd_pb2 as pb

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """One method on the wire: what is asked with, and what answers."""

    path: str
    request: type[Q]
    answer: type[A]

    @property
    def name(self) -> str:
        """For messages: ``Images/Create``."""
        service, _, method = self.path.removeprefix("/").partition("/")
        return f"{service.rpartition('.')[2]}/{method}"


_LEASES: Final = "/containerd.services.leases.v1.Leases"
_CONTENT: Final = "/containerd.services.content.v1.Content"
_SNAPSHOTS: Final = "/containerd.services.snapshots.v1.Snapshots"
_IMAGES: Final = "/containerd.services.images.v1.Images"
_CONTAINERS: Final = "/containerd.services.containers.v1.Containers"
_INTROSPECTION: Final = "/containerd.services.introspection.v1.Introspection"

LEASE_CREATE: Final = Method(f"{_LEASES}/Create", pb.LeaseCreate, pb.LeaseAnswer)
LEASE_DELETE: Final = Method(f"{_LEASES}/Delete", pb.LeaseDelete, Empty)
LEASE_LIST: Final = Method(f"{_LEASES}/List", pb.Filters, pb.LeaseList)

CONTENT_INFO: Final = Method(f"{_CONTENT}/Info", pb.ContentDigest, pb.ContentAnswer)
CONTENT_UPDATE: Final = Method(f"{_CONTENT}/Update", pb.ContentUpdate, pb.ContentAnswer)
CONTENT_LIST: Final = Method(f"{_CONTENT}/List", pb.Filters, pb.ContentList)
CONTENT_DELETE: Final = Method(f"{_CONTENT}/Delete", pb.ContentDigest, Empty)
CONTENT_READ: Final = Method(f"{_CONTENT}/Read", pb.ContentRead, pb.ContentPiece)
CONTENT_STATUSES: Final = Method(f"{_CONTENT}/ListStatuses", pb.Filters, pb.IngestList)
CONTENT_WRITE: Final = Method(f"{_CONTENT}/Write", pb.ContentWrite, pb.ContentWritten)
CONTENT_ABORT: Final = Method(f"{_CONTENT}/Abort", pb.ContentRef, Empty)

SNAPSHOT_PREPARE: Final = Method(f"{_SNAPSHOTS}/Prepare", pb.SnapshotPrepare, Empty)
SNAPSHOT_STAT: Final = Method(f"{_SNAPSHOTS}/Stat", pb.SnapshotKey, pb.SnapshotAnswer)
SNAPSHOT_REMOVE: Final = Method(f"{_SNAPSHOTS}/Remove", pb.SnapshotKey, Empty)
SNAPSHOT_LIST: Final = Method(f"{_SNAPSHOTS}/List", pb.SnapshotFilters, pb.SnapshotList)

IMAGE_GET: Final = Method(f"{_IMAGES}/Get", pb.Name, pb.ImageAnswer)
IMAGE_LIST: Final = Method(f"{_IMAGES}/List", pb.Filters, pb.ImageList)
IMAGE_CREATE: Final = Method(f"{_IMAGES}/Create", pb.ImageAnswer, pb.ImageAnswer)
IMAGE_UPDATE: Final = Method(f"{_IMAGES}/Update", pb.ImageUpdate, pb.ImageAnswer)
IMAGE_DELETE: Final = Method(f"{_IMAGES}/Delete", pb.ImageDelete, Empty)

CONTAINER_LIST: Final = Method(f"{_CONTAINERS}/List", pb.Filters, pb.ContainerList)

SERVER: Final = Method(f"{_INTROSPECTION}/Server", Empty, pb.Server)
PLUGINS: Final = Method(f"{_INTROSPECTION}/Plugins", pb.Filters, pb.PluginList)
VERSION: Final = Method("/containerd.services.version.v1.Version/Version", Empty, pb.Version)
NAMESPACES: Final = Method("/containerd.services.namespaces.v1.Namespaces/List", Empty, pb.NamespaceList)
SUBSCRIBE: Final = Method("/containerd.services.events.v1.Events/Subscribe", pb.Filters, pb.Envelope)

CRI_STATUS: Final = Method("/runtime.v1.RuntimeService/Status", pb.CriStatusAsk, pb.CriStatus)
CRI_IMAGE: Final = Method("/runtime.v1.ImageService/ImageStatus", pb.CriImageAsk, pb.CriImageAnswer)
CRI_STATS: Final = Method("/runtime.v1.RuntimeService/ListContainerStats", Empty, pb.CriStatsList)
CRI_IMAGE_DISKS: Final = Method("/runtime.v1.ImageService/ImageFsInfo", Empty, pb.CriImageDisks)
CRI_SANDBOXES: Final = Method(
    "/runtime.v1.RuntimeService/ListPodSandbox", pb.CriSandboxesAsk, pb.CriSandboxes
)
CRI_STOP_SANDBOX: Final = Method("/runtime.v1.RuntimeService/StopPodSandbox", pb.CriSandboxName, Empty)
CRI_REMOVE_SANDBOX: Final = Method("/runtime.v1.RuntimeService/RemovePodSandbox", pb.CriSandboxName, Empty)
