"""What the nodes report: NodeImageCache objects cut down to what the controller asks of them. Pure.

Thousands of nodes report hundreds of caches each, nearly all of them the same: equal reports are one object.
Objects may bypass every schema: an entry that makes no sense counts as not there, and never hides another.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import PHASES, Phase
from imagecached.kube.shared import Shared

_MOST_TEXT: Final = 300
_MOST_CACHES: Final = 4096  # entries of one node that are looked at
_MOST_NUMBER: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class CacheReport:
    """One cache on one node. ``generation``: the build it is at; ``serving``: the one that pods
    get, 0 none.
    """

    uid: str
    generation: int
    phase: Phase
    serving: int = 0
    total: int = 0
    done: int = 0
    reused: int = 0
    fetched: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node; ``uid`` of the NodeImageCache. ``handler``: pods of our RuntimeClass can run there."""

    name: str
    uid: str
    handler: bool
    caches: Mapping[str, CacheReport] = field(hash=False)

    def changed(self, before: NodeReport | None) -> set[str]:
        """Names of the caches that are reported otherwise than ``before``."""
        old = {} if before is None else before.caches
        if len(old) == len(self.caches):
            return {name for name, report in self.caches.items() if old.get(name) is not report}
        return {
            name for name in old.keys() | self.caches.keys() if old.get(name) is not self.caches.get(name)
        }


class Reader:
    """Makes :class:`NodeReport` of API objects."""

    def __init__(self) -> None:
        self._shared: Shared[CacheReport] = Shared()

    def read(self, document: Mapping[str, Any]) -> NodeReport:
        """The report in a NodeImageCache. InvalidInput: it has no name."""
        metadata, status = _mapping(document.get("metadata")), _mapping(document.get("status"))
        name = metadata.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidInput("a NodeImageCache without metadata.name")
        listed = status.get("caches")
        caches = {}
        for entry in listed[:_MOST_CACHES] if isinstance(listed, list) else []:
            cache = _text(entry.get("name")) if isinstance(entry, Mapping) else ""
            report = _cache(entry) if cache else None
            if report is not None:
                caches[sys.intern(cache)] = self._shared.of(report)
        return NodeReport(
            sys.intern(name), _text(metadata.get("uid")), status.get("handlerReady") is True, caches
        )


def _cache(entry: Mapping[str, Any]) -> CacheReport | None:
    uid, phase = _text(entry.get("uid")), entry.get("phase")
    if not uid or phase not in PHASES:
        return None
    return CacheReport(
        uid=sys.intern(uid),
        generation=_number(entry.get("generation")),
        phase=phase,
        serving=_number(entry.get("servingGeneration")),
        total=_number(entry.get("bytesTotal")),
        done=_number(entry.get("bytesDone")),
        reused=_number(entry.get("bytesReused")),
        fetched=_number(entry.get("bytesFetched")),
        reason=_text(entry.get("reason")),
        message=_text(entry.get("message")),
    )


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _text(found: Any) -> str:
    return found[:_MOST_TEXT] if isinstance(found, str) else ""


def _number(found: Any) -> int:
    plain = isinstance(found, int) and not isinstance(found, bool)
    return min(max(0, found), _MOST_NUMBER) if plain else 0
