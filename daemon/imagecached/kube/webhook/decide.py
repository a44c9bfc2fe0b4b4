"""What becomes of a pod that asks for a cache, and what is to be done about it besides. Pure.

* An explicit id that is unknown or does not serve refuses the pod; the message names cache and phase.
* Automatic matching never refuses: where it cannot help, the pod stays as it came.
* A pod that no node with our runtime handler could start, that has another RuntimeClass, or that is not for
  Linux, keeps its way of starting.
* A dry run gets the same answer, and nothing is done besides.

Anybody who reaches the port can ask, so a question alone makes nothing: what a pod is to cause (a cache for
the next one, which may name its pull Secrets; the time of the last match) is decided again from the pod that
the API server has, once it has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from imagecached.errors import InvalidInput
from imagecached.imagecache import (
    Candidates,
    Creation,
    Decision,
    Limits,
    PodImages,
    as_written,
    match_indexed,
)
from imagecached.imagecache import annotations as keys
from imagecached.kube.recorder import About, EventType
from imagecached.kube.webhook.patch import pod_patch
from imagecached.kube.webhook.review import Answer, Request

PREFIX: Final = "[eci.imagecache] "
"""Every message of a pod's event begins with it, as ECI's do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How this cluster wants it.

    ``exempt``: namespaces whose pods are never touched. ``can_start``: is there a node with our runtime
    handler for this nodeSelector, and for the one node that the pod is bound to, if it is?
    """

    runtime_class: str = "imagecached"
    exempt: frozenset[str] = frozenset({"kube-system", "imagecached-system"})
    limits: Limits = field(default_factory=Limits)
    can_start: Callable[[Mapping[str, Any], str], bool] = lambda _selector, _node: True


@dataclass(frozen=True, slots=True)
class Told:
    """A Kubernetes Event to write."""

    about: About
    reason: str
    message: str
    kind: EventType = "Normal"


@dataclass(frozen=True, slots=True)
class Admitted:
    """The answer, and the events of a pod that is refused. ``outcome`` is one word, for metrics."""

    answer: Answer
    outcome: str
    tell: tuple[Told, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod that is said to be stored, which cache it got, and the one it causes; each may be empty."""

    namespace: str
    name: str
    uid: str
    chosen: str = ""
    created: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """What to tell of a pod that is about to be stored, and whether to look at it afterwards."""

    tell: tuple[Told, ...] = ()
    seen: Seen | None = None


UNTOUCHED: Final = Admitted(Answer(), "untouched")


def decide(request: Request, candidates: Candidates, rules: Rules) -> Admitted:
    """The answer to a pod's creation."""
    if request.kind != "Pod" or request.operation != "CREATE" or request.namespace in rules.exempt:
        return UNTOUCHED
    try:
        pod = PodImages.of(_pod(request))
    except InvalidInput:
        return UNTOUCHED  # the API server says better what is wrong with it
    if not pod.explicit and not pod.auto:
        return Admitted(Answer(warnings=_warnings(pod.warnings)), "untouched")
    decision = match_indexed(pod, candidates, rules.limits)
    if decision.refused:
        return _refused(request, decision)
    obstacle = _obstacle(request.object.get("spec") or {}, request, rules)
    if obstacle:
        return Admitted(Answer(warnings=_warnings((obstacle, *pod.warnings))), "untouched")
    return _allowed(request, pod, decision, rules)


def is_explicit(request: Request) -> bool:
    """Does the pod name a cache, so that it must not start without an answer?"""
    return any(isinstance(request.annotations.get(key), str) for key in keys.EXPLICIT_ID)


def observe(request: Request) -> Observed:
    """Of a pod that has its name and uid by now: what :func:`decide` wrote on it, in ECI's words."""
    found = {key: request.metadata.get(key) for key in ("name", "uid")}
    if request.kind != "Pod" or request.operation != "CREATE" or request.dry_run:
        return Observed()
    name, uid = found["name"], found["uid"]
    if not isinstance(name, str) or not isinstance(uid, str) or not name or not uid:
        return Observed()
    chosen, created = (_text(request.annotations, key) for key in (keys.CHOSEN_ID, keys.AUTO_CREATED))
    degree = _text(request.annotations, keys.MATCH_DEGREE)
    tell = tuple(_events(About("v1", "Pod", name, uid, request.namespace), degree, chosen, created))
    return Observed(tell, Seen(request.namespace, name, uid, chosen, created) if chosen or created else None)


