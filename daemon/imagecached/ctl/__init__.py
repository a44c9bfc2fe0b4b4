"""``imagecachectl``: the client. Talks HTTP over the daemon's unix socket, and to nothing else.

``commands`` is the table of what can be typed, ``arguments`` reads argv by it, ``usage`` explains it;
``program`` owns exit codes; ``images``, ``use`` and ``upkeep`` hold the commands; ``client`` asks the
daemon over ``connection`` in ``wire``'s JSON; ``output`` and ``progress`` show; ``runtime`` runs runc.

Invariants: answers go to standard output, everything else to standard error. Nothing is imported before
it is needed, because people wait for every start: on the way of a pull neither ``typing`` nor ``re`` nor
what imports them, which includes ``dataclasses``, ``contextlib`` and ``collections.abc``. Types are
imported for the type checker alone.
"""

from __future__ import annotations


def main() -> int:
    """The program; returns its exit code."""
    from imagecached.ctl.program import run

    return run()
