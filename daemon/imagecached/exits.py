"""Exit codes of both programs: one table from the kind of an error, total over the error classes.

Part of the stable surface.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take the client longer than all of its work
if TYPE_CHECKING:
    from typing import Final

DONE: Final = 0
FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130

EXIT_CODES: Final[dict[str, int]] = {
    "failed": FAILED,
    "invalid_input": USAGE,
    "not_found": 3,
    "already_exists": FAILED,
    "failed_precondition": FAILED,
    "access_denied": 4,
    "corrupt": 5,
    "out_of_space": 6,
    "unavailable": 7,
    "unsupported": 8,
}
"""Kind (``ImagecachedError.kind``) → exit code."""
