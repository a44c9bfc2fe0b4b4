"""How far a cache is: the status as a value. :mod:`phases` changes it, :mod:`wire` writes it down.

Times are whole seconds since the epoch, because that is what a Kubernetes object can hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from imagecached.oci.digest import Digest

Phase: TypeAlias = Literal["Pending", "Creating", "Ready", "Failed", "Updating", "UpdateFailed"]
PHASES: Final[tuple[Phase, ...]] = ("Pending", "Creating", "Ready", "Failed", "Updating", "UpdateFailed")

EventType: TypeAlias = Literal["Normal", "Warning"]
ConditionStatus: TypeAlias = Literal["True", "False", "Unknown"]
MAX_EVENTS: Final = 50


@dataclass(frozen=True, slots=True)
class ImageStatus:
    """One image of one generation. ``image`` as written in the spec.

    ``digest``: what the reference named when it was resolved, index or manifest. ``manifest_digests``: the
    platforms' manifests that nodes use. ``bytes``: unpacked, 0 while nobody knows.
    """

    image: str
    digest: Digest | None = None
    manifest_digests: tuple[Digest, ...] = ()
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Condition:
    """A Kubernetes condition; ``last_transition_time`` moves only when ``status`` does."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""
    last_transition_time: float = 0.0
    observed_generation: int = 0


@dataclass(frozen=True, slots=True)
class CacheEvent:
    """What happened: ``name`` is one constant word, ``timestamp`` that of the last of ``count`` times."""

    name: str
    message: str
    type: EventType
    timestamp: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Bytes:
    """What a build has to bring, and how much is here: ``done`` is ``reused`` and ``fetched`` so far."""

    total: int = 0
    done: int = 0
    reused: int = 0
    fetched: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything ``kubectl describe imagecache`` shows below the spec.

    ``observed_generation`` is the object's own generation that was last looked at. ``generation`` counts the
    builds: ``images`` belongs to it, nodes report it, and it moves when ``build`` (:attr:`ImageCache.build`)
    does. ``serving`` is what pods get meanwhile, of ``serving_generation``: empty until a build is done.
    """

    phase: Phase = "Pending"
    progress: str = "0%"
    image_cache_id: str = ""
    start_time: float | None = None
    last_updated_time: float | None = None
    expire_date_time: float | None = None
    reason: str = ""
    message: str = ""
    events: tuple[CacheEvent, ...] = ()
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0
    generation: int = 0
    build: str = ""
    images: tuple[ImageStatus, ...] = ()
    serving_generation: int = 0
    serving: tuple[ImageStatus, ...] = ()
    bytes: Bytes = Bytes()
    nodes_ready: int = 0
    nodes_total: int = 0
    rollout_window: int = 0
    last_matched_time: float | None = None
    drifted_images: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """May a pod use it? The old generation serves while a new one is built, and when that fails."""
        return bool(self.serving) and self.phase in ("Ready", "Updating", "UpdateFailed")

    def condition(self, kind: str) -> Condition | None:
        """The condition of this type."""
        return next((condition for condition in self.conditions if condition.type == kind), None)
