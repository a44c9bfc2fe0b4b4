"""What the daemon and the controller are in a cluster."""

from __future__ import annotations

from typing import Annotated

import msgspec

from imagecached.config.keys import says


class KubernetesSection(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster, where there is one."""

    node: Annotated[
        str,
        says("The name of this machine's Node object, whose ImageCaches are kept ready; empty = no cluster."),
    ] = ""
    kubeconfig: Annotated[
        str,
        says(
            "How the API server is reached; empty = by the pod's service account, else by KUBECONFIG.",
            form="an absolute path or an empty string",
        ),
    ] = ""


class ControllerSection(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster's controller (imagecached controller)."""

    namespace: Annotated[str, says("Where the controller, its Lease and its Secret live.")] = (
        "imagecached-system"
    )
    address: Annotated[
        str,
        says(
            "Address of the admission webhook; empty = none.",
            form="host:port, [IPv6]:port or an empty string",
        ),
    ] = "0.0.0.0:9443"
    workers: Annotated[int, says("ImageCaches worked on at the same time.", ge=1, le=64)] = 8
    rollout_nodes: Annotated[int, says("Nodes that fetch one ImageCache at the same time.", ge=1)] = 20
    rollout_percent: Annotated[
        int, says("The same as a share of its nodes; the greater of the two counts.", ge=0, le=100)
    ] = 5
    node_patience_seconds: Annotated[
        float,
        says("A node that reports nothing new of a build for so long is not waited for.", ge=10, le=86400),
    ] = 900.0
    resolve_patience_seconds: Annotated[
        float,
        says(
            "How long a registry that cannot be asked is asked again before a build fails.",
            ge=0,
            le=7 * 86400,
        ),
    ] = 1800.0
    drift_interval_seconds: Annotated[
        float,
        says(
            "Time between two looks at what tags of ready ImageCaches name now; 0 = never.",
            ge=0,
            le=30 * 86400,
        ),
    ] = 21600.0
    manual_caches: Annotated[
        int, says("ImageCaches made by people; beyond, those that allow it go.", ge=1, le=10000)
    ] = 500
    automatic_caches: Annotated[
        int, says("ImageCaches made for pods; beyond, the longest unused go.", ge=0, le=10000)
    ] = 25
    lease_seconds: Annotated[float, says("How long a leader that is silent is believed.", ge=1, le=600)] = (
        15.0
    )
    lease_renew_seconds: Annotated[
        float, says("How long a leader that cannot renew its Lease goes on leading.", ge=0.5, le=600)
    ] = 10.0
    lease_retry_seconds: Annotated[float, says("Time between two looks at the Lease.", ge=0.1, le=60)] = 2.0
