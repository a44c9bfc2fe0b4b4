"""``daemonset/``: every object fits the others, the code and the rules of a careful cluster."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import yaml
from lightkube import codecs

from imagecached import config
from imagecached.config import sections
from imagecached.imagecache import annotations as keys
from tests.e2e.kustomize import Document, build, sources, walk, with_image

PROJECT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = PROJECT / "daemonset"
NAMESPACE: Final = "imagecached-system"
BASE: Final = build(FOLDER)
REMOVAL: Final = build(FOLDER / "removal")
MONITORING: Final = build(FOLDER / "with-monitoring")
CLUSTER_KINDS: Final = frozenset(
    "Namespace CustomResourceDefinition ClusterRole ClusterRoleBinding RuntimeClass "
    "MutatingWebhookConfiguration ValidatingWebhookConfiguration ValidatingAdmissionPolicy "
    "ValidatingAdmissionPolicyBinding".split()
)


def _one(kind: str, name: str, documents: list[Document] = BASE) -> Document:
    [found] = [each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def _pods() -> Iterator[tuple[str, Document]]:
    for document in (*BASE, *REMOVAL):
        if document["kind"] in ("DaemonSet", "Deployment"):
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def _containers() -> Iterator[tuple[str, Document]]:
    for name, pod in _pods():
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield f"{name}/{container['name']}", container


DAEMON: Final = _one("DaemonSet", "imagecached")["spec"]["template"]["spec"]
CONTROLLER: Final = _one("Deployment", "imagecached-controller")["spec"]["template"]["spec"]


def test_every_manifest_belongs_to_a_kustomization() -> None:
    """No file lies about that nobody applies, and none is missing."""
    roots = {path.parent for path in FOLDER.rglob("kustomization.yaml")}
    used = {path.resolve() for root in roots for path in sources(root)}
    assert all(path.is_file() for path in used)
    manifests = {
        path.resolve()
        for path in FOLDER.rglob("*.yaml")
        if "kind:" in path.read_text() and path.parent.name not in ("monitoring", "examples")
    }
    assert manifests <= used


def test_kubectl_builds_the_same() -> None:
    """Our part of kustomize and the real one agree about every object."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl here")
    for folder in sorted(path.parent for path in FOLDER.rglob("kustomization.yaml")):
        if yaml.safe_load((folder / "kustomization.yaml").read_text())["kind"] == "Component":
            continue
        done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=True)
        theirs = [each for each in yaml.safe_load_all(done.stdout) if each]
        key = "{0[kind]}/{0[metadata][name]}".format
        assert sorted(theirs, key=key) == sorted(build(folder), key=key)


def _as_kubernetes_reads(document: Document) -> Any:
    """Through typed objects, which drop what they do not know."""
    return msgspec.to_builtins(codecs.from_dict(document))


def test_every_field_is_known_to_kubernetes() -> None:
    """Nothing that is written is lost: no key is misspelt or misplaced."""
    for document in (*BASE, *REMOVAL):
        assert _as_kubernetes_reads(document) == document, document["metadata"]["name"]
    wrong = copy.deepcopy(_one("DaemonSet", "imagecached"))
    wrong["spec"]["template"]["spec"]["hostPid"] = True
    assert _as_kubernetes_reads(wrong) != wrong


def test_objects_are_ours_and_in_their_place() -> None:
    """Each is labelled as a part of the product, and lives in the namespace that goes with it at the end."""
    seen = set()
    for document in (*MONITORING, *REMOVAL):
        metadata = document["metadata"]
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "imagecached"
        assert metadata.get("namespace") == (None if document["kind"] in CLUSTER_KINDS else NAMESPACE)
        identity = (document["kind"], metadata["name"])
        assert identity not in seen
        seen.add(identity)


def test_every_container_states_what_it_needs() -> None:
    """Requests, a limit of memory, no limit of processor time, a root file system that cannot be written."""
    for name, container in _containers():
        resources = container["resources"]
        assert set(resources["requests"]) == {"cpu", "memory"}, name
        assert set(resources["limits"]) == {"memory"}, name
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert container["imagePullPolicy"] == "IfNotPresent", name
        assert container["image"] == "imagecached:0.1.0", name


