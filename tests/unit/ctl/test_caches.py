"""imagecachectl: apply, delete, match, get imagecaches, describe, and run with a pod's annotations."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path

import pytest
import yaml

from imagecached.errors import FailedPrecondition
from imagecached.imagecache import ImageCache, Problem, phases
from tests.fakes.ports import FakePorts, Served, built, cache, failed, image, resolved, view
from tests.unit.ctl.conftest import Ctl

DEMO = cache("demo", "nginx:1", "busybox:1")


def manifest(name: str, *images: str) -> str:
    """As people write it."""
    lines = [f"  - {each}" for each in images]
    head = ["apiVersion: eci.alibabacloud.com/v1", "kind: ImageCache", f"metadata: {{name: {name}}}", "spec:"]
    return "\n".join([*head, "  images:", *lines, ""])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A manifest of two caches."""
    path = tmp_path / "caches.yaml"
    path.write_text(manifest("demo", "nginx:1", "busybox:1") + "---\n" + manifest("other", "nginx:1"))
    return path


def test_the_table_is_kubectls(ctl: Ctl, fakes: FakePorts) -> None:
    """Its header, its columns three blanks apart, its ages; nothing else on standard output."""
    fakes.caches.put(view(DEMO, built))
    fakes.caches.put(view(cache("b", "nginx"), resolved))
    ended = ctl("get", "imagecaches")
    first, second, third = ended.out.splitlines()
    width = len(DEMO.id)
    assert re.fullmatch(rf"NAME   AGE {{3,}}CACHEID {{{width - 7 + 3}}}PHASE {{6}}PROGRESS", first)
    assert re.fullmatch(rf"b      \w+ {{3,}}{cache('b', 'nginx').id}   Creating   33%", second)
    assert re.fullmatch(rf"demo   \w+ {{3,}}{DEMO.id}   Ready {{6}}100%", third)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("kind", ["imagecaches", "imagecache", "imc", "ic"])
def test_the_kind_has_a_clusters_names(ctl: Ctl, fakes: FakePorts, kind: str) -> None:
    """One by name, by id, and as kubectl prints it."""
    fakes.caches.put(view(DEMO, built))
    for name in ("demo", DEMO.id, "imagecache/demo"):
        assert len(ctl("get", kind, name).out.splitlines()) == 2
    ended = ctl("get", kind, "nobody")
    assert (ended.code, ended.err) == (3, "imagecachectl: no ImageCache nobody\n")


def test_nothing_is_said_as_kubectl_says_it(ctl: Ctl, fakes: FakePorts) -> None:
    """On standard error; problems of files too."""
    fakes.problems = [Problem("/etc/x.yaml", "spec.images", "is missing")]
    ended = ctl("get", "imagecaches")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.splitlines() == [
        "imagecachectl: /etc/x.yaml: spec.images: is missing",
        "No resources found",
    ]


def test_wide_and_documents(ctl: Ctl, fakes: FakePorts) -> None:
    """Further columns; JSON and YAML say the same."""
    fakes.caches.put(view(DEMO, failed))
    head, row = (
        re.split(r" {3,}", line) for line in ctl("get", "imagecaches", "-o", "wide").out.splitlines()
    )
    assert head == ["NAME", "AGE", "CACHEID", "PHASE", "PROGRESS", "SOURCE", "EXPIRES", "REASON"]
    assert (row[3], row[5], row[7]) == ("Failed", "api", "ImageNotFound")
    document = json.loads(ctl("get", "imagecaches", "-o", "json").out)
    assert document == yaml.safe_load(ctl("get", "imagecaches", "-o", "yaml").out)
    [one] = document["imagecaches"]
    assert (one["phase"], one["message"], one["usable"], one["settled"]) == (
        "Failed",
        "no such tag",
        False,
        True,
    )
    assert json.loads(ctl("get", "imagecaches", "demo", "-o", "json").out) == one


def test_watching_prints_every_change(ctl: Ctl, fakes: FakePorts, served: Served) -> None:
    """As it is, then each change, until somebody ends it: here the daemon."""
    fakes.caches.put(view(DEMO))
    for acts in ((resolved,), (built,)):
        fakes.caches.changes.put_nowait(view(DEMO, *acts))
    fakes.caches.changes.put_nowait("imc-gone")
    threading.Timer(0.5, served.stop).start()
    ended = ctl("get", "imagecaches", "--watch")
    phases_seen = [line.split()[3] for line in ended.out.splitlines()]
    assert phases_seen[:1] == ["PHASE"]
    assert phases_seen[-2:] == ["Creating", "Ready"]
    assert ended.code == 7
    assert ctl("get", "images", "--watch").code == 2


def test_apply_says_what_became_of_each(ctl: Ctl, file: Path, fakes: FakePorts) -> None:
    """As kubectl does; again: configured."""
    ended = ctl("apply", "-f", str(file))
    assert ended.out.splitlines() == [
        "imagecache.eci.alibabacloud.com/demo created",
        "imagecache.eci.alibabacloud.com/other created",
    ]
    assert ctl("apply", "-f", str(file), "-o", "json").code == 0
    assert sorted(one.name for one in fakes.caches.list()) == ["demo", "other"]


