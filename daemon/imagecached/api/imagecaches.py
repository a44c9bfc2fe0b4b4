"""The operations about ImageCaches that answer at once: request → noun → use case → document. They decide
nothing.

The first line of each docstring is the operation's summary in the OpenAPI document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from imagecached.api import convert, documents, requests
from imagecached.api.handlers import described_layers, last_pull
from imagecached.api.operation import Call
from imagecached.imagecache import parse_manifests, parse_pods

if TYPE_CHECKING:
    from imagecached.api.ports import Ports
    from imagecached.caches import View
    from imagecached.imagecache import ImageStatus


async def list_caches(call: Call[requests.Request]) -> documents.ImageCacheList:
    """Every ImageCache."""
    return documents.ImageCacheList(
        imagecaches=[convert.cache_summary(view) for view in call.ports.caches.list()],
        problems=[str(problem) for problem in call.ports.problems()],
    )


async def apply_caches(call: Call[requests.ApplyRequest]) -> documents.ApplyAnswer:
    """Declare ImageCaches; a document that is wrong does not stop the others."""
    parsed = parse_manifests(call.request.manifests.encode(), call.request.source)
    outcomes = await call.ports.caches.apply(parsed.caches)
    return documents.ApplyAnswer(
        applied=[
            documents.AppliedCache(name=cache.name, id=cache.id, outcome=outcomes[cache.name])
            for cache in parsed.caches
        ],
        problems=[str(problem) for problem in parsed.problems],
        warnings=[str(warning) for warning in parsed.warnings],
    )


async def delete_cache(call: Call[requests.CacheRequest]) -> documents.ImageCacheSummary:
    """Take back an ImageCache that was applied; running containers keep what they use."""
    return convert.cache_summary(await call.ports.caches.delete(call.request.name))


async def describe_cache(call: Call[requests.CacheRequest]) -> documents.ImageCacheDescription:
    """One ImageCache: images, layers, how each was obtained, where the time went, events."""
    ports, view = call.ports, call.ports.caches.view(call.request.name)
    return documents.ImageCacheDescription(
        imagecache=convert.cache_summary(view),
        images=[_described(ports, view, image) for image in view.status.serving if image.image in view.names],
        events=[convert.cache_event(event) for event in view.status.events],
    )


def _described(ports: Ports, view: View, image: ImageStatus) -> documents.DescribedCacheImage:
    name = view.names[image.image]
    record, pulled = ports.store.image(name), last_pull(ports.events.recent(subject=name))
    return documents.DescribedCacheImage(
        image=image.image,
        name=name,
        digest=None if image.digest is None else str(image.digest),
        manifest_digest=None if record is None else str(record.manifest_digest),
        unpacked_bytes=image.bytes,
        layers=[] if record is None else described_layers(ports.store, record, pulled.get("sources", {})),
        seconds=convert.phase_seconds(pulled),
    )


async def match(call: Call[requests.MatchRequest]) -> documents.MatchAnswer:
    """Which ImageCache would these pods get, and why; nothing is changed."""
    parsed = parse_pods(call.request.manifests.encode(), call.request.source)
    return documents.MatchAnswer(
        matches=[convert.match(pod, call.ports.caches.decide(pod)) for pod in parsed.pods],
        problems=[str(problem) for problem in parsed.problems],
    )


async def choose(call: Call[requests.ChoiceRequest]) -> documents.ImageChoice:
    """The image that a container gets for an image or an ImageCache's id, and a pod's annotations."""
    wanted = call.request
    choice = await call.ports.caches.choose(wanted.image, wanted.annotations)
    decision = choice.decision
    if decision is None or decision.outcome == "off":
        return documents.ImageChoice(image=choice.name, match=None)
    from imagecached.imagecache import PodImages  # loaded by now: it was matched

    pod = PodImages(kind="Container", namespace="", name="", images=(wanted.image,))
    return documents.ImageChoice(image=choice.name, match=convert.match(pod, decision))
