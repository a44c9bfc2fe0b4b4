"""The configuration, section by section, as what each part of the daemon must be told.

Looks at the machine where a value depends on it: the size of the disk, processors, platform. Keeps nothing.
"""

from __future__ import annotations

import os

from imagecached.caches import Settings
from imagecached.config import Config, LimitsSection
from imagecached.imagecache import Quota
from imagecached.images import PullSettings
from imagecached.layers.limits import Limits
from imagecached.oci.platform import Platform
from imagecached.registry import Ranged, RegistryConfig
from imagecached.store import StorePolicy


def store_policy(config: Config) -> StorePolicy:
    """The store's bounds on the file system that holds the root (or will)."""
    place = config.daemon.root
    while not place.exists():
        place = place.parent
    disk = os.statvfs(place)
    section = config.store
    return StorePolicy(
        quota_bytes=section.quota_bytes,
        free_bytes=section.free_of(disk.f_blocks * disk.f_frsize),
        gc_high=section.gc_high_percent / 100,
        gc_low=section.gc_low_percent / 100,
    )


def registry_config(config: Config) -> RegistryConfig:
    """How registries are reached."""
    pull = config.pull
    ranged = Ranged(pull.ranged_connections, pull.ranged_chunk_bytes, pull.ranged_threshold_bytes)
    return RegistryConfig.of(config.registry, ranged)


def pull_settings(config: Config) -> PullSettings:
    """How much is pulled at once, and for which platform."""
    pull = config.pull
    return PullSettings(
        images_at_once=pull.images_at_once,
        layers_at_once=pull.layers_at_once or max(2, len(os.sched_getaffinity(0))),
        platform=Platform.parse(pull.platform) if pull.platform else Platform.host(),
        limits=_limits(config.limits),
    )


def cache_settings(config: Config) -> Settings:
    """How ImageCaches are tended."""
    section = config.caches
    return Settings(
        at_once=section.at_once,
        compare_seconds=section.compare_interval_seconds,
        automatic=section.automatic,
        quota=Quota(manual=section.most_manual, automatic=section.most_automatic),
        secrets_dir=section.secrets_dir,
    )


def _limits(section: LimitsSection) -> Limits:
    return Limits(**{name: getattr(section, name) for name in section.__struct_fields__})
