"""Processes that die at a named point, by SIGKILL, with the store open."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from imagecached.store.points import arm
from imagecached.store.recovery import open_state
from imagecached.store.state import State
from tests.unit.store.building import ROOMY, Clock

Act = Callable[[State], object]


def trace(root: Path, act: Act) -> list[str]:
    """Open the store at ``root``, do ``act``, close; the points passed, in order."""
    read, write = os.pipe()
    status = _run(root, act, lambda name: os.write(write, f"{name}\n".encode()))
    os.close(write)
    with os.fdopen(read) as passed:
        names = passed.read().split()
    assert os.waitstatus_to_exitcode(status) == 0, names
    return names


def die(root: Path, act: Act, index: int) -> bool:
    """The same in a process that is killed at the ``index``-th point; False if it was done before."""
    left = index

    def count(name: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    status = _run(root, act, count)
    exit_code = os.waitstatus_to_exitcode(status)
    assert exit_code in (0, -signal.SIGKILL)
    return exit_code != 0


def _run(root: Path, act: Act, at_point: Callable[[str], object]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # from 3.12 on: threads of other tests may be there
        child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        arm(lambda name: (at_point(name), None)[1])
        state, _ = open_state(root, ROOMY, Clock())
        act(state)
        state.close()
        os._exit(0)
    except BaseException:  # noqa: BLE001  nothing of the parent may run in this process
        traceback.print_exc()
    finally:
        os._exit(1)
