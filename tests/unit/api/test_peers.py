"""api: who may use the socket."""

from __future__ import annotations

import grp

import pytest

from imagecached.api.peers import Gate, Peer

ANY = Gate(uid=1000, gid=50)


@pytest.mark.parametrize(
    ("gate", "peer", "admitted"),
    [
        (ANY, Peer(1, 0, frozenset()), True),
        (ANY, Peer(1, 1000, frozenset()), True),
        (ANY, Peer(1, 7, frozenset({7, 50})), True),
        (ANY, Peer(1, 7, frozenset({7})), False),
        (Gate(uid=0, gid=None), Peer(1, 7, frozenset({7, 50})), False),
    ],
)
def test_root_the_daemon_and_the_group_are_admitted(gate: Gate, peer: Peer, *, admitted: bool) -> None:
    """Nobody else, and without a group nobody by it."""
    assert gate.admits(peer) is admitted


def test_a_group_that_does_not_exist_admits_nobody() -> None:
    """Its name may be in the configuration all the same."""
    assert Gate.of("no-such-group-here").gid is None
    first = grp.getgrall()[0]
    assert Gate.of(first.gr_name).gid == first.gr_gid
