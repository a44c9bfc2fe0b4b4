"""exits: every kind of error has an exit code."""

from __future__ import annotations

from imagecached.errors import ERROR_CLASSES
from imagecached.exits import EXIT_CODES


def test_the_table_is_total() -> None:
    """No kind without a code, and no code for a kind that does not exist."""
    assert set(EXIT_CODES) == {error.kind for error in ERROR_CLASSES}


def test_the_stable_surface() -> None:
    """Scripts depend on these numbers."""
    expected = {
        "failed": 1,
        "already_exists": 1,
        "failed_precondition": 1,
        "invalid_input": 2,
        "not_found": 3,
        "access_denied": 4,
        "corrupt": 5,
        "out_of_space": 6,
        "unavailable": 7,
        "unsupported": 8,
    }
    assert expected == EXIT_CODES
