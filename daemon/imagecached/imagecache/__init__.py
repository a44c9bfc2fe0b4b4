"""The ImageCache as a pure noun: what is declared, how far it is, which one a pod gets, when it goes.

No I/O, no clock, no asyncio: values in, values out. Files, the API and the cluster use the same model, so
that they cannot disagree. What only matching needs is loaded when it is first used: few nodes need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from imagecached.imagecache import phases
from imagecached.imagecache.documents import parse_object, read_cache
from imagecached.imagecache.findings import Findings, Problem
from imagecached.imagecache.ids import (
    EVERYBODY,
    automatic_name,
    cache_id,
    is_cache_id,
    rollout_rank,
    uid_of_name,
)
from imagecached.imagecache.manifests import Parsed, ParsedPods, parse_manifests, parse_pods
from imagecached.imagecache.model import API_VERSION, KIND, ImageCache, Options, SecretName, Toleration
from imagecached.imagecache.retention import Kept, Quota, Removal, due, expiry, surplus
from imagecached.imagecache.status import (
    MAX_EVENTS,
    PHASES,
    Bytes,
    CacheEvent,
    Condition,
    ImageStatus,
    Phase,
    Status,
)
from imagecached.imagecache.wire import parse_status, status_document, timestamp

if TYPE_CHECKING:
    from imagecached.imagecache.automatic import Creation, as_written
    from imagecached.imagecache.candidates import Candidate, Candidates
    from imagecached.imagecache.matching import Decision, Limits, Verdict, match, match_indexed
    from imagecached.imagecache.pods import PodImages, misplaced

__all__ = [
    "API_VERSION",
    "EVERYBODY",
    "KIND",
    "MAX_EVENTS",
    "PHASES",
    "Bytes",
    "CacheEvent",
    "Candidate",
    "Candidates",
    "Condition",
    "Creation",
    "Decision",
    "Findings",
    "ImageCache",
    "ImageStatus",
    "Kept",
    "Limits",
    "Options",
    "Parsed",
    "ParsedPods",
    "Phase",
    "PodImages",
    "Problem",
    "Quota",
    "Removal",
    "SecretName",
    "Status",
    "Toleration",
    "Verdict",
    "as_written",
    "automatic_name",
    "cache_id",
    "due",
    "expiry",
    "is_cache_id",
    "match",
    "match_indexed",
    "misplaced",
    "parse_manifests",
    "parse_object",
    "parse_pods",
    "parse_status",
    "phases",
    "read_cache",
    "rollout_rank",
    "status_document",
    "surplus",
    "timestamp",
    "uid_of_name",
]

_LATER: Final = {
    "Candidate": "candidates",
    "Candidates": "candidates",
    "Creation": "automatic",
    "Decision": "matching",
    "Limits": "matching",
    "PodImages": "pods",
    "Verdict": "matching",
    "as_written": "automatic",
    "match": "matching",
    "match_indexed": "matching",
    "misplaced": "pods",
}


def __getattr__(name: str) -> Any:
    """One of the names that come later (PEP 562)."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
