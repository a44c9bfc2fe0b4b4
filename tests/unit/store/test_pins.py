"""Pins: rows that outlive the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagecached.errors import InvalidInput
from imagecached.oci.digest import Digest
from imagecached.store import pins
from imagecached.store.records import Pin, PinKind
from imagecached.store.state import State
from tests.unit.store.building import opened

NAME = "docker.io/library/app:latest"


def test_pins_of_an_owner(state: State) -> None:
    """Twice is once; an owner may pin several things; unpin drops them all and never minds."""
    pins.add(state, "a", "image", NAME)
    pins.add(state, "a", "image", NAME)
    pins.add(state, "a", "layer", Digest.of(b"x"))
    pins.add(state, "b", "image", NAME)
    assert pins.every(state, "a") == (Pin("a", "image", NAME), Pin("a", "layer", Digest.of(b"x")))
    assert len(pins.every(state)) == 3
    pins.remove(state, "a")
    pins.remove(state, "a")
    assert pins.every(state) == (Pin("b", "image", NAME),)


def test_pins_outlive_the_process(root: Path) -> None:
    """They are rows."""
    with opened(root) as (state, _):
        pins.add(state, "a", "image", NAME)
    with opened(root) as (state, _):
        assert pins.every(state) == (Pin("a", "image", NAME),)


@pytest.mark.parametrize(
    ("owner", "kind", "value"),
    [("", "image", NAME), ("a", "image", "app"), ("a", "chain", NAME), ("a", "layer", "sha256:00")],
)
def test_refuses_what_could_never_be_found(state: State, owner: str, kind: PinKind, value: str) -> None:
    """A pin that keeps nothing by mistake would be noticed too late."""
    with pytest.raises(InvalidInput):
        pins.add(state, owner, kind, value)
