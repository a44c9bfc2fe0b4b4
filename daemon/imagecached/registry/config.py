"""What the registry client must be told; the composition root fills it from the daemon's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagecached.errors import InvalidInput

if TYPE_CHECKING:
    from imagecached.config import RegistrySection

DEFAULT_CERTS_DIR: Final = Path("/etc/containerd/certs.d")


@dataclass(frozen=True, slots=True)
class Ranged:
    """A blob of at least ``threshold_bytes`` comes over ``connections`` at once, ``chunk_bytes`` per request.

    Memory per blob is bounded by ``connections * chunk_bytes``. One connection means one stream.
    """

    connections: int = 4
    chunk_bytes: int = 8 << 20
    threshold_bytes: int = 512 << 20

    def __post_init__(self) -> None:
        if self.connections < 1 or self.chunk_bytes < 1:
            raise InvalidInput("ranged reading needs at least one connection and chunks of at least one byte")


@dataclass(frozen=True, slots=True)
class Patience:
    """When to give up. ``attempts`` counts requests to the last source; a mirror before it gets one.

    Waits double from ``first_wait_seconds`` with full jitter. A ``Retry-After`` longer than
    ``retry_after_most_seconds`` is not waited for but handed to the caller. A body must bring
    ``least_bytes_per_second`` on average over ``read_seconds``.
    """

    attempts: int = 5
    first_wait_seconds: float = 0.5
    most_wait_seconds: float = 30.0
    retry_after_most_seconds: float = 60.0
    connect_seconds: float = 10.0
    read_seconds: float = 30.0
    least_bytes_per_second: int = 1024
    mirror_rest_seconds: float = 30.0  # a mirror that cannot be reached is left alone this long


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """``certs_dirs``: directories in containerd's certs.d layout, the first that knows a registry wins.

    ``auth_files``: docker ``config.json`` files, read anew for every token. ``plain_http`` and ``insecure``
    name hosts (``host`` or ``host:port``) that are spoken to without TLS, or with TLS and without
    verification.
    """

    certs_dirs: tuple[Path, ...] = (DEFAULT_CERTS_DIR,)
    auth_files: tuple[Path, ...] = ()
    plain_http: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    patience: Patience = field(default_factory=Patience)
    ranged: Ranged = field(default_factory=Ranged)
    helper_seconds: float = 10.0  # a credential helper that takes longer is killed
    connections_per_host: int = 16
    user_agent: str = "imagecached"

    @classmethod
    def of(cls, section: RegistrySection, ranged: Ranged | None = None) -> RegistryConfig:
        """What the configuration says: nodes and controller must find the same image."""
        return cls(
            certs_dirs=section.certs_dirs,
            auth_files=section.auth_files,
            plain_http=section.plain_http,
            insecure=section.insecure,
            patience=Patience(
                attempts=section.attempts,
                connect_seconds=section.connect_timeout_seconds,
                read_seconds=section.read_timeout_seconds,
            ),
            ranged=ranged or Ranged(),
        )
