"""Errors on the wire: one table from the class to the gRPC code, tested to be total over the error classes.

containerd's garbage collection stops at any error but FAILED_PRECONDITION and NOT_FOUND, so nothing may leave
as UNKNOWN. A client never sees a traceback: what nobody foresaw is logged here, once.
"""

from __future__ import annotations

import logging
from typing import Final

from grpclib import GRPCError, Status

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

STATUS: Final[dict[type[ImagecachedError], Status]] = {
    ImagecachedError: Status.INTERNAL,
    InvalidInput: Status.INVALID_ARGUMENT,
    NotFound: Status.NOT_FOUND,
    AlreadyExists: Status.ALREADY_EXISTS,
    FailedPrecondition: Status.FAILED_PRECONDITION,
    AccessDenied: Status.PERMISSION_DENIED,
    Unavailable: Status.UNAVAILABLE,
    Corrupt: Status.DATA_LOSS,
    OutOfSpace: Status.RESOURCE_EXHAUSTED,
    Unsupported: Status.UNIMPLEMENTED,
}


def translated(error: Exception, method: str) -> GRPCError:
    """``error`` of ``method`` as the client gets it; an unforeseen one is logged and told calmly."""
    if isinstance(error, GRPCError):
        return error
    if isinstance(error, ImagecachedError):
        return GRPCError(STATUS.get(type(error), Status.INTERNAL), str(error))
    log.error("unforeseen error", extra={"method": method}, exc_info=error)
    return GRPCError(Status.INTERNAL, f"{method}: internal error; the daemon's log has the details")
