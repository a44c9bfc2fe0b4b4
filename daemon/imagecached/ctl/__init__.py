"""``imagecachectl``: the client. Talks HTTP over the daemon's unix socket with the standard library.

``program`` owns argv and exit codes; ``images``, ``use`` and ``upkeep`` hold the commands; ``client``
asks the daemon; ``output`` and ``progress`` show. Invariants: answers go to standard output, everything
else to standard error; nothing is imported before it is needed, because people wait for every start.
"""

from __future__ import annotations


def main() -> int:
    """The program; returns its exit code."""
    from imagecached.ctl.program import run

    return run()
