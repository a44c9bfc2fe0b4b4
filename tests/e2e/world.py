"""What the scenarios share: the cluster, the node, and pods that are started the way users start them.

Assumes little of the cluster: Knative is used if there is any, Deployments if something makes pods of them,
else pods are created from the same template. A container counts as started once the runtime gave it an id, so
that images of any kind will do.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from imagecached.imagecache.annotations import EXPLICIT_ID
from tests.e2e.cluster import Cluster, Document, Kind, Refused, wait_for
from tests.e2e.node import Node
from tests.e2e.options import Options
from tests.e2e.report import Failed, Report

FOLDER: Final = Path(__file__).resolve().parents[2] / "daemonset"
SYSTEM: Final = "imagecached-system"
NAMESPACE: Final = "imagecached-e2e"
CACHE: Final = Kind("eci.alibabacloud.com/v1", "ImageCache")
CACHE_CRD: Final = "imagecaches.eci.alibabacloud.com"
NODE_CACHE: Final = Kind("imagecached.dev/v1alpha1", "NodeImageCache")
CRD: Final = Kind("apiextensions.k8s.io/v1", "CustomResourceDefinition")
DAEMON_SET: Final = Kind("apps/v1", "DaemonSet")
DEPLOYMENT: Final = Kind("apps/v1", "Deployment")
HOOKS: Final = Kind("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration")
OBSERVERS: Final = Kind("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration")
KNATIVE: Final = Kind("serving.knative.dev/v1", "Service")
NAMESPACES: Final = Kind("v1", "Namespace")
NODE: Final = Kind("v1", "Node")
POD: Final = Kind("v1", "Pod")
EVENT: Final = Kind("v1", "Event")
SERVICE_ACCOUNT: Final = Kind("v1", "ServiceAccount")
PRESENT: Final = "already present on machine"

_MAKER_SECONDS: Final = 30.0
_SCHEDULER_SECONDS: Final = 20.0
_LABEL: Final = "imagecached-e2e"


@dataclass(slots=True)
class World:
    """One run. ``node`` is None where the daemon runs from an image."""

    options: Options
    cluster: Cluster
    report: Report
    node: Node | None = None
    before: set[tuple[str, str, str]] = field(default_factory=set)
    cache: str = ""
    cache_id: str = ""
    _makes_pods: bool | None = None
    _started: int = 0

    @property
    def patience(self) -> float:
        """How long one thing may take."""
        return self.options.patience

    # manifests

    def example(self, name: str) -> Document:
        """A user's manifest; only its images are replaced, if a flag said so."""
        text = ((self.options.examples or FOLDER / "examples") / name).read_text()
        return dict(yaml.safe_load(text))

    def cache_example(self, name: str = "") -> Document:
        """The example ImageCache, with the images of the flags."""
        document = self.example("imagecache.yaml")
        document["spec"]["images"] = list(self.options.images[:2])
        if name:
            document["metadata"]["name"] = name
        return document

    def knative_example(self, name: str, image: str, cache_id: str = "") -> Document:
        """An example Knative Service, with this image, and this id where it names one."""
        document = self.example(name)
        template = document["spec"]["template"]
        template["spec"]["containers"][0]["image"] = image
        chosen = template["metadata"]["annotations"]
        for key in EXPLICIT_ID:
            if cache_id and key in chosen:
                chosen[key] = cache_id
        return document

    # caches

    def status(self, name: str) -> Document:
        """Of an ImageCache."""
        found = self.cluster.get(CACHE, name)
        if found is None:
            raise Failed(f"ImageCache {name} is gone")
        return dict(found.get("status", {}))

    def await_phase(self, name: str, *phases: str) -> Document:
        """The status once the cache is in one of these phases."""

        def reached() -> Document | None:
            status = self.status(name)
            return status if status.get("phase") in phases else None

        return wait_for(
            reached, f"{name} becomes {' or '.join(phases)}", self.patience, lambda: self.seen(name)
        )

    def seen(self, name: str) -> str:
        """Where a cache is, for a message."""
        found = self.cluster.get(CACHE, name)
        if found is None:
            return f"{name} is gone"
        status = found.get("status", {})
        told = [
            f"{key} {status[key]}" for key in ("phase", "progress", "reason", "message") if status.get(key)
        ]
        return f"{', '.join(told)}; {self.node.logs() if self.node else 'see the pods of imagecached-system'}"

    # pods

    def run(self, service: Document, what: str) -> Document:
        """Start what the manifest of a Knative Service asks for; its pod, whose container has started."""
        if self.cluster.serves(KNATIVE):
            return self._await_started(self._knative(service), what)
        return self.run_template(service["spec"]["template"], what)

    def run_template(self, template: Mapping[str, Any], what: str) -> Document:
        """Start a pod of this template; the pod, whose container has started."""
        return self._await_started(self.make(template), what)

    def run_image(self, image: str, what: str, annotations: Mapping[str, str] | None = None) -> Document:
        """The same for one image; without annotations an ordinary pod."""
        return self.run_template(plain_template(image, annotations), what)

    def make(self, template: Mapping[str, Any]) -> str:
        """Make a pod of this template, by a Deployment if something makes pods of those; the pod's name."""
        if self._makes_pods is not False:
            name = self._deployment(template)
            pod = self._pod_of(name, _MAKER_SECONDS if self._makes_pods is None else self.patience)
            if pod:
                self._makes_pods = True
                return pod
            self.cluster.delete(DEPLOYMENT, name, NAMESPACE)
            self._makes_pods = False
            self.report.note("nothing makes pods of a Deployment here: pods are created from the template")
        return str(self.cluster.create(self.pod_document(template))["metadata"]["name"])

    def pod_document(self, template: Mapping[str, Any]) -> Document:
        """A pod of this template, not yet created."""
        name = self._name()
        filled = self._filled(template, name)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            **filled,
            "metadata": {**filled["metadata"], "name": name, "namespace": NAMESPACE},
        }

    def remove_pods(self) -> None:
        """Whatever was started goes, and the runtime has let go of it."""
        for kind in (KNATIVE, DEPLOYMENT):
            if self.cluster.serves(kind):
                for each in self.cluster.list(kind, NAMESPACE):
                    self.cluster.delete(kind, each["metadata"]["name"], NAMESPACE)

        def none_left() -> bool:
            pods = self.cluster.list(POD, NAMESPACE)
            for pod in pods:
                if "deletionTimestamp" not in pod["metadata"]:
                    self.cluster.delete(POD, pod["metadata"]["name"], NAMESPACE, grace=1)
            return not pods

        wait_for(none_left, "all pods are gone", self.patience)

    def pod(self, name: str) -> Document:
        """A pod now."""
        found = self.cluster.get(POD, name, NAMESPACE)
        if found is None:
            raise Failed(f"pod {name} is gone")
        return found

    def events(self, pod: str) -> list[Document]:
        """Of a pod, oldest first."""
        found = self.cluster.list(EVENT, NAMESPACE, fieldSelector=f"involvedObject.name={pod}")
        return sorted(found, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))

    def image_time(self, pod: str) -> str:
        """How long the image took, as the kubelet tells it in the pod's events."""
        for event in self.events(pod):
            if event.get("reason") == "Pulled":
                message = event.get("message", "")
                if PRESENT in message:
                    return "none: already present"
                taken = re.search(r" in ([0-9.hmsµ]+s) ", message)
                return taken[1] if taken else message
        return "not told"

    def is_untouched(self, pod: Document) -> bool:
        """Does the container still run that ran when ``pod`` was looked at?"""
        return container_ids(self.pod(pod["metadata"]["name"])) == container_ids(pod)

    def stays_untouched(self, pods: list[Document], what: str) -> None:
        """Check it for all of them."""
        lost = [pod["metadata"]["name"] for pod in pods if not self.is_untouched(pod)]
        self.report.check(not lost, f"running pods are untouched by {what}", ", ".join(lost))

    def _await_started(self, name: str, what: str) -> Document:
        def started() -> Document | None:
            pod = self.pod(name)
            return pod if container_ids(pod) else None

        self._await_bound(name)
        return wait_for(started, what, self.patience, lambda: self._why_not(name))

    def _await_bound(self, name: str) -> None:
        """Give the scheduler a moment; where none looks at the pod, do as it would."""

        def looked_at() -> bool:
            scheduled = any(each.get("reason") == "FailedScheduling" for each in self.events(name))
            return bool(self.pod(name)["spec"].get("nodeName")) or scheduled

        try:
            wait_for(looked_at, "a scheduler", _SCHEDULER_SECONDS)
        except Failed:
            node = self._fitting_node(self.pod(name))
            if node and not self.pod(name)["spec"].get("nodeName"):
                self.report.note(f"no scheduler looks at pods here: {name} is bound to {node}")
                self.cluster.bind(name, NAMESPACE, node)

    def _fitting_node(self, pod: Document) -> str:
        wanted = ",".join(f"{key}={value}" for key, value in pod["spec"].get("nodeSelector", {}).items())
        found = self.cluster.list(NODE, **({"labelSelector": wanted} if wanted else {}))
        return str(found[0]["metadata"]["name"]) if found else ""

    def _why_not(self, name: str) -> str:
        pod = self.cluster.get(POD, name, NAMESPACE) or {}
        status = pod.get("status", {})
        waiting = [each.get("state", {}).get("waiting", {}) for each in status.get("containerStatuses", ())]
        told = [
            status.get("phase", ""),
            *(f"{each.get('reason')}: {each.get('message', '')}" for each in waiting if each),
        ]
        told += [f"{each.get('reason')}: {each.get('message', '')}" for each in self.events(name)[-4:]]
        return "; ".join(filter(None, told))

    def _knative(self, service: Document) -> str:
        document = copy.deepcopy(service)
        name = self._name()
        document["metadata"] = {**document["metadata"], "name": name, "namespace": NAMESPACE}
        self.cluster.create(document)
        label = f"serving.knative.dev/service={name}"
        pod = wait_for(
            lambda: next(iter(self.cluster.list(POD, NAMESPACE, labelSelector=label)), None),
            f"Knative makes a pod of {name}",
            self.patience,
        )
        return str(pod["metadata"]["name"])

    def _deployment(self, template: Mapping[str, Any]) -> str:
        name = self._name()
        self.cluster.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": {_LABEL: name}},
                    "template": self._filled(template, name),
                },
            }
        )
        return name

    def _pod_of(self, deployment: str, seconds: float) -> str:
        selector = f"{_LABEL}={deployment}"
        try:
            pod = wait_for(
                lambda: next(iter(self.cluster.list(POD, NAMESPACE, labelSelector=selector)), None),
                f"Deployment {deployment} has a pod",
                seconds,
            )
        except Failed:
            return ""
        return str(pod["metadata"]["name"])

    def _filled(self, template: Mapping[str, Any], name: str) -> Document:
        """The template with what this cluster needs; nothing that the user wrote is changed."""
        filled: Document = copy.deepcopy(dict(template))
        filled.setdefault("metadata", {}).setdefault("labels", {})[_LABEL] = name
        spec = filled["spec"]
        spec.setdefault("automountServiceAccountToken", False)
        spec.setdefault("terminationGracePeriodSeconds", 1)
        spec.setdefault("tolerations", [{"operator": "Exists"}])
        if not self.options.pod_network:
            spec.setdefault("hostNetwork", True)
        for number, container in enumerate(spec["containers"]):
            container.setdefault("name", f"c{number}")
            container.setdefault("imagePullPolicy", "IfNotPresent")
        return filled

    def _name(self) -> str:
        self._started += 1
        return f"e2e-{self._started}"


def plain_template(image: str, annotations: Mapping[str, str] | None = None) -> Document:
    """A pod template of one container."""
    metadata = {"annotations": dict(annotations)} if annotations else {}
    return {"metadata": metadata, "spec": {"containers": [{"name": "main", "image": image}]}}


def container_ids(pod: Document) -> tuple[str, ...]:
    """Of the containers that have started, each with how often it was restarted."""
    found = pod.get("status", {}).get("containerStatuses", ())
    return tuple(
        f"{each['containerID']}/{each.get('restartCount', 0)}" for each in found if each.get("containerID")
    )


def refusal(act: Callable[[], object]) -> Refused | None:
    """What the API server said to ``act``, if it refused."""
    try:
        act()
    except Refused as refused:
        return refused
    return None
