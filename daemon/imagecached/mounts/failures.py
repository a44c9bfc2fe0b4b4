"""One table: what a failed system call on mounts means to the caller."""

from __future__ import annotations

import errno
from typing import Final

from imagecached.errors import (
    AccessDenied,
    FailedPrecondition,
    ImagecachedError,
    NotFound,
    OutOfSpace,
    Unavailable,
    Unsupported,
)

_CLASSES: Final[dict[int, type[ImagecachedError]]] = {
    errno.EPERM: AccessDenied,
    errno.EACCES: AccessDenied,
    errno.EBUSY: FailedPrecondition,
    errno.ENOENT: NotFound,
    errno.ENOSPC: OutOfSpace,
    errno.EDQUOT: OutOfSpace,
    errno.ENOMEM: Unavailable,
    errno.ENODEV: Unsupported,
    errno.EINVAL: Unsupported,
    errno.ELOOP: Unsupported,
}


def translated(error: OSError, what: str) -> ImagecachedError:
    """``error`` as one of ours; ``what``: the verb and its object, as in "mount 3 layers"."""
    kind = _CLASSES.get(error.errno or 0, ImagecachedError)
    return kind(f"cannot {what}: {error.strerror or error}")
