"""What a pod asks for: images, storage and annotations, from a pod or whatever holds a pod template.

Only what matching needs is looked at; the API server checks the rest. A value that makes no sense is a
warning and counts as not given: a pod must not fail because of an annotation that was to make it faster.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import msgspec

from imagecached.errors import InvalidInput
from imagecached.imagecache import annotations as keys
from imagecached.imagecache.findings import Findings, shown
from imagecached.imagecache.references import readable

DEFAULT_EPHEMERAL_GIB: Final = 30
MAX_CONTAINERS: Final = 200
_GIB: Final = 1 << 30
_MAX_COUNT: Final = 1000
_QUANTITY: Final = re.compile(
    r"\+?([0-9]{1,15}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})(|[KMGTPE]i|[kMGTPE]|[eE][0-9]{1,2}|m)"
)
_POWERS: Final = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_TEMPLATE: Final[Mapping[str, tuple[str, ...]]] = {
    "Pod": (),
    "Revision": (),
    "PodTemplate": ("template",),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "Service": ("spec", "template"),
    "Configuration": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
"""Kind → where its pod template is. ``Service`` and ``Configuration`` are Knative's."""
_KNATIVE: Final = ("Service", "Configuration", "Revision")

T = TypeVar("T")


class _Resources(msgspec.Struct):
    requests: dict[str, Any] | None = None


class _Container(msgspec.Struct, rename="camel"):
    name: str = ""
    image: str | None = None
    image_pull_policy: str | None = None
    resources: _Resources | None = None


class _Secret(msgspec.Struct):
    name: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    image_pull_secrets: list[_Secret] | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    annotations: dict[str, str] | None = None


class _Template(msgspec.Struct):
    metadata: _Metadata | None = None
    spec: _Spec | None = None


@dataclass(frozen=True, slots=True)
class PodImages:
    """One pod, as far as matching goes.

    ``images``: each image once, as written, containers before init containers (both count: a pod starts when
    all of them are there). Ephemeral containers do not: they are added to pods that run already.
    ``explicit``: exactly this cache, by id or name; it overrules ``auto``. ``perfect`` overrules ``count``.
    """

    kind: str
    namespace: str
    name: str
    images: tuple[str, ...]
    auto: bool = False
    explicit: str = ""
    perfect: bool = False
    count: int = 0
    ephemeral_gib: float = DEFAULT_EPHEMERAL_GIB
    pull_secrets: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Any, *, default_gib: int = DEFAULT_EPHEMERAL_GIB) -> PodImages:
        """From a Pod, a PodTemplate, or a workload of Kubernetes or Knative. InvalidInput: none of these."""
        kind = _kind(document)
        template, owner = _template(document, kind), _converted(document, _Template, kind)
        metadata, spec = template.metadata or _Metadata(), template.spec or _Spec()
        if not spec.containers:
            raise InvalidInput(f"{kind}: its pod has no containers")
        named = owner.metadata or metadata
        reader = _Reader(metadata.annotations or {}, kind)
        containers = [*(spec.containers or []), *(spec.init_containers or [])]
        if len(containers) > MAX_CONTAINERS:
            raise InvalidInput(f"{kind}: more than {MAX_CONTAINERS} containers")
        pod = cls(
            kind=kind,
            namespace=named.namespace or metadata.namespace,
            name=named.name or named.generate_name,
            images=tuple(dict.fromkeys(container.image for container in containers if container.image)),
            auto=reader.first(keys.AUTO_MATCH, False, keys.flag),  # noqa: FBT003  the default value
            explicit=reader.first(keys.EXPLICIT_ID, "", str.strip),
            perfect=reader.value(keys.PERFECT_MATCH, False, keys.flag),  # noqa: FBT003  the default value
            count=reader.value(keys.MATCH_COUNT, 0, keys.whole_number(1, _MAX_COUNT)),
            ephemeral_gib=_ephemeral(reader, spec, default_gib),
            pull_secrets=tuple(secret.name for secret in spec.image_pull_secrets or [] if secret.name),
            always=tuple(dict.fromkeys(_always(containers))),
        )
        return replace(pod, warnings=(*reader.warnings(), *misplaced(document)))


