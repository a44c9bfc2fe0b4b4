"""Declares caches on emulated nodes, waits until all are Ready, looks at the silence afterwards, prints
figures.

    scripts/scale                                 the cluster sizes of daemonset/SCALE.md
    scripts/scale --sizes 1000x100 --json out     one of them

Nodes, registries and the API server are emulated; the controller is the real one, and so is its client above
the wire. Time is virtual, so how long things take is what a cluster would see, however slow this machine is.
Processor time is what the controller's own steps took here. Its memory is that of a real process, started on
a cluster of that size in which everything is done, over real connections.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from imagecached.telemetry import start_logging
from tests.bench.scale import figures, meter, weigh
from tests.bench.scale.rest import settled
from tests.bench.scale.scenario import Size, simulate

_SIZES = "250x25,500x50,1000x50,1000x100,1000x200,2000x50,5000x50,5000x200"


def main() -> int:
    arguments = _arguments()
    if arguments.verbose:
        start_logging("info", "text")
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes.split(","):
        nodes, caches = map(int, size.split("x"))
        row: dict[str, Any] = {"nodes": nodes, "caches": caches}
        if not arguments.rest:
            row |= meter.run(simulate(Size(nodes, caches)))
        rows.append(row | weigh.controller(settled(nodes, caches)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(figures.rest(rows) if arguments.rest else figures.table(rows))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/scale", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=_SIZES, metavar="NODESxCACHES,…", help=f"default {_SIZES}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--rest", action="store_true", help="only start the real controller on a cluster at rest and weigh it"
    )
    parser.add_argument("--verbose", action="store_true", help="say how far it is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
