"""Everything that can be asked of the HTTP API, in one list."""

from __future__ import annotations

from typing import Final

from imagecached.api import documents as d
from imagecached.api import handlers, streams
from imagecached.api import requests as r
from imagecached.api.operation import Operation

OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/v1/pulls",
        request=r.PullRequest,
        answers=(d.PullProgress, d.PullDone),
        handler=streams.pull,
    ),
    Operation(
        method="POST",
        path="/v1/blobs",
        request=r.BlobsRequest,
        answers=(d.PullProgress, d.PullDone),
        handler=streams.fetch_blobs,
    ),
    Operation(
        method="GET",
        path="/v1/images",
        request=r.Request,
        answers=(d.ImageList,),
        handler=handlers.list_images,
    ),
    Operation(
        method="DELETE",
        path="/v1/images",
        request=r.ImageRequest,
        answers=(d.Done,),
        handler=handlers.remove_image,
    ),
    Operation(
        method="GET",
        path="/v1/images/describe",
        request=r.ImageRequest,
        answers=(d.ImageDescription,),
        handler=handlers.describe_image,
    ),
    Operation(
        method="GET",
        path="/v1/layers",
        request=r.Request,
        answers=(d.LayerList,),
        handler=handlers.list_layers,
    ),
    Operation(
        method="GET",
        path="/v1/snapshots",
        request=r.Request,
        answers=(d.SnapshotList,),
        handler=handlers.list_snapshots,
    ),
    Operation(
        method="POST",
        path="/v1/mounts",
        request=r.MountRequest,
        answers=(d.Done,),
        handler=handlers.mount,
    ),
    Operation(
        method="DELETE",
        path="/v1/mounts",
        request=r.UmountRequest,
        answers=(d.Done,),
        handler=handlers.umount,
    ),
    Operation(
        method="POST",
        path="/v1/containers",
        request=r.ContainerRequest,
        answers=(d.ContainerBundle,),
        handler=handlers.create_container,
    ),
    Operation(
        method="DELETE",
        path="/v1/containers/{id}",
        request=r.ContainerName,
        answers=(d.Done,),
        handler=handlers.release_container,
    ),
    Operation(
        method="POST",
        path="/v1/gc",
        request=r.GcRequest,
        answers=(d.GcAnswer,),
        handler=handlers.gc,
    ),
    Operation(
        method="POST",
        path="/v1/fsck",
        request=r.FsckRequest,
        answers=(d.FsckProgress, d.FsckDone),
        handler=streams.fsck,
    ),
    Operation(
        method="GET",
        path="/v1/doctor",
        request=r.Request,
        answers=(d.Diagnosis,),
        handler=handlers.doctor,
    ),
    Operation(
        method="GET",
        path="/v1/events",
        request=r.EventsRequest,
        answers=(d.EventLine,),
        handler=streams.events,
    ),
    Operation(
        method="GET",
        path="/v1/version",
        request=r.Request,
        answers=(d.Version,),
        handler=handlers.version,
    ),
    Operation(
        method="GET",
        path="/v1/status",
        request=r.Request,
        answers=(d.Status,),
        handler=handlers.status,
    ),
)