def test_every_pod_keeps_to_itself() -> None:
    """No variables of foreign Services, a priority, and mounts of volumes that exist."""
    for name, pod in _pods():
        assert pod["enableServiceLinks"] is False, name
        assert pod["priorityClassName"].startswith("system-"), name
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}, name
        mounted = {
            mount["name"]
            for container in (*pod.get("initContainers", ()), *pod["containers"])
            for mount in container.get("volumeMounts", ())
        }
        assert mounted == {volume["name"] for volume in pod.get("volumes", ())}, name


def test_only_node_containers_are_privileged() -> None:
    """Those that mount for the host or change it; everything else runs as nobody without any capability."""
    for name, container in _containers():
        context = container["securityContext"]
        if name in ("imagecached/setup", "imagecached/imagecached", "imagecached-removal/remove"):
            assert context["privileged"] is True
        else:
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["allowPrivilegeEscalation"] is False
    assert CONTROLLER["securityContext"]["runAsNonRoot"] is True
    assert CONTROLLER["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not CONTROLLER.keys() & {"hostNetwork", "hostPID", "hostIPC"}


def test_mounts_go_to_the_host_under_the_same_path() -> None:
    """containerd is told paths as we see them, so they must be the host's; only the store's go both ways."""
    [container] = DAEMON["containers"]
    host = {
        volume["name"]: volume["hostPath"]["path"] for volume in DAEMON["volumes"] if "hostPath" in volume
    }
    both_ways = set()
    for mount in container["volumeMounts"]:
        if mount["name"] in host:
            assert mount["mountPath"] == host[mount["name"]]
        if mount.get("mountPropagation") == "Bidirectional":
            both_ways.add(mount["mountPath"])
    assert both_ways == {str(config.DaemonSection().root)}


def test_the_end_of_a_daemon_touches_no_container() -> None:
    """Nothing runs before it stops, and one daemon at a time holds the store."""
    [container] = DAEMON["containers"]
    assert "lifecycle" not in container
    strategy = _one("DaemonSet", "imagecached")["spec"]["updateStrategy"]
    assert "maxSurge" not in strategy["rollingUpdate"]


def test_the_daemon_drops_the_capabilities_that_the_unit_drops() -> None:
    """On a node and on a VM it can do the same and no more."""
    unit = (PROJECT / "systemd/imagecached.service").read_text()
    of_unit = set(
        re.findall(r"CAP_(\w+)", " ".join(re.findall(r"^CapabilityBoundingSet=~(.*)$", unit, re.M)))
    )
    [option] = [word for word in DAEMON["containers"][0]["command"] if word.startswith("--bounding-set=")]
    assert {word.removeprefix("-").upper() for word in option.split("=")[1].split(",")} == of_unit


def test_probes_ask_pages_that_exist() -> None:
    """Alive, ready, and on the node by the loopback address that the daemon listens on by default."""
    host, port = config.split_address(config.HttpSection().address) or ("", 0)
    for name, container in _containers():
        ports = {entry["name"]: entry["containerPort"] for entry in container.get("ports", ())}
        probes = {key: container[key]["httpGet"] for key in container if key.endswith("Probe")}
        for probe, request in probes.items():
            assert request["path"] == ("/readyz" if probe == "readinessProbe" else "/livez"), name
            assert ports[request["port"]] == port, name
            assert request.get("host") == (host if name == "imagecached/imagecached" else None), name
        assert bool(probes) is (name in ("imagecached/imagecached", "imagecached-controller/controller")), (
            name
        )


def test_settings_in_the_environment_exist() -> None:
    """Each IMAGECACHED_SECTION__KEY is a key: an unknown one would keep the daemon from starting."""
    for name, container in _containers():
        for variable in container.get("env", ()):
            section, mark, key = variable["name"].removeprefix("IMAGECACHED_").lower().partition("__")
            if mark:
                assert key in sections.KEYS[section], f"{name}: {variable['name']}"


def test_the_webhook_is_told_about_annotated_pods_only() -> None:
    """Every spelling of our annotations, no other pod, never the system's or our own namespace."""
    explicit, auto = _one("MutatingWebhookConfiguration", "imagecached")["webhooks"]
    assert (explicit["name"], explicit["failurePolicy"]) == ("explicit.imagecached.dev", "Fail")
    assert (auto["name"], auto["failurePolicy"]) == ("auto.imagecached.dev", "Ignore")
    for webhook in (explicit, auto):
        assert webhook["sideEffects"] == "NoneOnDryRun"
        assert webhook["timeoutSeconds"] <= 5
        [rule] = webhook["rules"]
        assert (rule["operations"], rule["resources"]) == (["CREATE"], ["pods"])
        [excluded] = webhook["namespaceSelector"]["matchExpressions"]
        assert (excluded["operator"], set(excluded["values"])) == ("NotIn", {"kube-system", NAMESPACE})
    asked = [
        _quoted(condition["expression"])
        for webhook in (explicit, auto)
        for condition in webhook["matchConditions"]
    ]
    names_a_cache, asks_for_a_match, names_no_cache = asked
    assert names_a_cache == names_no_cache == set(keys.EXPLICIT_ID)
    assert asks_for_a_match == {*keys.AUTO_MATCH, "false"}


def _quoted(expression: str) -> set[str]:
    return set(re.findall(r"'([^']*)'", expression))


def test_misplaced_annotations_are_warned_about() -> None:
    """All of those that a pod may carry, and nothing is ever refused for them."""
    policy = _one("ValidatingAdmissionPolicy", "imagecached-placement")
    [validation] = policy["spec"]["validations"]
    names = {f"{keys.ECI}{name}" for name in _quoted(validation["expression"]) if not name.endswith("/")}
    assert names == {
        *keys.AUTO_MATCH,
        *keys.EXPLICIT_ID,
        keys.PERFECT_MATCH,
        keys.MATCH_COUNT,
    }
    assert _one("ValidatingAdmissionPolicyBinding", "imagecached-placement")["spec"]["validationActions"] == [
        "Warn"
    ]


def test_policies_are_bound_and_name_accounts_that_exist() -> None:
    """A policy without binding does nothing, and one for a misspelt account neither."""
    policies = {each["metadata"]["name"] for each in BASE if each["kind"] == "ValidatingAdmissionPolicy"}
    bound = {
        each["spec"]["policyName"] for each in BASE if each["kind"] == "ValidatingAdmissionPolicyBinding"
    }
    assert policies == bound
    accounts = {
        f"system:serviceaccount:{NAMESPACE}:{each['metadata']['name']}"
        for each in BASE
        if each["kind"] == "ServiceAccount"
    }
    named = set(re.findall(r"system:serviceaccount:[a-z:-]+", json.dumps(BASE)))
    assert named == accounts


def test_services_reach_the_pods_they_mean() -> None:
    """Selectors, ports and names of Service, webhook, budget and workload agree."""
    labels = _one("Deployment", "imagecached-controller")["spec"]["template"]["metadata"]["labels"]
    service = _one("Service", "imagecached-webhook")
    budget = _one("PodDisruptionBudget", "imagecached-controller")
    assert service["spec"]["selector"].items() <= labels.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
    names = {port["name"] for port in CONTROLLER["containers"][0]["ports"]}
    [port] = service["spec"]["ports"]
    assert port["targetPort"] in names
    for webhook in _one("MutatingWebhookConfiguration", "imagecached")["webhooks"]:
        assert webhook["clientConfig"]["service"] == {
            "name": "imagecached-webhook",
            "namespace": NAMESPACE,
            "path": "/mutate",
            "port": port["port"],
        }


def test_events_of_a_pod_are_no_reason_to_refuse_it() -> None:
    """The second look, when a pod has its uid, only tells, and only of pods that the first one wrote on."""
    [observe] = _one("ValidatingWebhookConfiguration", "imagecached")["webhooks"]
    [explicit, _] = _one("MutatingWebhookConfiguration", "imagecached")["webhooks"]
    assert (observe["failurePolicy"], observe["timeoutSeconds"]) == ("Ignore", 1)
    for field in ("rules", "namespaceSelector", "sideEffects"):
        assert observe[field] == explicit[field]
    service = explicit["clientConfig"]["service"]
    assert observe["clientConfig"]["service"] == {**service, "path": "/observe"}
    [condition] = observe["matchConditions"]
    assert "'imagecached.dev/match-degree' in object.metadata.annotations" in condition["expression"]


def test_the_runtime_class_selects_nodes_with_the_handler() -> None:
    """A pod that got a cache never meets a containerd that does not know the handler."""
    found = _one("RuntimeClass", "imagecached")
    assert found["handler"] == "imagecached"
    assert found["scheduling"]["nodeSelector"] == {"imagecached.dev/handler": "ready"}


def test_accounts_hold_little() -> None:
    """No wildcard, no impersonation, no way to grant more than is held, Secrets by name and not on nodes."""
    for document in BASE:
        for rule in document.get("rules", ()) if document["kind"] in ("Role", "ClusterRole") else ():
            assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
            assert not set(rule["verbs"]) & {"escalate", "bind", "impersonate"}
            if "secrets" in rule["resources"]:
                assert document["metadata"]["name"] == "imagecached-controller"
                assert "resourceNames" in rule or rule["verbs"] in (["get"], ["create"])


def test_the_installers_place_for_an_image_is_everywhere() -> None:
    """One flag replaces the image of every container."""
    documents = with_image((*BASE, *REMOVAL), "registry.example/imagecached:9")
    images = {
        node["image"] for node in walk(documents) if isinstance(node, dict) and "imagePullPolicy" in node
    }
    assert images == {"registry.example/imagecached:9"}


def test_the_build_finds_what_it_copies() -> None:
    """What the Dockerfile installs from exists and is not ignored; requirements are taken by digest only."""
    text = (FOLDER / "Dockerfile").read_text()
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    for name in (
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "requirements",
        "daemon",
        "daemonset/node-setup",
        "daemonset/host-containerd",
    ):
        assert name in kept
        assert (PROJECT / name).exists()
    installs = re.findall(r"pip (?:--python \S+ )?install (.*?)&&", text.replace("\\\n", ""))
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert installs


@pytest.mark.parametrize("script", ["install", "uninstall", "node-setup", "host-containerd"])
def test_scripts_are_whole(script: str) -> None:
    """bash reads them to the end, and they may be run."""
    path = FOLDER / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True)


