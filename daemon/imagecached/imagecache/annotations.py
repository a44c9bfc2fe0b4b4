"""Every annotation and label that means something here, in all its spellings, and how values are read.

ECI gave some of them up to three names over the years, and one name two meanings: ``eci-image-cache`` on an
ImageCache asks for layer reuse, on a pod for automatic matching. The current spelling stands first and wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec

from imagecached.errors import InvalidInput
from imagecached.imagecache.findings import Findings, shown
from imagecached.imagecache.model import (
    MAX_RETENTION_DAYS,
    MAX_SIZE_GIB,
    MIN_SIZE_GIB,
    Effect,
    Options,
    Toleration,
)
from imagecached.oci.platform import Platform
from imagecached.oci.reference import Reference

ECI: Final = "k8s.aliyun.com/"
OURS: Final = "imagecached.dev/"

REUSE: Final = (ECI + "imc-enable-reuse", ECI + "auto-match-imagecache", ECI + "eci-image-cache")
FLASH: Final = ECI + "imc-enable-flash"
SIZE: Final = ECI + "imc-size"
RETENTION: Final = ECI + "imc-retention-days"
CPU_ARCH: Final = ECI + "imc-cpu-arch"
OS_TYPE: Final = ECI + "imc-os-type"
PLAIN_HTTP: Final = ECI + "plain-http-registry"
INSECURE: Final = ECI + "insecure-registry"
REFRESH: Final = OURS + "refresh"
NODE_SELECTOR: Final = OURS + "node-selector"
TOLERATIONS: Final = OURS + "tolerations"
ELIMINATION: Final = OURS + "elimination-strategy"
AUTOMATIC: Final = OURS + "automatic"
"""A label: the cache was made for a pod that found none."""

AUTO_MATCH: Final = (ECI + "eci-auto-imc", ECI + "eci-image-cache")
EXPLICIT_ID: Final = (ECI + "eci-imc-id", ECI + "eci-image-snapshot-id")
PERFECT_MATCH: Final = ECI + "imc-perfect-match"
MATCH_COUNT: Final = ECI + "imc-match-count-request"
EXTRA_STORAGE: Final = ECI + "eci-extra-ephemeral-storage"
CHOSEN_ID: Final = OURS + "cache-id"
MATCH_DEGREE: Final = OURS + "match-degree"
AUTO_CREATED: Final = OURS + "auto-created"
AS_WRITTEN: Final = OURS + "images-as-written"
"""Written on a pod: the cache it got, how well it matches, the cache that is made for the next pod, and the
images that were replaced by digests, separated by commas.
"""

NO_MEANING_HERE: Final = frozenset(
    ECI + name
    for name in (
        "vswitch-ids",
        "security-group-id",
        "resource-group-id",
        "acr-instance-ids",
        "acr-service-arns",
        "acr-user-arns",
        "eip-instance-id",
        "auto-create-eip",
        "eip-bandwidth",
        "eip-internet-charge-type",
        "eip-isp",
        "eip-common-bandwidth-package-id",
    )
)
"""They steer ECI's builder machine or its account: accepted, and said to have no effect."""

FIRST_POD: Final = OURS + "first-pod"
"""On an automatic cache: the pod it was made for."""

CACHES_ONLY: Final = frozenset(
    {FLASH, SIZE, RETENTION, CPU_ARCH, OS_TYPE, REFRESH, NODE_SELECTOR, TOLERATIONS, ELIMINATION, *REUSE[:2]}
)
_KNOWN: Final = CACHES_ONLY | {*REUSE, PLAIN_HTTP, INSECURE, FIRST_POD}
ON_PODS: Final = frozenset({*AUTO_MATCH, *EXPLICIT_ID, PERFECT_MATCH, MATCH_COUNT, EXTRA_STORAGE})
"""What means something on a pod, and nothing on the workload that makes the pod."""

ARCHITECTURES: Final = ("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x")
_MAX_REGISTRIES: Final = 64
_MAX_TOLERATIONS: Final = 64
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_LABEL_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY: Final = re.compile(rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_LABEL_NAME}")
_LABEL_VALUE: Final = re.compile(rf"(?:{_LABEL_NAME})?")

T = TypeVar("T")


