"""What is tried between install and uninstall, in order. Each scenario says what it shows by its lines."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Final

from imagecached.imagecache.annotations import AUTO_MATCH, AUTOMATIC, CHOSEN_ID, EXPLICIT_ID, MATCH_DEGREE
from imagecached.oci.reference import Reference
from tests.e2e.cluster import Document, holds, wait_for
from tests.e2e.installation import await_rollout, install, uninstall
from tests.e2e.node import restart_containerd, restart_kubelet
from tests.e2e.report import Failed, Skipped
from tests.e2e.world import (
    CACHE,
    DAEMON_SET,
    NODE,
    POD,
    PRESENT,
    SYSTEM,
    World,
    plain_template,
    refusal,
)

_DAY: Final = 86400.0
_UNKNOWN_ID: Final = "imc-00000000000000000000"
_NOWHERE: Final = "registry.invalid/imagecached/e2e:1"


def columns(world: World) -> None:
    """kubectl prints what users' scripts expect."""
    shown = [
        each["name"].upper()
        for each in world.cluster.table(CACHE)["columnDefinitions"]
        if not each.get("priority")
    ]
    wanted = "NAME AGE CACHEID PHASE PROGRESS"
    world.report.check(" ".join(shown) == wanted, f"columns are {wanted}", " ".join(shown))


def schema(world: World) -> None:
    """Bad manifests are refused by the API server, each with its field."""
    good = world.cache_example("e2e-schema")["spec"]
    bad: dict[str, Document] = {
        "images": {**good, "images": []},
        "imageCacheSize": {**good, "imageCacheSize": 19},
        "retentionDays": {**good, "retentionDays": 0},
        "imagePullSecrets": {**good, "imagePullSecrets": ["no-namespace"]},
    }
    for key, spec in bad.items():
        document = {**world.cache_example("e2e-schema"), "spec": spec}
        told = refusal(partial(world.cluster.create, document))
        world.report.check(told is not None and key in told.message, f"a wrong {key} is refused", str(told))


def phases(world: World) -> None:
    """The example, unchanged, becomes ready, and every phase on the way is seen."""
    document = world.cache_example()
    world.cache = document["metadata"]["name"]
    since = world.cluster.revision(CACHE)
    world.cluster.create(document)
    seen: list[str] = []
    for version in world.cluster.watch(CACHE, world.cache, world.patience, since):
        phase = version.get("status", {}).get("phase", "")
        if phase and phase not in seen[-1:]:
            seen.append(phase)
        if phase in ("Ready", "Failed"):
            break
    way = " → ".join(seen)
    world.report.check(
        seen == ["Pending", "Creating", "Ready"],
        "phases are Pending → Creating → Ready",
        f"{way}; {world.seen(world.cache)}",
    )
    status = world.status(world.cache)
    world.cache_id = status.get("imageCacheId", "")
    world.report.check(
        status.get("progress") == "100%", "progress is 100% when it is Ready", str(status.get("progress"))
    )
    world.report.check(world.cache_id.startswith("imc-"), f"the cache has an id: {world.cache_id}")
    world.report.check(all(each.get("digest") for each in status["images"]), "every image has its digest")
    label = f"imagecached.dev/{world.cache_id}=ready"
    wait_for(
        lambda: world.cluster.list(NODE, labelSelector=label), f"a node is labelled {label}", world.patience
    )
    world.report.ok("nodes that hold it are labelled")
    taken = _seconds(status["lastUpdatedTime"]) - _seconds(status["startTime"])
    nodes = f"{status.get('nodesReady')}/{status.get('nodesTotal')} nodes"
    world.report.note(f"ready after {taken:.0f} s, {status.get('bytesTotal', 0) >> 20} MiB, {nodes}")


def automatic(world: World) -> None:
    """A pod that asks for the best match starts from the cache without pulling."""
    image = world.options.images[0]
    pod = world.run(world.knative_example("knative-auto.yaml", image), "a pod with automatic matching starts")
    world.report.ok("the example with automatic matching starts")
    _check_hit(world, pod, image)
    # What Knative makes of it: the tag is gone before the pod is made.
    resolved = world.knative_example("knative-auto.yaml", _by_digest(world, image))
    _check_hit(world, world.run(resolved, "a pod whose image is a digest starts"), image)


