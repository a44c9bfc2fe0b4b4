"""The composition root: builds every part, runs the services in one TaskGroup, stops in order.

Parsing, protocol and policy live elsewhere. Invariants: every task belongs to the one group; a service that
ends stops all; resources close in the reverse order of their making, after the last task has ended; exit
never unmounts anything.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imagecached import aio, api, memory, settings, web
from imagecached.caches import Caches, Folder, Reading
from imagecached.config import Config, split_address
from imagecached.containers import Containers
from imagecached.errors import ImagecachedError
from imagecached.events import EventLog
from imagecached.images import Images
from imagecached.mounts import Mounter
from imagecached.notify import notify, watchdog_seconds
from imagecached.registry import Registry
from imagecached.snapshotter import Misses, Snapshotter
from imagecached.store import GcReport, Store
from imagecached.telemetry import Metrics, Readings

if TYPE_CHECKING:
    from imagecached import doctor
    from imagecached.containerd import Containerd
    from imagecached.kube.agent.service import Membership
    from imagecached.registration import Registration

log = logging.getLogger(__name__)

_SANDBOX_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 3600.0  # how long the layers of a pull that was cut short wait for the next try


class _Stop(Exception):
    """A signal asked us to end. Never leaves this module."""


@dataclass(slots=True)
class Parts:
    """Everything that lives as long as the daemon."""

    config: Config
    store: Store
    mounter: Mounter
    registry: Registry
    containers: Containers
    snapshotter: Snapshotter
    containerd: Containerd | None
    metrics: Metrics
    events: EventLog


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT; 0 then.

    Raises the error classes for what keeps the daemon from running.
    """
    memory.keep_freed()
    asyncio.run(_serve(config))
    return 0


async def _serve(config: Config) -> None:
    async with AsyncExitStack() as stack:
        parts = await _build(config, stack)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_stop_on_signal(), name="signals")
                await _run_services(parts, group)
        except ExceptionGroup as errors:
            for error in aio.leaves(errors):
                if not isinstance(error, _Stop):
                    raise error from None
            log.info("stopped")


async def _build(config: Config, stack: AsyncExitStack) -> Parts:
    """Open what the services need, in order; the ``stack`` closes it in reverse."""
    metrics, events = Metrics(), EventLog()
    root = config.daemon.root.resolve()
    store = await Store.open(root, await aio.finish(settings.store_policy, config))
    stack.push_async_callback(store.close)
    _report_recovery(store, events)
    store.on_freed(partial(_freed, metrics, events))
    mounter = await aio.finish(Mounter.probe, root)
    store.protect(lambda: store.layout.digests_of(mounter.mounted()))
    registry = await stack.enter_async_context(
        Registry(settings.registry_config(config), on_source=metrics.obtained)
    )
    containerd = _containerd(config, stack)
    identify = partial(_installation, containerd) if containerd else None
    containers, snapshotter = Containers(store, mounter), await Snapshotter.open(store, mounter, identify)
    return Parts(config, store, mounter, registry, containers, snapshotter, containerd, metrics, events)


def _containerd(config: Config, stack: AsyncExitStack) -> Containerd | None:
    """The containerd to tell of our images, if there is one."""
    if not config.containerd.socket:
        return None
    from imagecached.containerd import Containerd  # several MiB that a daemon without it need not carry

    containerd = Containerd(Path(config.containerd.socket))
    stack.push_async_callback(containerd.close)
    return containerd


async def _installation(containerd: Containerd) -> str:
    return (await containerd.server()).uuid


def _registration(parts: Parts, group: asyncio.TaskGroup) -> Registration | None:
    """What tells containerd of our images."""
    section, containerd = parts.config.containerd, parts.containerd
    if containerd is None:
        return None
    from imagecached.registration import Registration, RegistrationSettings

    wanted = RegistrationSettings(
        namespaces=section.namespaces,
        snapshotter=section.snapshotter,
        mode=section.mode,
        check_seconds=section.check_interval_seconds,
        fetch_missing_blobs=section.fetch_missing_blobs,
    )
    registration = Registration(
        containerd, parts.store, parts.registry, wanted, group, metrics=parts.metrics, events=parts.events
    )
    parts.store.before_eviction(registration.unregister)
    return registration


