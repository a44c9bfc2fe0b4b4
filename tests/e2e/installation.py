"""Install and uninstall: what ``daemonset/install`` and ``daemonset/uninstall`` do, by the API alone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Final

from tests.e2e.cluster import Document, Kind, Refused, holds, wait_for
from tests.e2e.kustomize import build, with_image
from tests.e2e.node import Node
from tests.e2e.report import Failed, Skipped
from tests.e2e.world import (
    CACHE,
    CACHE_CRD,
    CRD,
    DAEMON_SET,
    DEPLOYMENT,
    FOLDER,
    HOOKS,
    NAMESPACE,
    NAMESPACES,
    NODE,
    OBSERVERS,
    SERVICE_ACCOUNT,
    SYSTEM,
    World,
)

_NEEDED: Final = (1, 30)
_CONTROLLERS_SECONDS: Final = 45.0
_OF_IMAGES: Final = frozenset({"DaemonSet", "Deployment", "PodDisruptionBudget", "Service"})
_LABEL: Final = re.compile(r"imagecached\.dev/")
_RBAC: Final = "rbac.authorization.k8s.io/v1"
_ADMISSION: Final = "admissionregistration.k8s.io/v1"
_REMOVED: Final = (
    Kind(_ADMISSION, "ValidatingAdmissionPolicyBinding"),
    Kind(_ADMISSION, "ValidatingAdmissionPolicy"),
    Kind(_RBAC, "ClusterRoleBinding"),
    Kind(_RBAC, "ClusterRole"),
    Kind("node.k8s.io/v1", "RuntimeClass"),
)


def preflight(world: World) -> None:
    """Look, before anything is changed."""
    cluster, report = world.cluster, world.report
    version = cluster.version()
    report.check(version >= _NEEDED, f"Kubernetes {version[0]}.{version[1]} is new enough", "1.30 is needed")
    there = cluster.get(CRD, CACHE_CRD)
    if there is not None:
        ours = there["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "imagecached"
        raise Failed(
            "imagecached is installed on this cluster already: uninstall it first"
            if ours
            else f"{CACHE_CRD} is there and not ours: this cluster has ECI's own ImageCache"
        )
    for namespace in (SYSTEM, NAMESPACE):
        report.check(
            cluster.get(NAMESPACES, namespace) is None, f"namespace {namespace} is free", "it exists"
        )
    world.before = cluster.identities()
    if not world.options.image:
        world.node = Node(world.options, _name_of_this_node(world))


def _name_of_this_node(world: World) -> str:
    names = [each["metadata"]["name"] for each in world.cluster.list(NODE)]
    chosen = world.options.node
    if chosen:
        world.report.check(chosen in names, f"there is a Node {chosen}", f"there are {', '.join(names)}")
        return chosen
    if len(names) != 1:
        raise Failed(f"which of {', '.join(names)} is this host? say --node-name")
    return str(names[0])


def install(world: World) -> None:
    """Every object, then the daemons, and all of it works."""
    documents = objects(world)
    # Definitions first, and known to the API server, before anything of their kinds.
    for document in documents:
        world.cluster.apply(document)
        if document["kind"] == "CustomResourceDefinition":
            await_established(world, document["metadata"]["name"])
    world.report.ok(f"{len(documents)} objects applied")
    _make_namespace(world)
    if world.node is not None:
        restarted = world.node.install_drop_in()
        world.report.ok(
            f"containerd has the drop-in, {'restarted once' if restarted else 'no restart needed'}"
        )
        _log_in(world, world.node)
        world.node.start_daemon()
        world.report.ok(f"the daemon is ready, {world.node.daemon_resident_bytes() >> 20} MiB resident")
        world.node.start_controller()
        world.report.ok("the controller is ready")
        again = world.node.install_drop_in()
        world.report.check(not again, "installing again changes nothing and restarts nothing")
    else:
        await_rollout(world)
    _await_webhook(world)
    _await_handler(world)


def _log_in(world: World, node: Node) -> None:
    """Both processes are the accounts that their pods would be, with no more rights."""
    cluster = world.cluster
    node.log_in("controller", cluster.account_kubeconfig(SYSTEM, "imagecached-controller", ""))
    world.report.ok("the controller has the rights of its account, and no more")
    try:
        node.log_in("daemon", cluster.account_kubeconfig(SYSTEM, "imagecached-node", node.name))
    except Refused as refused:
        # Without that the token does not say on which node it is used, and the policy for nodes refuses it.
        world.report.skip(f"the daemon has your rights, tokens cannot be bound to a Node here: {refused}")
        node.log_in("daemon", cluster.kubeconfig())
    else:
        world.report.ok("the daemon has the rights of its account on this node, and no more")


def objects(world: World) -> list[Document]:
    """What is applied: for processes without what runs from images, and with the webhook by its address."""
    documents = build(FOLDER)
    if world.node is None:
        return [*with_image(documents, world.options.image), *_settings(world)]
    documents = [document for document in documents if document["kind"] not in _OF_IMAGES]
    for document in documents:
        for webhook in document.get("webhooks", ()):
            path = webhook["clientConfig"]["service"]["path"]
            webhook["clientConfig"] = {"url": f"https://127.0.0.1:{world.node.webhook_port}{path}"}
    return documents


def _settings(world: World) -> list[Document]:
    """What the flags say to daemon and controller alike, as a ConfigMap; none if they say nothing."""
    if not world.options.plain_http:
        return []
    config = f"[registry]\nplain_http = {json.dumps(world.options.plain_http)}\n"
    metadata = {"name": "imagecached-config", "namespace": SYSTEM}
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config.toml": config}}]


def await_rollout(world: World) -> None:
    """Controller and node daemons of the newest version are ready everywhere."""

    def daemons() -> bool:
        found = world.cluster.get(DAEMON_SET, "imagecached", SYSTEM) or {}
        status = found.get("status", {})
        wanted = status.get("desiredNumberScheduled", 0)
        current = status.get("observedGeneration") == found.get("metadata", {}).get("generation")
        ready = min(status.get("numberReady", 0), status.get("updatedNumberScheduled", 0))
        return bool(current and wanted and ready >= wanted)

    def controllers() -> bool:
        status = (world.cluster.get(DEPLOYMENT, "imagecached-controller", SYSTEM) or {}).get("status", {})
        return bool(status.get("availableReplicas", 0) >= 1)

    wait_for(controllers, "a controller is available", world.patience, lambda: pods_of(world))
    world.report.ok("a controller is available")
    wait_for(daemons, "every node has a ready daemon", world.patience, lambda: pods_of(world))
    world.report.ok("every node has a ready daemon")


def pods_of(world: World) -> str:
    """Our own pods and why they wait, for a message."""
    told = []
    for pod in world.cluster.list(Kind("v1", "Pod"), SYSTEM):
        status = pod.get("status", {})
        waiting = [
            each.get("state", {}).get("waiting", {}).get("reason")
            or each.get("lastState", {}).get("terminated", {}).get("message")
            for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
        ]
        told.append(
            " ".join(map(str, (pod["metadata"]["name"], status.get("phase"), *filter(None, waiting))))
        )
    return "; ".join(told) or "there are no pods"


def await_established(world: World, name: str) -> None:
    """Until the API server serves what a definition defines."""

    def established() -> bool:
        return holds(world.cluster.get(CRD, name) or {}, "Established")

    wait_for(established, f"{name} is served", world.patience)


def _make_namespace(world: World) -> None:
    """A place for the pods of the scenarios; where nobody makes its service account, it is made here."""
    labels = {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}
    metadata = {"name": NAMESPACE, "labels": labels}
    world.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    account = {"name": "default", "namespace": NAMESPACE}
    try:
        wait_for(lambda: world.cluster.get(SERVICE_ACCOUNT, "default", NAMESPACE), "a service account", 5)
    except Failed:
        with suppress(Refused):  # it came meanwhile
            world.cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})


def _await_webhook(world: World) -> None:
    def certified() -> bool:
        webhooks = (world.cluster.get(HOOKS, "imagecached") or {}).get("webhooks", ())
        return bool(webhooks) and all(each["clientConfig"].get("caBundle") for each in webhooks)

    wait_for(
        certified, "the controller gives the webhook a certificate", world.patience, lambda: _logs(world)
    )
    world.report.ok("the webhook has a certificate")


def _await_handler(world: World) -> None:
    def labelled() -> list[str] | None:
        nodes = world.cluster.list(NODE, labelSelector="imagecached.dev/handler=ready")
        return [each["metadata"]["name"] for each in nodes] or None

    nodes = wait_for(labelled, "a node has the handler", world.patience, lambda: _logs(world))
    world.report.ok(f"the handler is there on {', '.join(nodes)}")


def _logs(world: World) -> str:
    return world.node.logs() if world.node else pods_of(world)


def uninstall(world: World) -> None:
    """Everything goes, in the order of ``daemonset/uninstall``; then nothing is left."""
    if world.options.keep:
        raise Skipped("--keep")
    restore(world)
    left = leftovers(world)
    world.report.check(not left, "nothing is left in the cluster", "; ".join(left))
    if world.node is not None:
        there = world.node.left_behind()
        world.report.check(not there, "no mount, file or setting is left on the node", "; ".join(there))


def restore(world: World) -> None:
    """Undo what was done so far, whatever that is; may be called again."""
    cluster = world.cluster
    if cluster.get(NAMESPACES, NAMESPACE) is not None:
        # The webhook first: what still makes pods must not be held up by a controller that goes.
        _remove_webhooks(world)
        world.remove_pods()
    _remove_webhooks(world)
    _remove_caches(world)
    if world.node is not None:
        world.node.restore()
    else:
        _remove_daemons(world)
    _remove_labels(world)
    for kind in (Kind(_RBAC, "RoleBinding"), Kind(_RBAC, "Role")):
        for each in cluster.list(kind, labelSelector="app.kubernetes.io/managed-by=imagecached"):
            cluster.delete(kind, each["metadata"]["name"], each["metadata"]["namespace"])
    for kind in _REMOVED:
        for each in cluster.list(kind, labelSelector="app.kubernetes.io/part-of=imagecached"):
            cluster.delete(kind, each["metadata"]["name"])
    for namespace in (NAMESPACE, SYSTEM):
        cluster.delete(NAMESPACES, namespace)
    for name in (CACHE_CRD, "nodeimagecaches.imagecached.dev"):
        cluster.delete(CRD, name)
    for name in (NAMESPACE, SYSTEM):
        _end_namespace(world, name)
    wait_for(partial(_is_gone, world, CRD, CACHE_CRD), f"{CACHE_CRD} is gone", world.patience)


def _end_namespace(world: World, name: str) -> None:
    try:
        wait_for(partial(_is_gone, world, NAMESPACES, name), f"{name} is gone", _CONTROLLERS_SECONDS)
    except Failed:
        world.report.note(f"nothing ends namespaces here, or it is slow: {name} is ended by hand")
        world.cluster.end_namespace(name)
        wait_for(partial(_is_gone, world, NAMESPACES, name), f"{name} is gone", world.patience)


def _is_gone(world: World, kind: Kind, name: str) -> bool:
    return world.cluster.get(kind, name) is None


def _remove_webhooks(world: World) -> None:
    for kind in (HOOKS, OBSERVERS):
        world.cluster.delete(kind, "imagecached")


def _remove_caches(world: World) -> None:
    cluster = world.cluster
    if cluster.get(CRD, CACHE_CRD) is None:
        return

    def none_left() -> bool:
        left = cluster.list(CACHE)
        for each in left:
            if "deletionTimestamp" not in each["metadata"]:
                cluster.delete(CACHE, each["metadata"]["name"])
        return not left

    try:
        wait_for(none_left, "all ImageCaches are gone", world.patience)
    except Failed:
        for each in cluster.list(CACHE):
            cluster.merge(CACHE, each["metadata"]["name"], {"metadata": {"finalizers": None}})
        raise


def _remove_daemons(world: World) -> None:
    cluster = world.cluster
    if cluster.get(DAEMON_SET, "imagecached", SYSTEM) is None:
        return
    cluster.delete(DEPLOYMENT, "imagecached-controller", SYSTEM)
    cluster.delete(DAEMON_SET, "imagecached", SYSTEM)
    wait_for(
        lambda: not cluster.list(Kind("v1", "Pod"), SYSTEM),
        "our pods are gone",
        world.patience,
        lambda: pods_of(world),
    )
    for document in with_image(build(FOLDER / "removal"), world.options.image):
        cluster.apply(document)

    def clean() -> bool:
        status = (cluster.get(DAEMON_SET, "imagecached-removal", SYSTEM) or {}).get("status", {})
        wanted = status.get("desiredNumberScheduled", 0)
        return bool(wanted and status.get("numberReady", 0) >= wanted)

    wait_for(clean, "every node is clean", world.patience, lambda: pods_of(world))
    world.report.ok("every node is clean")


def _remove_labels(world: World) -> None:
    for node in world.cluster.list(NODE):
        ours = [key for key in node["metadata"].get("labels", {}) if _LABEL.match(key)]
        if ours:
            patch = {"metadata": {"labels": dict.fromkeys(ours)}}
            world.cluster.merge(NODE, node["metadata"]["name"], patch)


def leftovers(world: World) -> list[str]:
    """Objects and labels of ours that were not there before."""
    added = world.cluster.identities() - world.before
    left = ["/".join(filter(None, each)) for each in sorted(added) if _is_ours(each)]
    for node in world.cluster.list(NODE):
        keys: Iterable[str] = node["metadata"].get("labels", {})
        left += [f"label {key} on {node['metadata']['name']}" for key in keys if _LABEL.match(key)]
    return left


def _is_ours(identity: tuple[str, str, str]) -> bool:
    return any("imagecache" in part for part in identity)
