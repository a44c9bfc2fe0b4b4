"""How a key says what it means."""

from __future__ import annotations

from typing import Final

from msgspec import Meta

KiB: Final = 1 << 10
MiB: Final = 1 << 20
GiB: Final = 1 << 30
SOCKET_PATH_BYTES: Final = 107  # sun_path of sockaddr_un, without its NUL


def says(text: str, *, ge: float | None = None, le: float | None = None, form: str = "") -> Meta:
    """What a key means, its bounds, and for text the form it must have."""
    return Meta(description=text, ge=ge, le=le, extra={"form": form} if form else None)
