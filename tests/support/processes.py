"""Servers as child processes: started, awaited by asking them, stopped by their own id.

A child dies with the thread that started it (``setpriv --pdeathsig``): a killed test run leaves nothing.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_POLL_SECONDS = 0.02
_STOP_SECONDS = 15.0


class NotStarted(RuntimeError):
    """A server ended or stayed silent until its deadline; the message carries the end of its log."""


def await_true(
    question: Callable[[], bool], *, what: str, deadline_seconds: float, alive: Callable[[], bool]
) -> None:
    """Ask until the answer is yes; raises NotStarted at the deadline or as soon as ``alive`` says no."""
    deadline = time.monotonic() + deadline_seconds
    while not question():
        if not alive():
            raise NotStarted(f"{what} ended before it answered")
        if time.monotonic() > deadline:
            raise NotStarted(f"{what} did not answer within {deadline_seconds:g} s")
        time.sleep(_POLL_SECONDS)  # noqa: TID251  a foreign server tells nobody that it is ready


@contextmanager
def running(
    argv: Sequence[str | Path],
    *,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    deadline_seconds: float = 30.0,
) -> Iterator[int]:
    """Run ``argv`` for the length of the block, from its first good answer on; yields its process id."""
    command = ["setpriv", "--pdeathsig", "KILL", "--", *map(str, argv)]
    with log.open("ab") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C ends the tests, and these then end the server in order
        )
    try:
        await_true(
            ready, what=str(argv[0]), deadline_seconds=deadline_seconds, alive=lambda: child.poll() is None
        )
    except NotStarted as error:
        stop(child)
        tail = log.read_text(errors="replace")[-2000:]
        raise NotStarted(f"{error}; the end of {log.name}:\n{tail}") from None
    except BaseException:
        stop(child)
        raise
    try:
        yield child.pid
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ask the process to end; insist when it does not."""
    if child.poll() is None:
        child.terminate()
    try:
        child.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
