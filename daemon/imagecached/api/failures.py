"""Errors on the wire: one table from the class to the HTTP status, and what a client is told.

The table is tested to be total over the error classes. A client never sees a traceback: what nobody
foresaw is logged here, once, and told as one calm line.
"""

from __future__ import annotations

import logging
from typing import Final

from imagecached.api.documents import ErrorDetail
from imagecached.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    FailedPrecondition,
    ImagecachedError,
    InvalidInput,
    NotFound,
    OutOfSpace,
    Unavailable,
    Unsupported,
)

log = logging.getLogger(__name__)

STATUS: Final[dict[type[ImagecachedError], int]] = {
    ImagecachedError: 500,
    InvalidInput: 400,
    NotFound: 404,
    AlreadyExists: 409,
    FailedPrecondition: 409,
    AccessDenied: 403,
    Unavailable: 503,
    Corrupt: 502,
    OutOfSpace: 507,
    Unsupported: 501,
}


def status_of(error: Exception) -> int:
    """The HTTP status for ``error``; 500 for what is not ours."""
    return STATUS.get(type(error), 500) if isinstance(error, ImagecachedError) else 500


def detail_of(error: Exception) -> ErrorDetail:
    """What the client is told of ``error``; an unforeseen one is logged."""
    if not isinstance(error, ImagecachedError):
        log.error("unforeseen error", exc_info=error)
        return ErrorDetail(
            kind=ImagecachedError.kind, message="internal error; the daemon's log has the details"
        )
    wait = error.retry_after if isinstance(error, Unavailable) else None
    return ErrorDetail(kind=error.kind, message=str(error), retry_after_seconds=wait)
