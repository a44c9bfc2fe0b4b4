"""What the daemon is on its node: where it keeps things, listens, and who it talks to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from imagecached.config.keys import SOCKET_PATH_BYTES, says


class DaemonSection(msgspec.Struct, frozen=True, kw_only=True):
    """Where the daemon keeps its state and listens."""

    root: Annotated[Path, says("Everything the daemon stores lies below this folder.")] = Path(
        "/var/lib/imagecached"
    )
    socket: Annotated[
        Path,
        says(
            "Unix socket of the HTTP API that imagecachectl talks to.",
            form=f"an absolute path of at most {SOCKET_PATH_BYTES} bytes",
        ),
    ] = Path("/run/imagecached/imagecached.sock")
    socket_group: Annotated[
        str,
        says(
            "Members of this group may use the socket besides root; a group that does not exist is ignored."
        ),
    ] = "imagecached"


class HttpSection(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics and health over TCP."""

    address: Annotated[
        str,
        says(
            "Address of /metrics, /livez and /readyz, open to everyone who reaches it; empty = none.",
            form="host:port, [IPv6]:port or an empty string",
        ),
    ] = "127.0.0.1:9273"


class SnapshotterSection(msgspec.Struct, frozen=True, kw_only=True):
    """The door to containerd."""

    socket: Annotated[
        str,
        says(
            "Unix socket of the snapshots service that containerd uses as a proxy plugin; empty = none.",
            form=f"an absolute path of at most {SOCKET_PATH_BYTES} bytes or an empty string",
        ),
    ] = ""
    pull_on_miss: Annotated[
        bool,
        says("Pull an image that containerd begins to unpack and that is not here, instead of containerd."),
    ] = True
    miss_wait_seconds: Annotated[
        float,
        says("Leave it to containerd when nothing of it has come for so long.", ge=0.1, le=3600),
    ] = 60.0


class ContainerdSection(msgspec.Struct, frozen=True, kw_only=True):
    """What containerd is told of the images that are ready, so that nobody pulls them."""

    socket: Annotated[
        str,
        says(
            "containerd's own unix socket, usually /run/containerd/containerd.sock; empty = tell it nothing.",
            form=f"an absolute path of at most {SOCKET_PATH_BYTES} bytes or an empty string",
        ),
    ] = ""
    namespaces: Annotated[
        tuple[str, ...],
        says("Namespaces of containerd in which images become known; k8s.io is the kubelet's."),
    ] = ("k8s.io",)
    snapshotter: Annotated[
        str, says("The name that containerd's configuration gives to our snapshots service.")
    ] = "imagecached"
    mode: Annotated[
        Literal["handler", "default"],
        says(
            "handler = a runtime handler uses our snapshots, and images are known by digest only;"
            " default = all containers use them, and tags are known, too."
        ),
    ] = "handler"
    sandbox_image: Annotated[
        str, says("The pause image that a runtime handler needs from us; empty = found out from containerd.")
    ] = ""
    fetch_missing_blobs: Annotated[
        bool,
        says(
            "Fetch the layers of an image for a container that waits for them, because another snapshotter"
            " than ours must unpack them."
        ),
    ] = True
    check_interval_seconds: Annotated[
        float, says("Time between two looks at everything that containerd should know.", ge=1, le=86400)
    ] = 600.0


class LogSection(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], says("The least important level written.")
    ] = "info"
    format: Annotated[
        Literal["auto", "json", "text"], says("auto = text on a terminal, JSON lines elsewhere.")
    ] = "auto"
