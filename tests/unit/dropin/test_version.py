"""Versions of containerd."""

from __future__ import annotations

import pytest

from imagecached.dropin import Version
from imagecached.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.6", Version(1, 6)),
        ("v1.7.27", Version(1, 7, 27)),
        ("2.x", Version(2, 1)),
        ("2.0.x", Version(2, 0)),
        ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", Version(1, 6, 20)),
        ("containerd github.com/containerd/containerd/v2 2.1.9+unknown ", Version(2, 1, 9)),
        ("containerd containerd.io v2.4.0-beta.0 abc", Version(2, 4)),
    ],
)
def test_what_names_a_version(text: str, version: Version) -> None:
    """Numbers as people type them, and as the program says them."""
    assert Version.parse(text) == version


@pytest.mark.parametrize("text", ["", "2", "x.y", "newest", "1.2.3.4", "12345.1"])
def test_what_names_none(text: str) -> None:
    """The message says what is expected."""
    with pytest.raises(InvalidInput, match="expected for example"):
        Version.parse(text)


@pytest.mark.parametrize(
    ("fact", "first", "last_without"),
    [
        ("supported", "1.6", "1.5.99"),
        ("has_handlers", "1.7", "1.6.99"),
        ("honours_pins", "1.6.22", "1.6.21"),
        ("honours_pins", "1.7.3", "1.7.2"),
        ("has_exports", "1.6.32", "1.6.31"),
        ("has_exports", "1.7.16", "1.7.15"),
        ("finds_relative_patterns", "1.7.16", "1.7.15"),
        ("merges", "2.0", "1.7.99"),
        ("transfers", "2.1", "2.0.99"),
    ],
)
def test_what_came_when(fact: str, first: str, last_without: str) -> None:
    """Read in containerd's history."""
    assert getattr(Version.parse(first), fact)
    assert getattr(Version.parse("2.4"), fact)
    assert not getattr(Version.parse(last_without), fact)
