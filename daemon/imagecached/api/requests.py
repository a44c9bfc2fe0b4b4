"""What a client of the HTTP API may ask: part of the stable surface. Unknown fields are refused."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Name = Annotated[
    str,
    Meta(min_length=1, max_length=1024, description="An image reference, Docker Hub's shorthands included."),
]
AbsolutePath = Annotated[
    str, Meta(pattern=r"^/[^\x00]*$", max_length=4095, description="An absolute path on the daemon's host.")
]

CacheName = Annotated[
    str, Meta(min_length=1, max_length=253, description="An ImageCache by its name or its id (imc-…).")
]
ManifestText = Annotated[str, Meta(max_length=1 << 20, description="YAML or JSON, one or many documents.")]


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nothing to say."""


class PullRequest(Request, frozen=True, kw_only=True):
    """Images to make ready; ``platform`` is os/architecture[/variant], empty = this host's."""

    images: Annotated[list[Name], Meta(min_length=1, max_length=100)]
    platform: Annotated[str, Meta(max_length=200)] = ""


class BlobsRequest(Request, frozen=True, kw_only=True):
    """Images whose layers are wanted as the registry has them."""

    images: Annotated[list[Name], Meta(min_length=1, max_length=100)]


class ImageRequest(Request, frozen=True, kw_only=True):
    """One image by its name."""

    name: Name


class ApplyRequest(Request, frozen=True, kw_only=True):
    """ImageCache manifests, one or many documents; ``source``: what problems call them."""

    manifests: ManifestText
    source: Annotated[str, Meta(max_length=4096)] = "manifest"


class CacheRequest(Request, frozen=True, kw_only=True):
    """One ImageCache by its name or id."""

    name: CacheName


class WatchRequest(Request, frozen=True, kw_only=True):
    """ImageCaches, or one by its name or id; ``timeout_seconds``: end then, 0 = never."""

    name: Annotated[str, Meta(max_length=253)] = ""
    timeout_seconds: Annotated[float, Meta(ge=0, le=86400 * 366)] = 0.0


class MatchRequest(Request, frozen=True, kw_only=True):
    """Pods, or what has a pod template: Deployment, Job, Knative Service and the like."""

    manifests: ManifestText
    source: Annotated[str, Meta(max_length=4096)] = "manifest"


class ChoiceRequest(Request, frozen=True, kw_only=True):
    """A container's image, or the id of an ImageCache, and the annotations that a pod would have."""

    image: Name
    annotations: Annotated[dict[str, str], Meta(max_length=1000)] = {}


class MountRequest(Request, frozen=True, kw_only=True):
    """Mount an image's tree on an empty directory; ``read_write`` puts a private layer above."""

    image: Name
    target: AbsolutePath
    read_write: bool = False


class UmountRequest(Request, frozen=True, kw_only=True):
    """Undo a mount."""

    target: AbsolutePath


class ContainerRequest(Request, frozen=True, kw_only=True):
    """A bundle for a container of ``image``; what is empty is as the image says."""

    image: Name
    arguments: Annotated[list[str], Meta(max_length=10_000)] = []
    environment: dict[str, str] = {}
    working_dir: str = ""
    user: str = ""
    terminal: bool = False


class ContainerName(Request, frozen=True, kw_only=True):
    """One container by its id."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


class GcRequest(Request, frozen=True, kw_only=True):
    """``dry_run``: only tell what would go."""

    dry_run: bool = False


class FsckRequest(Request, frozen=True, kw_only=True):
    """``repair``: drop what is corrupt and mark its images."""

    repair: bool = False


class EventsRequest(Request, frozen=True, kw_only=True):
    """Events after number ``since``, about ``subject`` if given; ``follow`` keeps waiting for more."""

    follow: bool = False
    since: Annotated[int, Meta(ge=0)] = 0
    subject: str = ""