def always(world: World) -> None:
    """A matched pod may ask the registry each time; it still runs from the cache."""
    image = world.options.images[0]
    template = plain_template(image, {AUTO_MATCH[0]: "true"})
    template["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    pod = world.run_template(template, "a matched pod with imagePullPolicy Always starts")
    handler = pod["spec"].get("runtimeClassName")
    world.report.check(
        handler == "imagecached", "a matched pod with imagePullPolicy Always starts", str(handler)
    )
    world.report.note(f"image preparation with Always: {world.image_time(pod['metadata']['name'])}")


def explicit(world: World) -> None:
    """A pod that names the cache starts from it."""
    image = world.options.images[0]
    service = world.knative_example("knative-explicit.yaml", image, world.cache_id)
    pod = world.run(service, "a pod that names its cache starts")
    world.report.ok("the example with an explicit id starts")
    _check_hit(world, pod, image)


def _check_hit(world: World, pod: Document, image: str) -> None:
    name, notes = pod["metadata"]["name"], pod["metadata"].get("annotations", {})
    world.report.check(notes.get(CHOSEN_ID) == world.cache_id, "the pod says which cache it got", str(notes))
    # Knative puts a container of its own beside the user's, whose image no example cache holds.
    degrees = ("full",) if len(pod["spec"]["containers"]) == 1 else ("full", "partial")
    told = notes.get(MATCH_DEGREE, "")
    world.report.check(told.startswith(degrees), f"and how well it matches: {told}", str(notes))
    handler = pod["spec"].get("runtimeClassName")
    world.report.check(handler == "imagecached", "it has our RuntimeClass", str(handler))
    reference = Reference.parse(image)
    found = [Reference.parse(each["image"]) for each in pod["spec"]["containers"]]
    written = next(str(each) for each in found if each.repository == reference.repository)
    world.report.check("@sha256:" in written, "its image is pinned to the digest", written)
    wait_for(
        lambda: any(PRESENT in each.get("message", "") for each in world.events(name)),
        f"the kubelet finds the image of {name} already present",
        world.patience,
        lambda: world.image_time(name),
    )
    world.report.ok("the kubelet found the image already present")
    wait_for(
        lambda: any(each.get("reason") == "SuccessfulHitImageCache" for each in world.events(name)),
        f"an event on {name} tells of the hit",
        world.patience,
    )
    world.report.ok("an event tells of the hit")
    world.report.note(f"image preparation of {name}: {world.image_time(name)}")


def refused(world: World) -> None:
    """An id that is unknown or not ready keeps the pod from being made, and the message says why."""
    world.cluster.create({**world.cache_example("e2e-nowhere"), "spec": {"images": [_NOWHERE]}})
    unready = wait_for(
        lambda: world.status("e2e-nowhere").get("imageCacheId"), "the id is there at once", world.patience
    )
    image = world.options.images[0]
    for cache_id, words in ((_UNKNOWN_ID, ()), (str(unready), ("e2e-nowhere",))):
        service = world.knative_example("knative-explicit.yaml", image, cache_id)
        document = world.pod_document(service["spec"]["template"])
        told = refusal(partial(world.cluster.create, document))
        text = told.message if told else "it was created"
        phase = world.status("e2e-nowhere").get("phase", "") if words else ""
        world.report.check(told is not None and cache_id in text, f"a pod with {cache_id} is refused", text)
        if words:
            world.report.check(
                all(word in text for word in (*words, phase)),
                f"the message names the cache and its phase {phase}",
                text,
            )
    world.cluster.delete(CACHE, "e2e-nowhere")


def creation(world: World) -> None:
    """A pod that found no cache starts, and a cache is made for the next one."""
    image = world.options.images[2]
    if not image:
        raise Skipped("--images names no image that the example cache lacks")
    service = world.knative_example("knative-auto.yaml", image)
    world.cluster.create(world.pod_document(service["spec"]["template"]), dry_run=True)
    world.report.check(
        not _automatic_caches(world), "a dry run makes no cache", str(_automatic_caches(world))
    )
    first = world.run(service, "a pod that finds no cache starts")
    world.report.ok("a pod that finds no cache starts")
    name = wait_for(
        lambda: next(iter(_automatic_caches(world)), None), "a cache is made for it", world.patience
    )
    status = world.await_phase(name, "Ready", "Failed")
    world.report.check(status["phase"] == "Ready", f"{name} becomes Ready", world.seen(name))
    second = world.run(service, "the next pod starts")
    got = second["metadata"].get("annotations", {}).get(CHOSEN_ID)
    world.report.check(got == status["imageCacheId"], "the next pod gets it", str(got))
    world.report.check(len(_automatic_caches(world)) == 1, "one cache is made for one set of images")
    times = [world.image_time(pod["metadata"]["name"]) for pod in (first, second)]
    world.report.note(f"image preparation: {times[0]} without, {times[1]} with the cache")


def _automatic_caches(world: World) -> list[str]:
    return [each["metadata"]["name"] for each in world.cluster.list(CACHE, labelSelector=f"{AUTOMATIC}=true")]


def reuse(world: World) -> None:
    """A second cache of the same layers fetches nothing."""
    world.cluster.create(world.cache_example("e2e-reuse"))
    status = world.await_phase("e2e-reuse", "Ready", "Failed")
    world.report.check(status["phase"] == "Ready", "a second cache becomes Ready", world.seen("e2e-reuse"))
    fetched = status.get("bytesFetched", 0)
    world.report.check(fetched == 0, "it fetched no byte: every layer was there", f"{fetched} bytes fetched")


def ordinary(world: World) -> None:
    """Pods without annotations are not touched, whichever way they name an image that is cached."""
    image = world.options.images[0]
    pod = world.run_image(image, "an ordinary pod of a cached image starts")
    world.report.check(
        "runtimeClassName" not in pod["spec"], "an ordinary pod of a cached image starts, unchanged"
    )
    world.report.note(f"image preparation of the ordinary pod: {world.image_time(pod['metadata']['name'])}")
    world.run_image(_by_digest(world, image), "an ordinary pod naming the very digest starts")
    world.report.ok("an ordinary pod naming the very digest starts")


def _by_digest(world: World, image: str) -> str:
    """An image of the cache by the digest that was resolved for it."""
    digest = next(each["digest"] for each in world.status(world.cache)["images"] if each["image"] == image)
    reference = Reference.parse(image)
    return f"{reference.registry}/{reference.repository}@{digest}"


def retention(world: World) -> None:
    """The time at which a cache goes follows from retentionDays."""
    found = world.cluster.get(CACHE, world.cache) or {}
    days = found["spec"]["retentionDays"]
    told = found["status"].get("expireDateTime")
    if not told:
        raise Failed("there is no expireDateTime")
    since = _seconds(told) - _seconds(found["metadata"]["creationTimestamp"])
    world.report.check(
        days * _DAY <= since < (days + 1) * _DAY,
        f"it expires {days} days after it was made",
        f"{since / _DAY:.2f} days",
    )


def deletion(world: World) -> None:
    """Deleting a cache leaves running pods alone."""
    world.cluster.create(world.cache_example("e2e-deletion"))
    status = world.await_phase("e2e-deletion", "Ready")
    cache_id = status["imageCacheId"]
    image = world.options.images[1]
    pod = world.run_image(image, "a pod of the second image starts", {EXPLICIT_ID[0]: cache_id})
    world.cluster.delete(CACHE, "e2e-deletion")
    wait_for(lambda: world.cluster.get(CACHE, "e2e-deletion") is None, "the cache is gone", world.patience)
    label = f"imagecached.dev/{cache_id}"
    wait_for(lambda: not world.cluster.list(NODE, labelSelector=label), "no node is labelled", world.patience)
    world.report.ok("a deleted cache is gone, and so are its labels")
    if is_lasting(pod):
        world.stays_untouched([pod], "the deletion of their cache")
    told = refusal(
        lambda: world.cluster.create(world.pod_document(plain_template(image, {EXPLICIT_ID[0]: cache_id})))
    )
    world.report.check(told is not None, "its id is refused from then on")


def daemon(world: World) -> None:
    """The daemon may die at any time: what runs goes on, and what is new starts when it is back."""
    running = _running(world)
    if world.node is not None:
        world.node.kill_daemon()
        world.stays_untouched(running, "the daemon's death")
        world.run_image(world.options.images[0], "an ordinary pod starts while the daemon is dead")
        world.report.ok("an ordinary pod starts while the daemon is dead")
        world.node.start_daemon()
    else:
        for pod in world.cluster.list(POD, SYSTEM, labelSelector="app.kubernetes.io/component=node"):
            world.cluster.delete(POD, pod["metadata"]["name"], SYSTEM, grace=0)
        await_rollout(world)
        world.stays_untouched(running, "the daemon's death")
    _starts_matched(world, "after the daemon is back")


def upgrade(world: World) -> None:
    """Another version takes over the same store."""
    running = _running(world)
    if world.node is not None:
        world.node.stop()
        world.node.start_daemon()
        world.node.start_controller()
    else:
        notes = {"imagecached.dev/e2e-upgrade": "1"}
        patch = {"spec": {"template": {"metadata": {"annotations": notes}}}}
        world.cluster.merge(DAEMON_SET, "imagecached", patch, SYSTEM)
        await_rollout(world)
    world.stays_untouched(running, "an upgrade")
    phase = world.status(world.cache).get("phase")
    world.report.check(phase == "Ready", "the cache is still Ready", str(phase))
    _starts_matched(world, "after an upgrade")


def restart(world: World) -> None:
    """containerd and the kubelet restart; nothing has to be fetched again."""
    options = world.options
    if not options.containerd_restart:
        raise Skipped("no --containerd-restart, for a host that is the node")
    running = _running(world)
    restart_containerd(options)
    world.stays_untouched(running, "a restart of containerd")
    if options.kubelet_restart:
        restart_kubelet(options)
        wait_for(lambda: _nodes_are_ready(world), "the node is Ready again", world.patience)
        world.stays_untouched(running, "a restart of the kubelet")
    else:
        world.report.skip("the kubelet: no --kubelet-restart")
    _starts_matched(world, "after the restart")


def _running(world: World) -> list[Document]:
    """A pod from the cache that runs on, to see what happens to it."""
    pod = _matched(world, "a pod from the cache starts")
    return [pod] if is_lasting(pod) else []


def is_lasting(pod: Document) -> bool:
    """Does its container run on, or does its image only do something short?"""
    return any("running" in each.get("state", {}) for each in pod["status"]["containerStatuses"])


def _starts_matched(world: World, when: str) -> None:
    pod = _matched(world, f"a pod from the cache starts {when}")
    name = pod["metadata"]["name"]
    wait_for(lambda: world.image_time(name) != "not told", "the kubelet tells of the image", world.patience)
    told = world.image_time(name)
    world.report.check(
        "already present" in told, f"a pod from the cache starts {when}, without pulling", told
    )


def _matched(world: World, what: str) -> Document:
    return world.run_image(world.options.images[0], what, {AUTO_MATCH[0]: "true"})


def _nodes_are_ready(world: World) -> bool:
    """Those that take part."""
    taking_part = world.cluster.list(NODE, labelSelector="imagecached.dev/handler=ready")
    return bool(taking_part) and all(holds(each, "Ready") for each in taking_part)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


Scenario = Callable[[World], None]
FIRST: Final[dict[str, Scenario]] = {
    "install": install,
    "columns": columns,
    "schema": schema,
    "phases": phases,
}
"""Always, because the others stand on them."""
MIDDLE: Final[dict[str, Scenario]] = {
    "automatic": automatic,
    "explicit": explicit,
    "always": always,
    "refusal": refused,
    "creation": creation,
    "reuse": reuse,
    "ordinary": ordinary,
    "retention": retention,
    "deletion": deletion,
    "daemon": daemon,
    "upgrade": upgrade,
    "restart": restart,
}
LAST: Final[dict[str, Scenario]] = {"uninstall": uninstall}