def _begin_registration(
    parts: Parts, registration: Registration, images: Images, group: asyncio.TaskGroup
) -> None:
    """Its services. Not before the snapshots can be asked for, which it makes containerd do."""
    section = parts.config.containerd
    group.create_task(registration.run(), name="registration")
    if section.mode == "handler" and parts.containerd is not None:
        from imagecached.registration import Sandbox

        sandbox = Sandbox(
            parts.containerd,
            parts.store,
            images.pull,
            name=section.sandbox_image,
            look_seconds=min(_SANDBOX_SECONDS, section.check_interval_seconds),
            events=parts.events,
        )
        group.create_task(sandbox.run(), name="sandbox image")


async def _run_services(parts: Parts, group: asyncio.TaskGroup) -> None:
    """Open the doors and keep them open until the group is cancelled."""
    config, ready = parts.config, asyncio.Event()
    registration = _registration(parts, group)
    images = Images(
        parts.registry,
        parts.store,
        settings.pull_settings(config),
        group,
        metrics=parts.metrics,
        events=parts.events,
        on_ready=registration.register if registration else None,
    )

    def why_not_ready() -> str | None:
        return None if ready.is_set() else "starting"

    caches = Caches(
        images,
        parts.store,
        settings.cache_settings(config),
        events=parts.events,
        metrics=parts.metrics,
        collect=partial(_collect, parts, registration),
        registration=registration,
    )
    folder = Folder(config.caches.dir, partial(_declare, caches), parts.events)
    member = _member(parts, caches)
    counts = registration.counts if registration else dict[str, int]
    parts.metrics.watch(partial(_readings, parts, images, caches, counts, member))
    ports = api.Ports(
        images=images,
        caches=caches,
        problems=lambda: (*folder.reading.problems, *caches.over()),
        store=parts.store,
        containers=parts.containers,
        events=parts.events,
        registration=registration,
        examine=partial(_examine, config, folder, member),
        why_not_ready=why_not_ready,
        root=config.daemon.root,
        mount_method=parts.mounter.method,
        started=time.time(),
    )
    group.create_task(_tend(parts, registration), name="upkeep")
    group.create_task(_watchdog(), name="watchdog")
    group.create_task(caches.run(), name="imagecaches")
    group.create_task(folder.run(), name="imagecache files")
    group.create_task(_reload_on_signal(folder), name="reload")
    if member is not None:
        group.create_task(member.run(), name="cluster")
    async with AsyncExitStack() as doors:
        section = config.daemon
        if config.snapshotter.socket:
            await doors.enter_async_context(_serve_snapshots(parts, images, group))
        if registration is not None:
            _begin_registration(parts, registration, images, group)
        await doors.enter_async_context(
            api.serve(ports, group, path=section.socket, group=section.socket_group)
        )
        if (listen := split_address(config.http.address)) is not None:
            pages = web.application(parts.metrics, why_not_ready)
            await doors.enter_async_context(web.serve(pages, *listen))
        ready.set()
        memory.give_back()
        notify("READY=1")
        log.info("ready", extra={"socket": str(section.socket), "mount_method": parts.mounter.method})
        await asyncio.Event().wait()


def _member(parts: Parts, caches: Caches) -> Membership | None:
    """This node as a part of its cluster, if it has one."""
    if not parts.config.kubernetes.node:
        return None
    from imagecached.kube.agent.service import membership  # several MiB that a VM need not carry

    return membership(parts.config, caches, parts.store, parts.containerd, parts.metrics)


def _serve_snapshots(
    parts: Parts, images: Images, group: asyncio.TaskGroup
) -> AbstractAsyncContextManager[None]:
    """The door to containerd."""
    section, metrics = parts.config.snapshotter, parts.metrics
    if section.pull_on_miss:
        wait_seconds = section.miss_wait_seconds
        misses = Misses(images, parts.store, wait_seconds=wait_seconds, metrics=metrics, events=parts.events)
        parts.snapshotter.pull_on_miss(misses)
    group.create_task(parts.snapshotter.tend(), name="snapshots")
    from imagecached import rpc  # several MiB that a daemon without containerd need not carry

    path = Path(section.socket)
    return rpc.serve(parts.snapshotter, group, path=path, on_end=metrics.snapshot_call_ended)


async def _tend(parts: Parts, registration: Registration | None) -> None:
    """Release what dead clients left, unmount what nobody uses and keep the store within its budget."""
    while True:
        try:
            await parts.containers.reap()
            await parts.snapshotter.cleanup()
            await _collect(parts, registration)
        except ImagecachedError as error:
            log.warning("upkeep failed", extra={"error": str(error)})
        await asyncio.sleep(parts.config.store.gc_interval_seconds)