def wanted(pod: Mapping[str, Any], candidates: Candidates, rules: Rules) -> Creation | None:
    """The cache to make for a pod that is stored, if it still finds no full match."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    try:
        found = as_written(PodImages.of({**pod, "kind": "Pod"}), _text(annotations, keys.AS_WRITTEN))
    except InvalidInput:
        return None
    return match_indexed(found, candidates, rules.limits).create


def _events(pod: About, degree: str, chosen: str, created: str) -> Iterator[Told]:
    if chosen:
        message = f"{PREFIX}image cache {chosen} matches: {degree} images"
        yield Told(pod, "SuccessfulHitImageCache", message)
    elif degree:
        yield Told(pod, "ImageCacheMissed", f"{PREFIX}no image cache matches: {degree} images", "Warning")
    if created:
        message = f"{PREFIX}image cache {created} is being created for the images of this pod"
        yield Told(pod, "ImageCacheAutoCreated", message)


def _text(annotations: Mapping[str, Any], key: str) -> str:
    found = annotations.get(key)
    return found if isinstance(found, str) else ""


def _pod(request: Request) -> dict[str, Any]:
    metadata = {**request.metadata, "namespace": request.namespace}
    return {**request.object, "kind": "Pod", "metadata": metadata}


def _obstacle(spec: Mapping[str, Any], request: Request, rules: Rules) -> str:
    """Why the pod cannot start from prepared snapshots, whatever is cached; empty if it can."""
    other = spec.get("runtimeClassName")
    if other and other != rules.runtime_class:
        return f"image caches are not used: the pod has RuntimeClass {other}, not {rules.runtime_class}"
    if _system(spec) not in ("", "linux"):
        return f"image caches are not used: they are for linux, not for {_system(spec)}"
    if "kubernetes.io/config.mirror" in request.annotations:
        return "image caches are not used for static pods"
    selector, node = spec.get("nodeSelector"), _bound_to(spec)
    if not rules.can_start(selector if isinstance(selector, Mapping) else {}, node):
        lacking = f"node {node}, to which the pod is bound," if node else "every node the pod may run on"
        return f"image caches are not used: {lacking} lacks the runtime handler"
    return ""


def _system(spec: Mapping[str, Any]) -> str:
    system = spec.get("os")
    named = system.get("name") if isinstance(system, Mapping) else None
    selector = spec.get("nodeSelector")
    chosen = selector.get("kubernetes.io/os") if isinstance(selector, Mapping) else None
    return str(named or chosen or "")


def _bound_to(spec: Mapping[str, Any]) -> str:
    """The one node that the pod can run on: named, or required as the pods of a DaemonSet do."""
    if spec.get("nodeName"):
        return str(spec["nodeName"])
    for level in ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"):
        found = spec.get(level)
        spec = found if isinstance(found, Mapping) else {}
    terms = spec.get("nodeSelectorTerms")
    if not isinstance(terms, list) or len(terms) != 1 or not isinstance(terms[0], Mapping):
        return ""
    for one in terms[0].get("matchFields") or ():
        values = list(one.get("values") or ())
        if (one.get("key"), one.get("operator"), len(values)) == ("metadata.name", "In", 1):
            return str(values[0])
    return ""


def _refused(request: Request, decision: Decision) -> Admitted:
    unknown = decision.outcome == "not-found"
    reason = "ImageCacheNotFound" if unknown else "ImageCacheNotComplete"
    answer = Answer(
        allowed=False,
        warnings=_warnings(decision.warnings),
        audit={"decision": decision.reason},
        reason=reason,
        message=decision.reason,
    )
    told = Told(_owner(request), reason, PREFIX + decision.reason, "Warning" if unknown else "Normal")
    return Admitted(answer, decision.outcome, (told,) if told.about.name and not request.dry_run else ())


def _allowed(request: Request, pod: PodImages, decision: Decision, rules: Rules) -> Admitted:
    chosen, created = decision.chosen, decision.create
    annotations = {keys.MATCH_DEGREE: decision.degree}
    if chosen:
        annotations[keys.CHOSEN_ID] = chosen.id
    if created:
        annotations[keys.AUTO_CREATED] = created.name
    if decision.pinned:
        annotations[keys.AS_WRITTEN] = ",".join(decision.pinned)
    patch = pod_patch(
        request.object,
        pinned=decision.pinned,
        annotations=annotations,
        runtime_class=rules.runtime_class if chosen else "",
        cache_id=chosen.id if chosen else "",
    )
    warnings = _warnings((*decision.warnings, *_always(pod, decision)))
    answer = Answer(patch=patch, warnings=warnings, audit={"decision": decision.reason})
    return Admitted(answer, decision.outcome)


def _always(pod: PodImages, decision: Decision) -> Iterator[str]:
    for image in pod.always:
        if image in decision.held:
            yield (
                f"{image} has imagePullPolicy Always: every start asks the registry, although the image is "
                "cached; IfNotPresent does not"
            )


def _owner(request: Request) -> About:
    """Whom to tell of a pod that never came to be: what made it, or else the pod by name."""
    owners = request.metadata.get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, Mapping) and owner.get("controller"):
            version, kind, name, uid = (
                str(owner.get(key, "")) for key in ("apiVersion", "kind", "name", "uid")
            )
            return About(version, kind, name, uid, request.namespace)
    return About("v1", "Pod", str(request.metadata.get("name") or ""), "", request.namespace)


def _warnings(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text for text in texts if text)
