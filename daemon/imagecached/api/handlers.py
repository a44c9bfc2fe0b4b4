"""One function per operation that answers at once: request → noun → use case → document. They decide nothing.

The first line of each docstring is the operation's summary in the OpenAPI document.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagecached import __version__, aio
from imagecached.api import convert, documents, requests
from imagecached.api.operation import Call
from imagecached.containers import Run
from imagecached.errors import ImagecachedError, NotFound
from imagecached.events import PULLED, Event
from imagecached.oci.documents import Descriptor, Manifest
from imagecached.oci.parse import parse_manifest
from imagecached.oci.reference import Reference

if TYPE_CHECKING:
    from imagecached.api.ports import Ports, Store
    from imagecached.store import Image, ImageRecord


async def list_images(call: Call[requests.Request]) -> documents.ImageList:
    """Every image in the store."""
    images = call.ports.store.images()
    return documents.ImageList(images=[_summary(call.ports, image) for image in images])


async def describe_image(call: Call[requests.ImageRequest]) -> documents.ImageDescription:
    """One image: its layers, how each was obtained, where the time of its last pull went, and its events."""
    store, name = call.ports.store, str(Reference.parse(call.request.name))
    record = store.image(name)
    if record is None:
        raise NotFound(f"image {name} is not here")
    events = call.ports.events.recent(subject=name)
    pulled = last_pull(events)
    return documents.ImageDescription(
        image=_summary(call.ports, record),
        target_digest=str(record.target.digest),
        target_media_type=record.target.media_type,
        layers=described_layers(store, record, pulled.get("sources", {})),
        seconds=convert.phase_seconds(pulled),
        events=[convert.event_line(event) for event in events],
    )


def _summary(ports: Ports, image: Image) -> documents.ImageSummary:
    registration = ports.registration
    return convert.image_summary(image, registration.state(image.name) if registration else None)


def last_pull(events: Sequence[Event]) -> Mapping[str, Any]:
    """Facts of the last pull that obtained something, else of the last one; empty if none is remembered."""
    pulls = [event.facts for event in events if event.kind == PULLED]
    telling = [facts for facts in pulls if set(facts.get("sources", {}).values()) - {"present"}]
    return next(reversed(telling or pulls), {})


def described_layers(
    store: Store, record: ImageRecord, sources: Mapping[str, Any]
) -> list[documents.DescribedLayer]:
    """The layers of an image, and how the pull that ``sources`` are of obtained each."""
    sharing = convert.sharing(store.images())
    blobs = _blobs(record) or (None,) * len(record.diff_ids)
    return [
        convert.described_layer(diff_id, blob, store.layer(diff_id), sharing[diff_id], sources.get(diff_id))
        for diff_id, blob in zip(record.diff_ids, blobs, strict=True)
    ]


def _blobs(record: ImageRecord) -> tuple[Descriptor, ...]:
    """The manifest's layers; none where the stored document is damaged."""
    try:
        manifest = parse_manifest(record.manifest)
    except ImagecachedError:
        return ()
    fits = isinstance(manifest, Manifest) and len(manifest.layers) == len(record.diff_ids)
    return manifest.layers if isinstance(manifest, Manifest) and fits else ()


async def remove_image(call: Call[requests.ImageRequest]) -> documents.Done:
    """Forget an image; gc frees what nothing else uses."""
    name, registration = str(Reference.parse(call.request.name)), call.ports.registration
    await call.ports.store.remove_image(name)
    if registration is not None:
        await registration.unregister(name)
    return documents.Done()


async def list_layers(call: Call[requests.Request]) -> documents.LayerList:
    """Every layer file in the store."""
    store = call.ports.store
    sharing = convert.sharing(store.images())
    return documents.LayerList(
        layers=[convert.layer_summary(layer, sharing[layer.diff_id]) for layer in store.layers()]
    )


async def list_snapshots(call: Call[requests.Request]) -> documents.SnapshotList:
    """Every committed snapshot in the store."""
    return documents.SnapshotList(
        snapshots=[convert.snapshot_summary(snapshot) for snapshot in call.ports.store.snapshots()]
    )


async def mount(call: Call[requests.MountRequest]) -> documents.Done:
    """Mount an image's tree on an empty directory of the host."""
    image, target = str(Reference.parse(call.request.image)), Path(call.request.target)
    await call.ports.containers.mount(image, target, read_write=call.request.read_write)
    return documents.Done()


async def umount(call: Call[requests.UmountRequest]) -> documents.Done:
    """Undo a mount; what was written there is gone."""
    await call.ports.containers.umount(Path(call.request.target))
    return documents.Done()


async def create_container(call: Call[requests.ContainerRequest]) -> documents.ContainerBundle:
    """Make an OCI bundle, for the client to run with runc or crun."""
    wanted = call.request
    bundle = await call.ports.containers.bundle(
        str(Reference.parse(wanted.image)),
        wanted.arguments,
        terminal=wanted.terminal,
        client=call.client,
        settings=Run(environment=wanted.environment, working_dir=wanted.working_dir, user=wanted.user),
    )
    return documents.ContainerBundle(id=bundle.id, dir=str(bundle.dir), runtime=bundle.runtime)


async def release_container(call: Call[requests.ContainerName]) -> documents.Done:
    """Unmount and remove a bundle whose container has ended."""
    await call.ports.containers.release(call.request.id)
    return documents.Done()


async def gc(call: Call[requests.GcRequest]) -> documents.GcAnswer:
    """Free what nothing uses."""
    report, registration = await call.ports.store.gc(dry_run=call.request.dry_run), call.ports.registration
    if report.images and not report.dry_run and registration is not None:
        await registration.unregister(*report.images)
    return convert.gc_answer(report)


async def doctor(call: Call[requests.Request]) -> documents.Diagnosis:
    """Can this host do it, and what to do if not."""
    findings = await aio.finish(call.ports.examine)
    return documents.Diagnosis(findings=[convert.finding(found) for found in findings])


async def version(call: Call[requests.Request]) -> documents.Version:  # noqa: ARG001  every handler is called alike
    """Which daemon answers."""
    return documents.Version(version=__version__, python=platform.python_version(), api="v1")


async def status(call: Call[requests.Request]) -> documents.Status:
    """How the daemon is."""
    ports, usage = call.ports, call.ports.store.usage()
    return documents.Status(
        version=__version__,
        pid=os.getpid(),
        root=str(ports.root),
        mount_method=ports.mount_method,
        started=convert.moment(ports.started),
        uptime_seconds=max(0.0, time.time() - ports.started),
        why_not_ready=ports.why_not_ready(),
        images=usage.images,
        snapshots=usage.snapshots,
        layers=usage.layers,
        disk_used_bytes=usage.disk_bytes,
        disk_budget_bytes=usage.budget_bytes,
        disk_free_bytes=usage.free_bytes,
        logical_bytes=usage.logical_bytes,
    )
