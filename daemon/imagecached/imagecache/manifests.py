"""Text of manifests → caches, problems and warnings. One bad document never stops the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache.documents import read_cache
from imagecached.imagecache.findings import Findings, Problem
from imagecached.imagecache.model import API_VERSION, ImageCache

if TYPE_CHECKING:
    from imagecached.imagecache.pods import PodImages

_LISTS: Final = (("v1", "List"), (API_VERSION, "ImageCacheList"))
_MAX_ITEMS: Final = 1000


@dataclass(frozen=True, slots=True)
class Parsed:
    """What was found. A document with a problem declares nothing; the warnings are of documents that do."""

    caches: tuple[ImageCache, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def parse_manifests(text: bytes, source: str) -> Parsed:
    """Every ImageCache in ``text``; ``source`` is the file's name in problems. Never raises."""
    caches: dict[str, ImageCache] = {}
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for where, document in _documents(text, source, problems):
        findings = Findings(source)
        cache = read_cache(document, findings, from_file=True)
        if cache is not None and cache.name in caches:
            findings.refuse("metadata.name", f"{cache.name!r} is in an earlier document of this file too")
        elif cache is not None:
            caches[cache.name] = cache
            warnings += _placed(findings.warnings, where)
        problems += _placed(findings.problems, where)
    return Parsed(tuple(caches.values()), tuple(problems), tuple(warnings))


@dataclass(frozen=True, slots=True)
class ParsedPods:
    """Every pod, and pod template, that was found."""

    pods: tuple[PodImages, ...] = ()
    problems: tuple[Problem, ...] = ()


def parse_pods(text: bytes, source: str) -> ParsedPods:
    """Every pod, or what has a pod template, in ``text``. Never raises."""
    from imagecached.imagecache.pods import PodImages  # not before somebody asks: see the package

    pods: list[PodImages] = []
    problems: list[Problem] = []
    for where, document in _documents(text, source, problems):
        try:
            pods.append(PodImages.of(document))
        except InvalidInput as error:
            problems.append(Problem(source, where, str(error)))
    return ParsedPods(tuple(pods), tuple(problems))


def _documents(text: bytes, source: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    """Every document and every item of a list, with where it stands; ``problems`` takes what is no YAML."""
    from imagecached.imagecache import yamltext  # where nobody has manifests, nobody pays for YAML

    try:
        chunks = yamltext.split(text)
    except InvalidInput as error:
        problems.append(Problem(source, "", str(error)))
        return
    for chunk in chunks:
        title = f"document {chunk.number}" if len(chunks) > 1 else ""
        try:
            value = yamltext.load(chunk)
        except InvalidInput as error:
            problems.append(Problem(source, title, str(error)))
            continue
        yield from _items(value, title, source, problems)


def _items(value: Any, title: str, source: str, problems: list[Problem]) -> Iterator[tuple[str, Any]]:
    """The document, nothing if it is empty, or what a list holds."""
    if value is None:
        return
    if not isinstance(value, dict) or (value.get("apiVersion"), value.get("kind")) not in _LISTS:
        yield title, value
        return
    items = value.get("items")
    if not isinstance(items, list) or len(items) > _MAX_ITEMS:
        problems.append(Problem(source, _joined(title, "items"), f"must be a list of at most {_MAX_ITEMS}"))
        return
    for index, item in enumerate(items):
        yield _joined(title, f"items[{index}]"), item


def _placed(found: list[Problem], where: str) -> list[Problem]:
    return [Problem(problem.source, _joined(where, problem.where), problem.message) for problem in found]


def _joined(*parts: str) -> str:
    return ": ".join(filter(None, parts))
