"""The cache that is made for the next pod when this one found no full match: whether, and its document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from imagecached.imagecache.annotations import AUTOMATIC, FIRST_POD
from imagecached.imagecache.candidates import Candidate
from imagecached.imagecache.ids import automatic_name
from imagecached.imagecache.model import API_VERSION, KIND, MAX_IMAGES, MAX_SIZE_GIB, MIN_SIZE_GIB
from imagecached.imagecache.pods import PodImages, whole_gib
from imagecached.imagecache.references import key, readable
from imagecached.oci.reference import Reference

_MAX_SECRETS: Final = 20


@dataclass(frozen=True, slots=True)
class Creation:
    """``images``: canonical references in order, so that one image set gives one object."""

    name: str
    images: tuple[str, ...]
    size_gib: int
    pull_secrets: tuple[str, ...]
    first_pod: str

    def document(self) -> dict[str, Any]:
        """The ImageCache to create; whoever finds it created already has what was wanted."""
        spec: dict[str, Any] = {"images": list(self.images), "imageCacheSize": self.size_gib}
        if self.pull_secrets:
            spec["imagePullSecrets"] = list(self.pull_secrets)
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": self.name,
                "labels": {AUTOMATIC: "true"},
                "annotations": {FIRST_POD: self.first_pod},
            },
            "spec": spec,
        }


def creation(
    pod: PodImages, references: Mapping[str, Reference], candidates: Iterable[Candidate], *, allowed: bool
) -> tuple[Creation | None, str]:
    """What to create for this pod's image set, if anything, and a clause that says why or why not.

    The registries that the pod's annotations call plain or insecure are not taken over: the cache would serve
    to other pods what this one was ready to believe.
    """
    images = sorted({str(reference) for reference in references.values()})
    if not allowed:
        return None, "automatic caches are turned off"
    if not images or len(references) < len(pod.images):
        return None, "no cache is made, because an image of the pod is no valid reference"
    if len(images) > MAX_IMAGES:
        return None, f"no cache is made: {len(images)} images are more than the {MAX_IMAGES} of one cache"
    name = automatic_name(images)
    keys = list(map(key, references.values()))
    coming = (one for one in candidates if one.cache.name == name or one.will_hold(keys))
    first = min(coming, key=lambda one: (one.cache.name != name, one.cache.name), default=None)
    if first is not None:
        what = "was made for these images" if first.cache.name == name else "will hold them all"
        return None, f"{first.cache.name} {what} and is {first.state}"
    return _made(pod, name, images), f"{name} is made for the next pod"


def as_written(pod: PodImages, originals: str) -> PodImages:
    """``pod`` with its images as they were before they were pinned; ``originals``: those, comma-separated."""
    before = {
        (one.name, one.tag): text for text, one in readable(originals.split(",")).items() if not one.digest
    }
    references = readable(pod.images)
    images = tuple(
        before.get((references[text].name, references[text].tag), text) if text in references else text
        for text in pod.images
    )
    return replace(pod, images=tuple(dict.fromkeys(images)))


def _made(pod: PodImages, name: str, images: list[str]) -> Creation:
    secrets = [f"{pod.namespace}:{secret}" for secret in pod.pull_secrets] if pod.namespace else []
    size = min(max(whole_gib(pod.ephemeral_gib), MIN_SIZE_GIB), MAX_SIZE_GIB)
    who = "/".join(filter(None, (pod.namespace, pod.name)))
    return Creation(name, tuple(images), size, tuple(secrets[:_MAX_SECRETS]), who)
