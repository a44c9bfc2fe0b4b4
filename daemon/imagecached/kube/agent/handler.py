"""Can containerd start pods from our snapshots? Read from the configuration that its CRI runs with. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

HANDLER: Final = "imagecached"
_MOST_BYTES: Final = 4 << 20


def has_handler(info: Mapping[str, str], snapshotter: str) -> bool:
    """``info``: of CRI's verbose Status. Is our runtime handler there, and does it use ``snapshotter``?"""
    containerd = _mapping(_decoded(info.get("config", "")).get("containerd"))
    runtime = _mapping(containerd.get("runtimes")).get(HANDLER)
    if not isinstance(runtime, Mapping):
        return False
    return (runtime.get("snapshotter") or containerd.get("snapshotter")) == snapshotter


def _decoded(text: str) -> Mapping[str, Any]:
    if len(text) > _MOST_BYTES:
        return {}
    try:
        return _mapping(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        return {}


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
