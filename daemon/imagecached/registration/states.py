"""How far the registration of an image is, for people and for readiness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

StateName = Literal["registered", "pending", "failed"]
STATES: Final[tuple[StateName, ...]] = get_args(StateName)


@dataclass(frozen=True, slots=True)
class RegistrationState:
    """``reason``: one line, empty when registered. ``pinned``: whether CRI keeps the image from the kubelet's
    garbage collection, None where no CRI was asked. ``since``: seconds since the epoch.
    """

    state: StateName
    reason: str
    pinned: bool | None
    since: float
