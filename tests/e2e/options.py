"""The command line of ``scripts/e2e-cluster``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HEAD = """Tries imagecached on the cluster of KUBECONFIG, from install to uninstall; leaves it as it was.

Prints a line a check and exits with 0 if none failed. --image or --node-process says how the daemon runs.
"""
_RESTART = "systemctl restart containerd"
_IMAGES = (
    "registry.cn-shanghai.aliyuncs.com/eci_open/nginx:1.14.2",
    "registry.cn-shanghai.aliyuncs.com/eci_open/busybox:1.30",
    "registry.cn-hangzhou.aliyuncs.com/knative-sample/helloworld-go:73fbdd56",
)


@dataclass(frozen=True, slots=True)
class Options:
    """``image`` empty: the daemon and the controller are processes on this node."""

    image: str
    images: tuple[str, str, str]
    plain_http: tuple[str, ...]
    examples: Path | None
    node: str
    containerd_config: Path
    containerd_restart: str
    containerd_socket: Path
    containerd_program: str
    kubelet_restart: str
    root: Path
    run: Path
    patience: float
    pod_network: bool
    keep: bool
    only: tuple[str, ...]


def parse(arguments: Sequence[str], scenarios: Sequence[str]) -> Options:
    """The options; SystemExit with the reason when they make no sense."""
    parser = _parser(scenarios)
    given = parser.parse_args(arguments)
    if bool(given.image) == given.node_process:
        parser.error("say either --image REF or --node-process")
    if given.node_process and os.geteuid() != 0:
        parser.error("--node-process needs root: the daemon mounts images")
    unknown = set(given.only) - set(scenarios)
    if unknown:
        parser.error(f"--only: no scenario {', '.join(sorted(unknown))}; there are {', '.join(scenarios)}")
    return Options(
        image=given.image,
        images=_three(given.images, parser),
        plain_http=tuple(given.plain_http),
        examples=given.examples,
        node=given.node_name,
        containerd_config=given.containerd_config,
        containerd_restart=given.containerd_restart or (_RESTART if given.node_process else ""),
        containerd_socket=given.containerd_socket,
        containerd_program=given.containerd_program,
        kubelet_restart=given.kubelet_restart,
        root=given.root,
        run=given.run,
        patience=given.patience,
        pod_network=given.pod_network,
        keep=given.keep,
        only=tuple(given.only),
    )


def _three(images: Sequence[str], parser: argparse.ArgumentParser) -> tuple[str, str, str]:
    """Two for the example cache and one that no cache holds; "" if there is none."""
    if not images:
        return _IMAGES
    if len(set(images)) != len(images) or len(images) not in (2, 3):
        parser.error(
            "--images: expected different images A,B or A,B,C: two for the cache, one that none holds"
        )
    first, second, *third = images
    return first, second, third[0] if third else ""


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _parser(scenarios: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/e2e-cluster",
        description=_HEAD,
        epilog=f"Scenarios: {', '.join(scenarios)}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--image",
        default="",
        metavar="REF",
        help="the image of daemonset/Dockerfile, where the nodes can pull it",
    )
    add(
        "--node-process",
        action="store_true",
        help="no image: run daemon and controller as processes on this node, as root",
    )
    add(
        "--images",
        type=_words,
        default=[],
        metavar="A,B[,C]",
        help="instead of the images in the examples: two for the cache, one that no cache holds",
    )
    add("--plain-http", type=_words, default=[], metavar="HOST,…", help="registries spoken to by HTTP")
    add("--examples", type=Path, metavar="DIR", help="other manifests than those in daemonset/examples")
    add("--node-name", default="", help="of the Node that this host is; needed where there are several")
    add("--containerd-config", type=Path, default=Path("/etc/containerd/config.toml"), metavar="PATH")
    add(
        "--containerd-restart",
        default="",
        metavar="COMMAND",
        help=f"on this host; left out: {_RESTART}, and with --image, which may run anywhere, no restart",
    )
    add("--containerd-socket", type=Path, default=Path("/run/containerd/containerd.sock"), metavar="PATH")
    add("--containerd-program", default="containerd", metavar="FILE", help="if it is not on PATH")
    add("--kubelet-restart", default="", metavar="COMMAND", help="left out: the kubelet is not restarted")
    add("--root", type=Path, default=Path("/var/lib/imagecached-e2e"), help="of the daemon as a process")
    add("--run", type=Path, default=Path("/run/imagecached-e2e"), help="its sockets")
    add("--patience", type=float, default=300.0, metavar="SECONDS", help="how long one thing may take")
    add("--pod-network", action="store_true", help="pods use it; otherwise they use the host's")
    add("--keep", action="store_true", help="leave everything where it is at the end")
    add("--only", type=_words, default=[], metavar="SCENARIO,…", help="after the installation only these")
    return parser
