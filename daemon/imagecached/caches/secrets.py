"""Pull secrets of a machine without Kubernetes: ``imagePullSecrets: ["namespace:name"]`` is a file here.

``<folder>/<namespace>/<name>`` holds what the Secret would hold below ``.dockerconfigjson``. Files are read
when a build begins, so rotated secrets need no restart. Names were checked with the manifest: they lead to no
other folder.
"""

from __future__ import annotations

from pathlib import Path

from imagecached.errors import AccessDenied
from imagecached.imagecache import ImageCache
from imagecached.registry import Access, access_of
from imagecached.registry.access import SECRET_BYTES


def read_access(cache: ImageCache, folder: Path) -> Access:
    """What ``cache`` may use. AccessDenied names a file that cannot be read, InvalidInput a broken one."""
    files = [(name, folder / name.namespace / name.name) for name in cache.pull_secrets]
    secrets = [(f"pull secret {name}", _read(file)) for name, file in files]
    return access_of(secrets, cache.options.plain_http, cache.options.insecure)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(SECRET_BYTES + 1)
    except OSError as error:
        raise AccessDenied(f"pull secret {file}: {error.strerror}") from error