class _Toleration(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


def read_options(
    annotations: Mapping[str, str], labels: Mapping[str, str], where: str, findings: Findings
) -> Options:
    """What an ImageCache's annotations and labels ask for. Values that are wrong go to ``findings``."""
    reader = Annotations(annotations, where, findings)
    reader.warn_of_strangers()
    return Options(
        reuse=any(reader.flag(key) for key in REUSE),
        flash=reader.flag(FLASH),
        plain_http=reader.value(PLAIN_HTTP, (), registries),
        insecure=reader.value(INSECURE, (), registries),
        platform=_platform(reader),
        node_selector=reader.value(NODE_SELECTOR, {}, node_selector),
        tolerations=reader.value(TOLERATIONS, (), tolerations),
        refresh=annotations.get(REFRESH, ""),
        lru=reader.value(ELIMINATION, "", _strategy) == "LRU",
        automatic=labels.get(AUTOMATIC) == "true",
    )


class Annotations:
    """Reads single annotations, and notes under ``where`` what is wrong with them."""

    def __init__(self, annotations: Mapping[str, str], where: str, findings: Findings) -> None:
        self._annotations = annotations
        self._where = where
        self._findings = findings

    def value(self, key: str, default: T, parse: Callable[[str], T]) -> T:
        """The value of ``key`` through ``parse``, which raises InvalidInput saying what is allowed."""
        text = self._annotations.get(key)
        if text is None:
            return default
        try:
            return parse(text)
        except InvalidInput as error:
            self._findings.refuse(f"{self._where}[{key}]", f"{error}, not {shown(text)}")
            return default

    def flag(self, key: str) -> bool:
        """``"true"`` or ``"false"``; absent is false."""
        return self.value(key, False, flag)  # noqa: FBT003  the default value, not a mode

    def first(self, spellings: tuple[str, ...]) -> tuple[str, str] | None:
        """The first spelling that is there, with its value. Another one that disagrees is warned about."""
        present = [(key, self._annotations[key]) for key in spellings if key in self._annotations]
        for key, text in present[1:]:
            if text != present[0][1]:
                self._findings.warn(
                    f"{self._where}[{key}]",
                    f"{shown(text)} is overruled by {present[0][0]}: {shown(present[0][1])}",
                )
        return present[0] if present else None

    def warn_of_strangers(self) -> None:
        """Keys in our two name spaces that have no effect on an ImageCache."""
        for key in self._annotations:
            if key in NO_MEANING_HERE:
                self._findings.warn(f"{self._where}[{key}]", "has no effect on ordinary nodes")
            elif key.startswith((ECI, OURS)) and key not in _KNOWN:
                self._findings.warn(f"{self._where}[{key}]", "is unknown on an ImageCache and has no effect")


def flag(text: str) -> bool:
    """``true`` or ``false``. InvalidInput."""
    if text.lower() not in ("true", "false"):
        raise InvalidInput('must be "true" or "false"')
    return text.lower() == "true"


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A parser for whole numbers in this range."""

    def parse(text: str) -> int:
        if not _WHOLE_NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise InvalidInput(f"must be a whole number from {least} to {most}")
        return int(text)

    return parse


size_gib: Final = whole_number(MIN_SIZE_GIB, MAX_SIZE_GIB)
retention_days: Final = whole_number(1, MAX_RETENTION_DAYS)


def registries(text: str) -> tuple[str, ...]:
    """``host1,1.2.3.4:5000``: hosts, with the port where the image reference has one. InvalidInput."""
    hosts = tuple(dict.fromkeys(host.strip() for host in text.split(",") if host.strip()))
    if len(hosts) > _MAX_REGISTRIES:
        raise InvalidInput(f"must name at most {_MAX_REGISTRIES} registries")
    for host in hosts:
        if not _is_registry(host):
            raise InvalidInput(f"must be hosts or host:port, separated by commas; {shown(host)} is neither")
    return hosts


def _is_registry(host: str) -> bool:
    """With a port even a name without a dot is a host in a reference."""
    texts = (f"{host}/x", f"{host}:1/x")
    try:
        return "/" not in host and any(Reference.parse(text).repository == "x" for text in texts)
    except InvalidInput:
        return False


def node_selector(text: str) -> dict[str, str]:
    """``disk=ssd,pool=web``: labels that a node must have. InvalidInput."""
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise InvalidInput(f"must be labels key=value, separated by commas; {shown(part)} is none")
        labels[key] = value
    return labels


def tolerations(text: str) -> tuple[Toleration, ...]:
    """A JSON list as in a pod's ``spec.tolerations``. InvalidInput."""
    try:
        found = msgspec.json.decode(text, type=list[_Toleration])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        raise InvalidInput(f"must be a JSON list of tolerations as in a pod ({error})") from error
    if len(found) > _MAX_TOLERATIONS:
        raise InvalidInput(f"must hold at most {_MAX_TOLERATIONS} tolerations")
    return tuple(_toleration(item) for item in found)


_EFFECTS: Final[Mapping[str, Effect]] = {
    "": "",
    "NoSchedule": "NoSchedule",
    "PreferNoSchedule": "PreferNoSchedule",
    "NoExecute": "NoExecute",
}


def _toleration(item: _Toleration) -> Toleration:
    if item.effect not in _EFFECTS:
        raise InvalidInput(f"must have effects {', '.join(filter(None, _EFFECTS))} or none")
    if item.operator == "Exists":
        return Toleration(item.key, "Exists", "", _EFFECTS[item.effect])
    if item.operator != "Equal" or not item.key:
        raise InvalidInput("must have operator Exists, or operator Equal and a key")
    return Toleration(item.key, "Equal", item.value, _EFFECTS[item.effect])


def _strategy(text: str) -> str:
    if text != "LRU":
        raise InvalidInput('must be "LRU"')
    return text


def _platform(reader: Annotations) -> Platform | None:
    system = reader.value(OS_TYPE, "", _os)
    architecture = reader.value(CPU_ARCH, "", _architecture)
    if not architecture:
        return None
    return Platform.of(system or "linux", architecture)


def _os(text: str) -> str:
    if text.lower() != "linux":
        raise InvalidInput('must be "linux"')
    return "linux"


def _architecture(text: str) -> str:
    if Platform.of("linux", text).architecture not in ARCHITECTURES or not text.isascii():
        raise InvalidInput(f"must be one of {', '.join(ARCHITECTURES)}")
    return text