def test_monitoring_adds_to_the_base_and_changes_one_setting() -> None:
    """The pages are opened to Prometheus; everything else of the base stays as it is."""
    added = [each for each in MONITORING if each not in BASE]
    assert {each["kind"] for each in added} == {"PodMonitor", "ConfigMap", "DaemonSet"}
    container = _one("DaemonSet", "imagecached", MONITORING)["spec"]["template"]["spec"]["containers"][0]
    address = {"name": "IMAGECACHED_HTTP__ADDRESS", "value": "0.0.0.0:9273"}
    assert container["env"] == [*DAEMON["containers"][0]["env"], address]
    [monitor] = [each for each in added if each["kind"] == "PodMonitor"]
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container["ports"]}
    [dashboard] = [each for each in added if each["kind"] == "ConfigMap"]
    assert json.loads(dashboard["data"]["dashboard.json"])["title"] == "imagecached"


def test_kubernetes_takes_a_drop_of_capabilities_by_setpriv() -> None:
    """The program before ours is understood by the kernel of this host, word for word."""
    command = DAEMON["containers"][0]["command"]
    done = subprocess.run([*command[:-1], "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_handbook_names_what_exists() -> None:
    """Reasons, labels, annotations, settings, files and commands of the README are those of the code."""
    text = (FOLDER / "README.md").read_text()
    code = "".join(path.read_text() for path in (PROJECT / "daemon/imagecached").rglob("*.py"))
    reasons = "".join(line.split("|")[1] for line in text.splitlines() if line.startswith("| reason "))
    events = "".join(line for line in text.splitlines() if line.startswith("Pods carry events"))
    named = re.findall(r"`([A-Z][A-Za-z]+)`", reasons + events)
    assert len(named) > 10
    for name in named:
        assert f'"{name}"' in code, name
    for section, key in re.findall(r"`(controller|store)\.([a-z_]+)`", text):
        assert key in sections.KEYS[section]
    for path in re.findall(r"`((?:base|removal|examples|monitoring)/[a-z./-]*)`", text):
        assert (FOLDER / path).exists(), path
    for path in re.findall(r"\]\((?!http)([^)]+)\)", text):
        assert (FOLDER / path).exists() or path == "SCALE.md"
    for name in re.findall(r"k8s\.aliyun\.com/([a-z-]+)", text):
        assert f"{keys.ECI}{name}" in (*keys.AUTO_MATCH, *keys.EXPLICIT_ID)
    for script in set(re.findall(r"(?:daemonset|scripts)/(?:install|uninstall|e2e-cluster)\b", text)):
        assert (PROJECT / script).exists()