def test_apply_reads_standard_input(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """For pipes."""
    text = io.TextIOWrapper(io.BytesIO(manifest("piped", "nginx").encode()))
    monkeypatch.setattr("sys.stdin", text)
    assert ctl("apply", "-f", "-").out == "imagecache.eci.alibabacloud.com/piped created\n"


def test_one_bad_document_stops_no_other(ctl: Ctl, tmp_path: Path) -> None:
    """It is named with file, document, field and what is allowed; the exit code says that not all is well."""
    path = tmp_path / "mixed.yaml"
    path.write_text(manifest("good", "nginx") + "---\n" + manifest("Bad_Name", "nginx"))
    ended = ctl("apply", "-f", str(path))
    assert ended.code == 2
    assert ended.out == "imagecache.eci.alibabacloud.com/good created\n"
    assert ended.err.startswith(f"imagecachectl: {path}: document 2: metadata.name: must be ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no ImageCache in what was given"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"x" * (1 << 20) + b"y", "larger than"),
    ],
)  # fmt: skip
def test_what_is_no_manifest(ctl: Ctl, tmp_path: Path, content: bytes, says: str) -> None:
    """One line, exit code 2."""
    path = tmp_path / "odd"
    path.write_bytes(content)
    ended = ctl("apply", "-f", str(path))
    assert (ended.code, says in ended.err) == (2, True)
    assert ctl("apply", "-f", str(tmp_path / "none")).code == 2
    assert ctl("apply").code == 2


def test_apply_waits_and_shows_progress(ctl: Ctl, file: Path, fakes: FakePorts, served: Served) -> None:
    """Bytes on standard error, until each is Ready."""
    later = [view(DEMO, resolved), view(DEMO, built), view(cache("other", "nginx:1"), built)]
    original = fakes.caches.apply

    async def apply(caches: list[ImageCache]) -> object:
        outcome = await original(caches)
        for one in later:
            fakes.caches.put(one)
        return outcome

    fakes.caches.apply = apply  # type: ignore[method-assign,assignment]
    ended = ctl("apply", "-f", str(file), "--wait")
    assert ended.code == 0
    assert "demo: Ready 100%, 150 B of 150 B, 20 B reused" in ended.err


@pytest.mark.parametrize(("act", "code"), [(built, 0), (failed, 3)])
def test_waiting_ends_with_the_outcome(
    ctl: Ctl, tmp_path: Path, fakes: FakePorts, act: object, code: int
) -> None:
    """The exit code of what kept it from being Ready."""

    async def apply(caches: list[ImageCache]) -> object:
        fakes.caches.put(view(caches[0], act))  # type: ignore[arg-type]
        return {caches[0].name: "created"}

    fakes.caches.apply = apply  # type: ignore[method-assign,assignment]
    path = tmp_path / "one.yaml"
    path.write_text(manifest("demo", "nginx:1"))
    ended = ctl("apply", "-f", str(path), "--wait", "-q", "-o", "json")
    assert ended.code == code
    assert json.loads(ended.out)["imagecaches"][0]["settled"]
    assert ("demo: Failed: no such tag" in ended.err) == bool(code)


def test_waiting_has_an_end(ctl: Ctl, tmp_path: Path) -> None:
    """Not ready in time is exit code 7; the daemon goes on."""
    path = tmp_path / "one.yaml"
    path.write_text(manifest("demo", "nginx:1"))
    ended = ctl("apply", "-f", str(path), "--wait", "--timeout", "1", "-q")
    assert (ended.code, "not ready after 1 s" in ended.err) == (7, True)


def test_delete_by_name_and_id(ctl: Ctl, fakes: FakePorts) -> None:
    """As kubectl says it; what a file declares cannot be deleted, and the message says which file."""
    fakes.caches.put(view(DEMO, built))
    fakes.caches.put(view(cache("b", "nginx"), built))
    fakes.caches.put(view(cache("c", "nginx"), built))
    ended = ctl("delete", DEMO.id, "imagecache/b")
    assert ended.out.splitlines() == [
        'imagecache.eci.alibabacloud.com "demo" deleted',
        'imagecache.eci.alibabacloud.com "b" deleted',
    ]
    fakes.caches.errors["c"] = FailedPrecondition("ImageCache c is declared by /etc/c.yaml: edit that file")
    ended = ctl("delete", "c")
    assert (ended.code, "/etc/c.yaml" in ended.err) == (1, True)
    assert ctl("delete", "nobody").code == 3