async def _collect(parts: Parts, registration: Registration | None) -> None:
    report = await parts.store.gc(grace_seconds=_GRACE_SECONDS)
    parts.metrics.gc_ended()
    if report.images and registration is not None:
        await registration.unregister(*report.images)


def _freed(metrics: Metrics, events: EventLog, report: GcReport) -> None:
    """What went, by gc or because a pull needed the room; each image with why it was this one."""
    metrics.freed(report.freed_bytes, len(report.images))
    reason = "the disk was needed, and it was unused for the longest time"
    for name in report.images:
        events.emit("evicted", name, reason=reason)
    facts = {"images": list(report.images), "layers": len(report.layers), "freed_bytes": report.freed_bytes}
    events.emit("collected", **facts)
    log.info("collected", extra=facts)


async def _watchdog() -> None:
    """Tell the service manager that the event loop turns, as often as it wants to know."""
    seconds = watchdog_seconds()
    while seconds is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(seconds)


async def _reload_on_signal(folder: Folder) -> None:
    """Read the files of ImageCaches at SIGHUP, and tell the service manager when that is done."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        await asked.wait()
        asked.clear()
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        folder.wake()
        await folder.look()
        notify("READY=1")
        log.info("reloaded", extra={"files": str(folder.path)})


async def _stop_on_signal() -> None:
    """End the group at SIGTERM or SIGINT; the second one ends the process at once."""
    await aio.asked_to_stop()
    notify("STOPPING=1")
    log.info("stopping")
    raise _Stop


def _declare(caches: Caches, reading: Reading) -> None:
    caches.declare("files", reading.declared, reading.unclear)


def _examine(config: Config, folder: Folder, member: Membership | None) -> list[doctor.Finding]:
    """What doctor finds, what is wrong with the files of ImageCaches, and with the cluster. Called in a
    thread.
    """
    from imagecached import doctor  # nearly a MiB that nobody need carry who does not ask

    reading = folder.reading
    findings = [
        doctor.Finding("caches", "fail", str(problem), "mend or remove the file")
        for problem in reading.problems
    ]
    findings += [doctor.Finding("caches", "warn", str(warning), "") for warning in reading.warnings]
    if not findings:
        text = f"{len(reading.declared)} ImageCaches declared in {folder.path}"
        findings = [doctor.Finding("caches", "ok", text, "")]
    if member is not None:
        findings.append(_cluster_finding(member.problem))
    return [*doctor.examine(config), *findings]


def _cluster_finding(problem: str | None) -> doctor.Finding:
    from imagecached import doctor

    if problem is None:
        return doctor.Finding("cluster", "ok", "the API server answers", "")
    text = f"{problem}; the node goes on with what it knows"
    return doctor.Finding("cluster", "warn", text, "see that the API server is reached, and lets us in")


def _readings(
    parts: Parts,
    images: Images,
    caches: Caches,
    registrations: Callable[[], Mapping[str, int]],
    member: Membership | None,
) -> Readings:
    """What the gauges show now."""
    usage = parts.store.usage()
    waiting_images, waiting_layers = images.waiting()
    return Readings(
        layer_files=usage.layers,
        layer_bytes=usage.disk_bytes,
        logical_bytes=usage.logical_bytes,
        mounts=len(parts.mounter.mounted()),
        disk_used_bytes=usage.disk_bytes,
        disk_budget_bytes=usage.budget_bytes,
        waiting_images=waiting_images,
        waiting_layers=waiting_layers,
        caches={str(phase): count for phase, count in caches.by_phase().items()},
        registrations=registrations(),
        connected=None if member is None else member.problem is None,
    )


def _report_recovery(store: Store, events: EventLog) -> None:
    """Say what opening the store had to put right."""
    found = store.recovered
    facts = {
        "unfinished": found.unfinished,
        "adopted_layers": len(found.adopted),
        "removed": len(found.removed),
        "lost_layers": len(found.lost_layers),
        "damaged_images": list(found.damaged),
        "corrupt_database": str(found.corrupt_database or ""),
    }
    if any(facts.values()):
        events.emit("recovered", **facts)
        log.warning("recovered", extra=facts)
