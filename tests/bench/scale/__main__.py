"""Declares caches on emulated nodes, waits until all are Ready, looks at the silence afterwards, prints
figures.

    scripts/scale                                 the cluster sizes of daemonset/SCALE.md
    scripts/scale --sizes 1000x100 --json out     one of them

Nodes, registries and the API server are emulated; the controller is the real one, and so is its client above
the wire. Time is virtual, so how long things take is what a cluster would see, however slow this machine is.
Processor time is what the controller's own steps took here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.bench.scale import figures, meter
from tests.bench.scale.scenario import Size, simulate

_SIZES = "250x25,500x50,1000x50,1000x100,1000x200,2000x50,5000x50,5000x200"


def main() -> int:
    arguments = _arguments()
    rows: list[dict[str, Any]] = []
    for size in arguments.sizes.split(","):
        nodes, caches = map(int, size.split("x"))
        rows.append(meter.run(simulate(Size(nodes, caches), process=arguments.process)))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(figures.table(rows))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/scale", description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default=_SIZES, metavar="NODESxCACHES,…", help=f"default {_SIZES}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument(
        "--process", action="store_true", help="also start the real controller on the outcome and weigh it"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
