"""What the cluster wants of this node: ImageCache objects and our Node → declarations. Pure.

Objects may bypass every schema. One that cannot be read, or that the controller has not dealt with yet, takes
nothing away: what was declared before stands, and what this node holds of it stays. Times of objects decide
nothing, so neither does a clock that is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import (
    EVERYBODY,
    ImageCache,
    ImageStatus,
    Status,
    parse_object,
    parse_status,
    phases,
    rollout_rank,
)
from imagecached.kube.nodes import Node, selects

_META: Final = frozenset(
    "name uid resourceVersion generation creationTimestamp deletionTimestamp annotations labels".split()
)
_STATUS: Final = frozenset(
    "phase generation build images rolloutWindow nodesTotal observedGeneration servingGeneration".split()
)
_CORDONED: Final = "node.kubernetes.io/unschedulable"
_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


def keep_cache(document: dict[str, Any]) -> dict[str, Any]:
    """What of an ImageCache stays in memory: without history, managed fields and what kubectl remembers."""
    kept: dict[str, Any] = {key: document[key] for key in ("apiVersion", "kind", "spec") if key in document}
    metadata = {key: value for key, value in _mapping(document.get("metadata")).items() if key in _META}
    annotations = metadata.get("annotations")
    if isinstance(annotations, Mapping) and _APPLIED in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _APPLIED}
    found = _mapping(document.get("status"))
    needed = _STATUS | {"serving"} if found.get("phase") == "UpdateFailed" else _STATUS
    status = {key: value for key, value in found.items() if key in needed}
    return {**kept, "metadata": metadata, "status": status}


def keep_node(document: dict[str, Any]) -> dict[str, Any]:
    """What of our Node stays in memory: what chooses it. Its heartbeats and images do not."""
    metadata = _mapping(document.get("metadata"))
    return {
        "metadata": {key: metadata.get(key) for key in ("name", "uid", "resourceVersion", "labels")},
        "spec": {key: value for key, value in _mapping(document.get("spec")).items() if key != "podCIDRs"},
        "status": {"nodeInfo": _mapping(document.get("status")).get("nodeInfo")},
    }


@dataclass(frozen=True, slots=True)
class Wish:
    """A build that this node is to have. ``digests``: image as written → ``repository@digest``.

    ``given_up``: the controller has, as it failed wherever it was tried.
    """

    cache: ImageCache
    generation: int
    digests: Mapping[str, str] = field(hash=False)
    origin: str = ""
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """One object, read. ``problem``: why it cannot be, there is no ``cache`` then.

    ``wish``: the build that the controller has resolved, None before; ``window``: how many may begin it.
    ``nodes``: how many nodes the cache is for. ``going``: it is being deleted.
    """

    name: str
    uid: str
    cache: ImageCache | None = None
    wish: Wish | None = None
    window: int = 0
    nodes: int = 0
    problem: str = ""
    going: bool = False

    @property
    def origin(self) -> str:
        """What declares it, for people."""
        return _origin(self.name)

    def turn(self, node: str) -> Wish | None:
        """The build, if it is the turn of ``node``."""
        if self.wish is None or self.window >= EVERYBODY:
            return self.wish
        rank = rollout_rank(self.uid, self.wish.generation, node)
        return self.wish if rank < self.window else None


def read(document: Mapping[str, Any]) -> Seen:
    """The object in a document, however wrong."""
    metadata = _mapping(document.get("metadata"))
    name, uid = str(metadata.get("name", "")), str(metadata.get("uid", ""))
    going = metadata.get("deletionTimestamp") is not None
    try:
        cache, status = parse_object(document), parse_status(_mapping(document.get("status")))
    except InvalidInput as error:
        return Seen(name, uid, problem=str(error), going=going)
    wish, window = _wish(cache, status, _origin(name)), status.rollout_window
    if status.phase == "UpdateFailed":
        window = EVERYBODY  # nothing is rolled out: it was, before the update
    return Seen(name, uid, cache, wish, window, status.nodes_total, going=going)


def _origin(name: str) -> str:
    return f"ImageCache {name}"


def _wish(cache: ImageCache, status: Status, origin: str) -> Wish | None:
    """What nodes are to have: the build, or after an update that failed what serves."""
    if phases.needs_build(cache, status):
        return None  # edited, and the controller has not looked yet
    if status.phase == "UpdateFailed" and status.serving:
        served = replace(cache, images=tuple(image.image for image in status.serving))
        return _resolved(served, status.serving, Wish(served, status.serving_generation, {}, origin))
    wish = Wish(cache, status.generation, {}, origin, given_up=status.phase in ("Failed", "UpdateFailed"))
    return _resolved(cache, status.images, wish)


def _resolved(cache: ImageCache, images: Iterable[ImageStatus], wish: Wish) -> Wish | None:
    """The wish with its digests; None while one is missing."""
    resolved = {image.image: image.digest for image in images}
    digests = {}
    for image, reference in zip(cache.images, cache.references, strict=True):
        digest = resolved.get(image)
        if digest is None:
            return None
        digests[image] = str(reference.at(digest))
    return replace(wish, digests=digests)


@dataclass(frozen=True, slots=True)
class Wishes:
    """By uid. ``unclear``: origins about which nothing can be said now; what they declared before stands."""

    wanted: Mapping[str, Wish]
    unclear: frozenset[str]


def wishes_of(seen: Mapping[str, Seen], node: Node, before: Mapping[str, Wish]) -> Wishes:
    """What is wanted of ``node``. A build for which its turn has not come leaves the one ``before`` alone.

    A node that is cordoned begins nothing, and keeps what it has: it is drained for an hour's work, and comes
    back.
    """
    uncordoned = _uncordoned(node)
    wanted: dict[str, Wish] = {}
    unclear: set[str] = set()
    for uid, one in seen.items():
        if one.going:
            continue
        if one.cache is not None and not selects(one.cache.options, node):
            if selects(one.cache.options, uncordoned):
                unclear.add(one.origin)
            continue
        wish = one.turn(node.name) or before.get(uid)
        if wish is None:
            unclear.add(one.origin)
        else:
            wanted[uid] = wish
    return Wishes(wanted, frozenset(unclear))


def _uncordoned(node: Node) -> Node:
    return replace(
        node, schedulable=True, taints=tuple(taint for taint in node.taints if taint.key != _CORDONED)
    )


class Reader:
    """Reads each version of an object once, and says each problem once."""

    def __init__(self, on_problem: Callable[[Seen], None]) -> None:
        self._on_problem = on_problem
        self._read: dict[str, tuple[str, Seen]] = {}

    def read(self, documents: Mapping[Any, Mapping[str, Any]]) -> dict[str, Seen]:
        """All objects by uid; those without one are left out, as nothing could refer to them."""
        found: dict[str, tuple[str, Seen]] = {}
        for document in documents.values():
            metadata = _mapping(document.get("metadata"))
            uid, version = str(metadata.get("uid", "")), str(metadata.get("resourceVersion", ""))
            known = self._read.get(uid)
            if known is None or known[0] != version:
                known = version, read(document)
                if known[1].problem:
                    self._on_problem(known[1])
            if uid:
                found[uid] = known
        self._read = found
        return {uid: seen for uid, (_, seen) in found.items()}


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}
