"""Every error this program raises on purpose, classed by what the caller should do about it.

    ImagecachedError
    ├── InvalidInput          the request is wrong: correct it, never retry
    ├── NotFound              no such thing: the caller decides
    ├── AlreadyExists         it is there already: the caller decides
    ├── FailedPrecondition    in use, has children, wrong kind: the caller decides
    ├── AccessDenied          credentials are missing or refused: correct them, retry slowly
    ├── Unavailable           network, 429, 5xx: retry with backoff (after ``retry_after``)
    ├── Corrupt               bytes are not what was promised: another source, then stop
    ├── OutOfSpace            disk or quota: free some, then retry
    └── Unsupported           media type, format, kernel: never retry

A new class needs a new *reaction*. Numbers of protocols (exit codes, HTTP, gRPC) live in tables at the edges,
each tested to be total over :data:`ERROR_CLASSES`. Messages are one line, name what and where, and hold no
secret.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take the client longer than all of its work
if TYPE_CHECKING:
    from typing import ClassVar


class ImagecachedError(Exception):
    """Base of all; ``kind`` is the stable name used on the wire."""

    kind: ClassVar[str] = "failed"
    retryable: ClassVar[bool] = False


class InvalidInput(ImagecachedError):
    kind = "invalid_input"


class NotFound(ImagecachedError):
    kind = "not_found"


class AlreadyExists(ImagecachedError):
    kind = "already_exists"


class FailedPrecondition(ImagecachedError):
    kind = "failed_precondition"


class AccessDenied(ImagecachedError):
    kind = "access_denied"


class Unavailable(ImagecachedError):
    """``retry_after``: seconds the other side asked us to wait, or None."""

    kind = "unavailable"
    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Corrupt(ImagecachedError):
    kind = "corrupt"


class OutOfSpace(ImagecachedError):
    kind = "out_of_space"
    retryable = True


class Unsupported(ImagecachedError):
    kind = "unsupported"


ERROR_CLASSES: tuple[type[ImagecachedError], ...] = (
    ImagecachedError,
    InvalidInput,
    NotFound,
    AlreadyExists,
    FailedPrecondition,
    AccessDenied,
    Unavailable,
    Corrupt,
    OutOfSpace,
    Unsupported,
)
