"""The daemon's configuration: one frozen :class:`Config`, read once, never reloaded.

``sections`` owns the keys, defaults, bounds and descriptions; ``sources`` the precedence and the refusals;
``text`` prints it. Invariants: a wrong value is refused with its source and key, never corrected silently;
units are in the names; no key holds a secret, only paths of files that do.
"""

from imagecached.config.sections import (
    CachesSection,
    Config,
    ContainerdSection,
    ControllerSection,
    DaemonSection,
    HttpSection,
    KubernetesSection,
    LimitsSection,
    LogSection,
    PullSection,
    RegistrySection,
    SnapshotterSection,
    StoreSection,
    split_address,
)
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
