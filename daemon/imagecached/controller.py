"""The composition root of ``imagecached controller``: builds every part, runs them in one TaskGroup, stops in
order.

Parsing, protocol and policy live elsewhere. One replica leads, all answer pods. Invariants: every task
belongs to the one group; a service that ends stops all; the Lease is released after the leader's work has
ended; the process keeps no state of its own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from imagecached import aio, memory, web
from imagecached.config import Config, ControllerSection, split_address
from imagecached.imagecache import Limits, Quota
from imagecached.kube.client import Cluster
from imagecached.kube.controller import Election, Leader, Settings, Terms
from imagecached.kube.recorder import Recorder
from imagecached.kube.webhook import Listen, Place, Rules, Webhook
from imagecached.notify import notify
from imagecached.registry import Registry, RegistryConfig
from imagecached.telemetry import ClusterMetrics, ClusterReadings

log = logging.getLogger(__name__)

_COMPONENT: Final = "imagecached-controller"
_LEASE: Final = "imagecached-controller"


class _Stop(Exception):
    """A signal asked us to end. Never leaves this module."""


@dataclass(slots=True)
class Parts:
    """Everything that lives as long as the process; ``leader`` while we lead."""

    config: Config
    cluster: Cluster
    registry: Registry
    recorder: Recorder
    election: Election
    metrics: ClusterMetrics
    webhook: Webhook | None
    leader: Leader | None = field(default=None)


def serve(config: Config, environ: Mapping[str, str] = os.environ) -> int:
    """Run until SIGTERM or SIGINT; 0 then.

    Raises the error classes for what keeps the controller from running.
    """
    memory.keep_freed()
    asyncio.run(_serve(config, environ))
    return 0


async def _serve(config: Config, environ: Mapping[str, str]) -> None:
    async with AsyncExitStack() as stack:
        parts = await _build(config, environ, stack)
        parts.metrics.watch(partial(_readings, parts))
        faults: list[Exception] = []
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_stop_on_signal(), name="signals")
                await _run_services(parts, group)
        except ExceptionGroup as errors:
            faults = [error for error in aio.leaves(errors) if not isinstance(error, _Stop)]
        if faults:
            raise faults[0]
        log.info("stopped")


async def _build(config: Config, environ: Mapping[str, str], stack: AsyncExitStack) -> Parts:
    """Open what the services need, in order; the ``stack`` closes it in reverse."""
    section, metrics = config.controller, ClusterMetrics()
    identity = f"{environ.get('POD_NAME') or socket.gethostname()}_{uuid.uuid4()}"
    kubeconfig = Path(config.kubernetes.kubeconfig) if config.kubernetes.kubeconfig else None
    cluster = await stack.enter_async_context(
        Cluster.open(kubeconfig, manager=_COMPONENT, on_request=metrics.requested)
    )
    registry = await stack.enter_async_context(Registry(RegistryConfig.of(config.registry)))
    recorder = Recorder(cluster, _COMPONENT, identity)
    election = Election(
        cluster, identity, name=_LEASE, namespace=section.namespace, terms=_settings(section).terms
    )
    webhook = _webhook(section, cluster, recorder, metrics)
    return Parts(config, cluster, registry, recorder, election, metrics, webhook)


def _webhook(
    section: ControllerSection, cluster: Cluster, recorder: Recorder, metrics: ClusterMetrics
) -> Webhook | None:
    """Every replica serves admission, unless the address is empty."""
    if (listen := split_address(section.address)) is None:
        return None
    rules = Rules(
        exempt=frozenset({"kube-system", section.namespace}),
        limits=Limits(automatic=section.automatic_caches > 0),
    )
    place = Place(namespace=section.namespace)
    return Webhook(cluster, recorder.tell, Listen(*listen), place, rules, metrics.admitted)


async def _run_services(parts: Parts, group: asyncio.TaskGroup) -> None:
    """Open the doors and keep them open until the group is cancelled."""
    group.create_task(parts.recorder.run(), name="events")
    if parts.webhook is not None:
        group.create_task(parts.webhook.run(), name="webhook")
    async with AsyncExitStack() as doors:
        if (listen := split_address(parts.config.http.address)) is not None:
            pages = web.application(parts.metrics, partial(_why_not_ready, parts))
            await doors.enter_async_context(web.serve(pages, *listen))
        notify("READY=1")
        log.info("started", extra={"namespace": parts.config.controller.namespace})
        await parts.election.run(partial(_lead, parts))


async def _lead(parts: Parts) -> None:
    """One term of leading."""
    settings = _settings(parts.config.controller)
    leader = parts.leader = Leader(parts.cluster, parts.registry, parts.recorder, settings)
    try:
        await leader.run()
    finally:
        parts.leader = None
        memory.give_back()


async def _stop_on_signal() -> None:
    """End the group at SIGTERM or SIGINT."""
    await aio.asked_to_stop()
    notify("STOPPING=1")
    log.info("stopping")
    raise _Stop


def _why_not_ready(parts: Parts) -> str | None:
    """Every replica must be able to answer pods; a leader must know the cluster, too."""
    if parts.webhook is not None and (reason := parts.webhook.why_not_ready()) is not None:
        return reason
    return None if parts.leader is None else parts.leader.problem


def _settings(section: ControllerSection) -> Settings:
    return Settings(
        namespace=section.namespace,
        lease=_LEASE,
        terms=Terms(section.lease_seconds, section.lease_renew_seconds, section.lease_retry_seconds),
        workers=section.workers,
        rollout_nodes=section.rollout_nodes,
        rollout_percent=section.rollout_percent,
        node_patience=section.node_patience_seconds,
        resolve_patience=section.resolve_patience_seconds,
        drift=section.drift_interval_seconds,
        quota=Quota(section.manual_caches, section.automatic_caches),
    )


def _readings(parts: Parts) -> ClusterReadings:
    """What the gauges show now."""
    leader = parts.leader
    if leader is None:
        return ClusterReadings()
    census, known = leader.census, leader.caches.known
    return ClusterReadings(
        leading=True,
        caches=Counter(each.status.phase for each in known.values()),
        nodes={
            "all": len(census.nodes),
            "up": sum(node.up for node in census.nodes.values()),
            "reporting": len(census.reports),
        },
        waiting=leader.caches.waiting,
    )
