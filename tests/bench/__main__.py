"""Pulls each image with each contestant in turn and prints medians and ratios.

One run: a fresh file system and daemon (not timed), registry blobs in the page cache, then the wall time and
CPU seconds of the pull command (client and daemon), the time of a ``sync`` right after, the bytes that the
registry sent and the disk that the store uses. The order rotates with every repetition, so that a drift of
the machine hits all alike.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tests.bench import filesystem, link, recipes, report, traffic
from tests.bench.contestants import Contestant, contestants
from tests.support.listing import listing
from tests.support.registry import Registry, serve_registry

_CONTESTANTS: Final = "imagecached,containerd,containerd-other,containerd-other-igzip"


def main() -> int:
    arguments = _arguments()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users' Python keeps what it compiled
    cache: Path = arguments.cache
    images = arguments.images.split(",")
    work = cache / "run"
    work.mkdir(parents=True, exist_ok=True)
    with serve_registry(cache / "registry") as registry:
        for image in images:
            push(recipes.build(cache, image), f"{registry.address}/bench/{image}:1")
    if arguments.link:
        link.enter(arguments.link)  # building asked the network, pulling needs none
    with serve_registry(cache / "registry") as registry:
        players = [
            player
            for player in contestants(work / "store")
            if player.name in arguments.contestants.split(",")
        ]
        rows: list[dict[str, Any]] = []
        for repetition in range(arguments.repetitions):
            for image in images:
                shift = repetition % len(players)
                for player in players[shift:] + players[:shift]:
                    row = measure(player, registry, image, tree=repetition == 0 and arguments.tree)
                    rows.append({"repetition": repetition, **row})
                    print(json.dumps(rows[-1] | {"tree": None}), file=sys.stderr, flush=True)
    wrong = report.compare_trees(rows)
    for row in rows:
        row.pop("tree", None)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    print(report.table(rows, base=arguments.base))
    return 1 if wrong else 0


def measure(player: Contestant, registry: Registry, image: str, *, tree: bool) -> dict[str, Any]:
    """One cold pull on an empty store."""
    reference = f"{registry.address}/bench/{image}:1"
    with filesystem.fresh(player.folder):
        try:
            player.start()
            traffic.read_blobs(registry)
            os.sync()
            sent = traffic.bytes_sent(registry)
            before, children = player.cpu_seconds(), _children()
            began, unpacked_after = time.monotonic(), time.time_ns()
            result = subprocess.run(
                player.pull(reference), stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            wall = time.monotonic() - began
            cpu = player.cpu_seconds() - before + _children() - children
            os.sync()
            row: dict[str, Any] = {
                "image": image,
                "contestant": player.name,
                "wall_seconds": wall,
                "cpu_seconds": cpu,
                "sync_seconds": time.monotonic() - began - wall,
                "registry_bytes": traffic.bytes_sent(registry) - sent,
                "disk_bytes": filesystem.allocated(player.folder / "root"),
            }
            if result.returncode:
                raise RuntimeError(f"{player.name} {image}: {result.stderr.decode(errors='replace')[-500:]}")
            if tree:
                row["tree"], row["unpacked_after"] = _tree(player, reference), unpacked_after
            return row
        finally:
            player.stop()


def _tree(player: Contestant, reference: str) -> Any:
    target = player.folder / "tree"
    target.mkdir()
    player.mount(reference, target)
    try:
        return listing(target)
    finally:
        player.umount(target)


def push(layout: Path, reference: str) -> None:
    destination = f"docker://{reference}"
    subprocess.run(
        [
            "skopeo",
            "copy",
            "-q",
            "--insecure-policy",
            "--dest-tls-verify=false",
            f"oci:{layout}:1",
            destination,
        ],
        check=True,
    )


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--images", default="tiny,flink,flink-zstd,manyfiles,big", help=f"of {','.join(recipes.RECIPES)}"
    )
    parser.add_argument(
        "--contestants",
        help="of imagecached, containerd, containerd-other, containerd-other-igzip and blobs, a bare"
        " concurrent download\n(default: all but blobs; with --link imagecached and blobs)",
    )
    parser.add_argument("--link", help="rate of the way to the registry, as tc writes it: 500mbit")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--base",
        default=None,
        help="contestant that ratios refer to (default: the last containerd without igzip)",
    )
    parser.add_argument(
        "--tree", action="store_true", help="compare the mounted trees entry by entry in the first repetition"
    )
    parser.add_argument("--json", type=Path, help="write every run there")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench").resolve())
    arguments = parser.parse_args()
    usual = "imagecached,blobs" if arguments.link else _CONTESTANTS
    arguments.contestants = arguments.contestants or usual
    arguments.base = arguments.base or ("blobs" if arguments.link else None)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
