"""The declared object: what somebody wants to have ready. Values; :mod:`documents` makes and checks them.

Times are seconds since the epoch, and are always passed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from imagecached.imagecache.ids import build_key, cache_id
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference

API_VERSION: Final = "eci.alibabacloud.com/v1"
KIND: Final = "ImageCache"
MAX_IMAGES: Final = 20
MIN_SIZE_GIB: Final = 20
MAX_SIZE_GIB: Final = 32768
DEFAULT_SIZE_GIB: Final = 20
MAX_RETENTION_DAYS: Final = 65536

Effect = Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"]


@dataclass(frozen=True, slots=True)
class SecretName:
    """A pull Secret; written ``namespace:name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}:{self.name}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """As in a pod's spec: which taints of a node do not keep the cache away from it."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: Effect = ""

    def tolerates(self, key: str, value: str, effect: str) -> bool:
        """Does this toleration let the taint pass? The rules are Kubernetes'."""
        if self.effect and self.effect != effect:
            return False
        if self.key and self.key != key:
            return False
        return self.operator == "Exists" or (self.key == key and self.value == value)


@dataclass(frozen=True, slots=True)
class Options:
    """What annotations and labels say, whichever spelling they use.

    ``reuse`` is accepted and means nothing here: layers are always shared. ``platform`` None: each node's
    own. ``refresh``: another text asks for another build. ``lru``: this cache, though made by a person, may
    be deleted as the longest unused when there are too many. ``automatic``: made for a pod that found none.
    """

    reuse: bool = False
    flash: bool = False
    plain_http: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    platform: Platform | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict, hash=False)
    tolerations: tuple[Toleration, ...] = ()
    refresh: str = ""
    lru: bool = False
    automatic: bool = False


@dataclass(frozen=True, slots=True)
class ImageCache:
    """One declared cache. ``images`` as written, each a valid reference, no two of them the same image.

    ``generation`` is the API server's (0 in a file) and moves with any edit of the spec; what a *build*
    depends on is :attr:`build`. ``created`` is 0 in a file: whoever keeps the cache knows since when.
    ``ignored``: what the document says to no effect, a line each.
    """

    name: str
    uid: str
    images: tuple[str, ...]
    generation: int = 0
    created: float = 0.0
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    pull_secrets: tuple[SecretName, ...] = ()
    size_gib: int = DEFAULT_SIZE_GIB
    retention_days: int | None = None
    options: Options = Options()
    ignored: tuple[str, ...] = field(default=(), compare=False)

    @property
    def id(self) -> str:
        """``imc-…``."""
        return cache_id(self.uid)

    @property
    def references(self) -> tuple[Reference, ...]:
        """The images, parsed."""
        return tuple(Reference.parse(image) for image in self.images)

    @property
    def build(self) -> str:
        """What a generation of images is built from: images, platform and the refresh annotation.

        While this text stays the same nothing is built anew, whatever else is edited.
        """
        images = sorted(str(reference) for reference in self.references)
        return build_key(str(self.options.platform or ""), self.options.refresh, *images)