def test_a_cache_is_described(ctl: Ctl, fakes: FakePorts) -> None:
    """Identity, bytes, each image with layers and timing, conditions, events."""
    shown = view(
        DEMO, built, lambda cache, status: phases.drifted(cache, status, ["nginx:1"], 1_700_000_100.0)
    )
    fakes.caches.put(shown)
    name = shown.names["nginx:1"]
    fakes.store.records = {name: image(name)}
    split = {"resolve": 0.1, "fetch": 12.0, "prepare": 0.01, "total": 12.11}
    fakes.events.emit("pulled", name, seconds=split, sources={})
    for asked in ("demo", DEMO.id):
        out = ctl("describe", asked).out
        assert re.search(rf"^Id: +{DEMO.id}$", out, re.MULTILINE)
        assert re.search(r"^Bytes: +150 B of 150 B: 130 B fetched, 20 B reused$", out, re.MULTILINE)
        assert re.search(r"^Drifted: +nginx:1$", out, re.MULTILINE)
        assert re.search(r"^Image nginx:1:\n  Digest: +sha256:", out, re.MULTILINE)
        assert "Timing:    resolve 100 ms, fetch 12.0 s, prepare 10 ms, total 12.1 s" in out
        assert re.search(r"^  Ready +True +Serving", out, re.MULTILINE)
        assert re.search(r"^  Normal +Ready .*130 bytes fetched, 20 reused$", out, re.MULTILINE)
    document = json.loads(ctl("describe", "demo", "-o", "json").out)
    assert [one["image"] for one in document["images"]] == ["nginx:1", "busybox:1"]
    assert ctl("describe", "imc-" + "0" * 20).err == f"imagecachectl: no ImageCache imc-{'0' * 20}\n"
    assert ctl("describe", "nobody").code == 3


POD = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: hello}
spec:
  template:
    metadata:
      annotations: {k8s.aliyun.com/eci-image-cache: "true"}
    spec:
      containers: [{image: "nginx:1"}]
"""


def test_match_explains(ctl: Ctl, tmp_path: Path, fakes: FakePorts) -> None:
    """Which cache, how well, why, and what was thought of each candidate."""
    fakes.caches.put(view(DEMO, built))
    fakes.caches.put(view(cache("b", "redis"), built))
    path = tmp_path / "pod.yaml"
    path.write_text(POD)
    ended = ctl("match", "-f", str(path))
    assert ended.code == 0
    assert re.search(rf"^Cache: +demo \({DEMO.id}\)$", ended.out, re.MULTILINE)
    assert re.search(r"^Degree: +full 1/1$", ended.out, re.MULTILINE)
    assert re.search(r"^  b +imc-\w+ +0 +0 +holds none of the pod's images$", ended.out, re.MULTILINE)
    [one] = json.loads(ctl("match", "-f", str(path), "-o", "json").out)["matches"]
    assert (one["outcome"], one["cache_id"], one["kind"]) == ("full", DEMO.id, "Service")


def test_match_of_what_would_be_refused(ctl: Ctl, tmp_path: Path, fakes: FakePorts) -> None:
    """An id that nobody has, one that is not Ready, and what is no pod: each with its exit code."""
    fakes.caches.put(view(DEMO))
    path = tmp_path / "pod.yaml"
    for wanted, code in (("imc-" + "0" * 20, 3), (DEMO.id, 1)):
        path.write_text(POD.replace('eci-image-cache: "true"', f"eci-image-snapshot-id: {wanted}"))
        ended = ctl("match", "-f", str(path))
        assert (ended.code, wanted in ended.out) == (code, True)
    path.write_text("kind: ConfigMap\n")
    ended = ctl("match", "-f", str(path))
    assert (ended.code, "kind: must be one of" in ended.err) == (2, True)


def test_run_and_mount_take_a_pods_annotations(ctl: Ctl, tmp_path: Path, fakes: FakePorts) -> None:
    """The image that the cache holds is used, by its digest; an id that is not Ready is refused."""
    shown = view(DEMO, built)
    fakes.caches.put(shown)
    held = shown.names["nginx:1"]
    fakes.store.records = {held: image(held)}
    target = tmp_path / "tree"
    ended = ctl("mount", "nginx:1", str(target), "-a", "k8s.aliyun.com/eci-auto-imc=true")
    assert (ended.code, fakes.containers.mounts[target][0]) == (0, held)
    assert ended.err.startswith("imagecachectl: full 1/1: demo (imc-")
    single = view(cache("single", "nginx:1"), built)
    fakes.caches.put(single)
    assert ctl("mount", single.id, str(tmp_path / "other")).code == 0
    several = ctl("mount", DEMO.id, str(target))
    assert (several.code, "holds 2 images" in several.err) == (2, True)
    fakes.caches.put(view(DEMO))
    refused = ctl("mount", "nginx:1", str(target), "-a", f"k8s.aliyun.com/eci-imc-id={DEMO.id}")
    assert (refused.code, "Pending, not Ready" in refused.err) == (1, True)
    assert fakes.images.pulls == {}
    assert ctl("mount", "nginx:1", str(target), "-a", "nonsense").code == 2
