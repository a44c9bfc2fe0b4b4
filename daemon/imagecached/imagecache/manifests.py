"""Text of manifests → caches, problems and warnings. One bad document never stops the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import yamltext
from imagecached.imagecache.documents import read_cache
from imagecached.imagecache.findings import Findings, Problem
from imagecached.imagecache.model import API_VERSION, ImageCache
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
    try:
        chunks = yamltext.split(text)
    except InvalidInput as error:
        return Parsed(problems=(Problem(source, "", str(error)),))
    for chunk in chunks:
        title = f"document {chunk.number}" if len(chunks) > 1 else ""
        for where, document in _documents(chunk, title, source, problems):
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
    pods: list[PodImages] = []
    problems: list[Problem] = []
    try:
        chunks = yamltext.split(text)
    except InvalidInput as error:
        return ParsedPods(problems=(Problem(source, "", str(error)),))
    for chunk in chunks:
        title = f"document {chunk.number}" if len(chunks) > 1 else ""
        for where, document in _documents(chunk, title, source, problems):
            try:
                pods.append(PodImages.of(document))
            except InvalidInput as error:
                problems.append(Problem(source, where, str(error)))
    return ParsedPods(tuple(pods), tuple(problems))


def _documents(
    chunk: yamltext.Chunk, title: str, source: str, problems: list[Problem]
) -> Iterator[tuple[str, Any]]:
    """The document in ``chunk``, or the items if it is a list; with where it stands."""
    try:
        value = yamltext.load(chunk)
    except InvalidInput as error:
        problems.append(Problem(source, title, str(error)))
        return
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
