"""The only outbound HTTP for images: mirrors, challenges, tokens, redirects, retries, resume, ranged fetch.

The door is :class:`Registry`. Level by level: ``config``, ``access``, ``addresses``, ``endpoints``,
``hosts``, ``tls``, ``proxies`` → ``transport`` (one request) → ``challenges``, ``credentials``, ``auth`` →
``exchange`` (which server) → ``resolve`` (documents), ``fetch`` and ``ranged`` (blobs) → ``client``.
"""

from __future__ import annotations

from imagecached.registry.access import NOTHING, Access, access_of
from imagecached.registry.client import Registry
from imagecached.registry.config import Patience, Ranged, RegistryConfig
from imagecached.registry.resolve import Resolved

__all__ = [
    "NOTHING",
    "Access",
    "Patience",
    "Ranged",
    "Registry",
    "RegistryConfig",
    "Resolved",
    "access_of",
]
