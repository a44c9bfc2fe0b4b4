"""``scripts/e2e-cluster``: runs the scenarios, prints a line a check, and leaves the cluster as it was."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from lightkube.core.exceptions import ConfigError

from tests.e2e.cluster import Cluster, Refused
from tests.e2e.installation import preflight, restore
from tests.e2e.options import parse
from tests.e2e.report import Failed, Report, Skipped
from tests.e2e.scenarios import FIRST, LAST, MIDDLE, Scenario
from tests.e2e.world import World


def main(arguments: Sequence[str] | None = None) -> int:
    """0: no check failed. 1: one did, or the run was cut short."""
    options = parse(sys.argv[1:] if arguments is None else arguments, list(MIDDLE))
    report = Report()
    try:
        world = World(options, Cluster.from_environment(), report)
    except (ConfigError, OSError, ValueError) as error:
        report.scenario = "cluster"
        report.fail(f"no cluster: {error}")
        return 1
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run_all(world)
    except KeyboardInterrupt:
        report.fail("cut short")
    finally:
        _leave(world)
        world.cluster.http.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    report.summary()
    return 1 if report.failures else 0


def _run_all(world: World) -> None:
    # Nothing is changed before this has passed, and nothing is undone either if it does not.
    if not _run(world, "preflight", preflight):
        return
    for name, scenario in FIRST.items():
        if not _run(world, name, scenario):
            return
    for name, scenario in MIDDLE.items():
        if not world.options.only or name in world.options.only:
            _run(world, name, scenario)
            _run(world, name, World.remove_pods)  # their ports are the host's
    for name, scenario in LAST.items():
        _run(world, name, scenario)


def _run(world: World, name: str, scenario: Scenario) -> bool:
    world.report.scenario = name
    try:
        scenario(world)
    except Skipped as why:
        world.report.skip(str(why))
    except (Failed, Refused) as why:
        world.report.fail(str(why))
        return False
    except Exception as error:  # noqa: BLE001  a mistake of a scenario is a failure too, and others can be tried
        world.report.fail(f"{type(error).__name__}: {error}")
        return False
    return True


def _leave(world: World) -> None:
    """Whatever happened: the cluster and the node as they were, unless they are to be looked at."""
    world.report.scenario = "cleanup"
    if not world.before or world.options.keep:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who cannot wait would have to clean up by hand
    try:
        restore(world)
    except (Failed, Refused) as why:
        world.report.fail(str(why))
    if world.node is not None:
        world.node.close()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
