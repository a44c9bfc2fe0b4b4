"""The daemon's configuration: one frozen :class:`Config`, read once, never reloaded.

``node``, ``images`` and ``cluster`` own the keys, defaults, bounds and descriptions, ``sections`` puts them
together; ``sources`` owns the precedence and the refusals; ``text`` prints it. Invariants: a wrong value is
refused with its source and key, never corrected silently; units are in the names; no key holds a secret, only
paths of files that do.
"""

from imagecached.config.cluster import ControllerSection, KubernetesSection
from imagecached.config.images import (
    CachesSection,
    LimitsSection,
    PullSection,
    RegistrySection,
    StoreSection,
)
from imagecached.config.node import (
    ContainerdSection,
    DaemonSection,
    HttpSection,
    LogSection,
    SnapshotterSection,
)
from imagecached.config.sections import Config, split_address
from imagecached.config.sources import DEFAULT_PATH, load
from imagecached.config.text import render

__all__ = [
    "DEFAULT_PATH",
    "CachesSection",
    "Config",
    "ContainerdSection",
    "ControllerSection",
    "DaemonSection",
    "HttpSection",
    "KubernetesSection",
    "LimitsSection",
    "LogSection",
    "PullSection",
    "RegistrySection",
    "SnapshotterSection",
    "StoreSection",
    "load",
    "render",
    "split_address",
]
