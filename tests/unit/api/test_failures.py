"""api: what clients are told of errors."""

from __future__ import annotations

import logging

import pytest

from imagecached.api.failures import STATUS, detail_of, status_of
from imagecached.errors import ERROR_CLASSES, ImagecachedError, NotFound, Unavailable


def test_every_class_of_error_has_a_status() -> None:
    """The table is total and holds nothing else; all statuses are of errors."""
    assert set(STATUS) == set(ERROR_CLASSES)
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize("error", ERROR_CLASSES)
def test_an_error_is_told_by_kind_and_message(error: type[ImagecachedError]) -> None:
    """Clients decide by the kind."""
    detail = detail_of(error("what and where"))
    assert (detail.kind, detail.message, detail.retry_after_seconds) == (error.kind, "what and where", None)
    assert status_of(error("")) == STATUS[error]


def test_a_wish_to_wait_is_passed_on() -> None:
    """The registry's Retry-After reaches the client."""
    assert detail_of(Unavailable("busy", retry_after=30)).retry_after_seconds == 30


def test_the_unforeseen_is_logged_and_told_calmly(caplog: pytest.LogCaptureFixture) -> None:
    """No text of the exception reaches the client; the log has it."""
    with caplog.at_level(logging.ERROR):
        detail = detail_of(ValueError("secret"))
    assert (detail.kind, status_of(ValueError())) == ("failed", 500)
    assert "secret" not in detail.message
    assert caplog.records[0].exc_info is not None


def test_the_foreseen_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An answer is no event of the log."""
    detail_of(NotFound("x"))
    assert not caplog.records