def misplaced(document: Any) -> tuple[str, ...]:
    """Warnings for annotations on a workload itself: only those of its pod template have an effect."""
    kind = _kind(document)
    path = _TEMPLATE[kind]
    if not path:
        return ()
    owner = _converted(document, _Template, kind).metadata
    place = ".".join((*path, "metadata.annotations"))
    return tuple(
        f"{key} on the {kind} itself has no effect: write it into {place}"
        for key in (owner.annotations if owner and owner.annotations else {})
        if key in keys.ON_PODS
    )


def quantity(text: str) -> float:
    """A Kubernetes quantity such as ``20Gi``, as a number. InvalidInput."""
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidInput("must be a quantity such as 20Gi")
    number, suffix = float(match[1]), match[2]
    if suffix == "m":
        return number / 1000
    if suffix[:1] in ("e", "E") and suffix[1:].isdecimal():
        return number * 10.0 ** int(suffix[1:])
    return number * float((1024 if suffix.endswith("i") else 1000) ** _POWERS.get(suffix[:1], 0))


def whole_gib(gib: float) -> int:
    """Rounded up."""
    return math.ceil(gib)


class _Reader:
    """The pod's annotations; what is odd about them becomes warnings."""

    def __init__(self, annotations: Mapping[str, str], kind: str) -> None:
        self._findings = Findings("")
        self._reader = keys.Annotations(annotations, "", self._findings)
        for key in annotations:
            if key in keys.CACHES_ONLY:
                self._findings.warn(key, f"has no effect on a {kind}: it belongs on an ImageCache")

    def value(self, key: str, default: T, parse: Callable[[str], T]) -> T:
        return self._reader.value(key, default, parse)

    def first(self, spellings: tuple[str, ...], default: T, parse: Callable[[str], T]) -> T:
        found = self._reader.first(spellings)
        return default if found is None else self.value(found[0], default, parse)

    def warnings(self) -> Iterator[str]:
        for problem in self._findings.problems:
            yield f"{problem.where.strip('[]')} {problem.message}; it is ignored"
        for warning in self._findings.warnings:
            yield f"{warning.where.strip('[]')}: {warning.message}"


def _kind(document: Any) -> str:
    kind = document.get("kind") if isinstance(document, Mapping) else None
    if not isinstance(kind, str) or kind not in _TEMPLATE:
        raise InvalidInput(f"kind: must be one of {', '.join(sorted(_TEMPLATE))}, not {shown(kind)}")
    group = str(document.get("apiVersion", ""))
    if kind in _KNATIVE and not group.startswith("serving.knative.dev/"):
        raise InvalidInput(
            f"apiVersion: a {kind} has pods only in serving.knative.dev, not in {shown(group)}"
        )
    return kind


def _template(document: Any, kind: str) -> _Template:
    found = document
    for field in _TEMPLATE[kind]:
        found = found.get(field) if isinstance(found, Mapping) else None
        if found is None:
            raise InvalidInput(f"{kind}: {'.'.join(_TEMPLATE[kind])} is missing")
    return _converted(found, _Template, kind)


def _converted(value: Any, kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{where}: {error}") from error


def _ephemeral(reader: _Reader, spec: _Spec, default_gib: int) -> float:
    """The default and what is asked for beyond it, by annotation or by requests: the larger of the two."""
    extra = reader.value(keys.EXTRA_STORAGE, 0.0, quantity) / _GIB
    together = sum(_request(container) for container in spec.containers or [])
    alone = max((_request(container) for container in spec.init_containers or []), default=0.0)
    return default_gib + max(extra, max(together, alone) / _GIB - default_gib, 0.0)


def _request(container: _Container) -> float:
    requests = (container.resources or _Resources()).requests or {}
    try:
        return quantity(str(requests.get("ephemeral-storage", "0")))
    except InvalidInput:
        return 0.0  # the API server refuses it


def _always(containers: list[_Container]) -> Iterator[str]:
    """Images that the kubelet will ask the registry for although they are there; ``latest`` by default."""
    references = readable(container.image for container in containers if container.image)
    for container in containers:
        reference = references.get(container.image or "")
        if reference is not None:
            by_default = "Always" if not reference.digest and reference.tag == "latest" else "IfNotPresent"
            if (container.image_pull_policy or by_default) == "Always":
                yield container.image or ""
