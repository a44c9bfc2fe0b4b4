"""gRPC codes → the error classes: one table, tested to be total over the codes."""

from __future__ import annotations

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

ERRORS: Final[dict[Status, type[ImagecachedError]]] = {
    Status.OK: ImagecachedError,  # a failure that claims to be none
    Status.CANCELLED: Unavailable,
    Status.UNKNOWN: ImagecachedError,
    Status.INVALID_ARGUMENT: InvalidInput,
    Status.DEADLINE_EXCEEDED: Unavailable,
    Status.NOT_FOUND: NotFound,
    Status.ALREADY_EXISTS: AlreadyExists,
    Status.PERMISSION_DENIED: AccessDenied,
    Status.RESOURCE_EXHAUSTED: Unavailable,
    Status.FAILED_PRECONDITION: FailedPrecondition,
    Status.ABORTED: Unavailable,
    Status.OUT_OF_RANGE: FailedPrecondition,
    Status.UNIMPLEMENTED: Unsupported,
    Status.INTERNAL: ImagecachedError,
    Status.UNAVAILABLE: Unavailable,
    Status.DATA_LOSS: Corrupt,
    Status.UNAUTHENTICATED: AccessDenied,
}
_MOST_WORDS: Final = 500
# What containerd says of its disk comes without a code of its own.
_NO_SPACE: Final = "no space left on device"
_CLOSED: Final = ("is closing", "stream terminated", "server stopped")


def translated(error: GRPCError, method: str) -> ImagecachedError:
    """``error`` of ``method`` as one of ours."""
    words = " ".join((error.message or error.status.name).split())[:_MOST_WORDS]
    if _NO_SPACE in words:
        return OutOfSpace(f"containerd {method}: {words}")
    kind = ERRORS.get(error.status, ImagecachedError)
    if kind is ImagecachedError and any(closed in words for closed in _CLOSED):
        kind = Unavailable
    return kind(f"containerd {method}: {words}")
