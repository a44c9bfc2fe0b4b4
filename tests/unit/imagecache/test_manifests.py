"""Files of manifests: several documents, hostile YAML, one bad document beside good ones."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import parse_manifests
from tests.unit.imagecache.building import manifest

GOOD = b"""\
apiVersion: eci.alibabacloud.com/v1
kind: ImageCache
metadata:
  name: imagecache-sample-test
  annotations:
    k8s.aliyun.com/eci-image-cache: "true"   # reuse layers of existing caches
spec:
  images:
  - registry.cn-shanghai.aliyuncs.com/eci_open/nginx:1.14.2
  - registry.cn-shanghai.aliyuncs.com/eci_open/busybox:1.30
  imageCacheSize:
   25
  retentionDays:
   7
"""


def named(name: str) -> bytes:
    return GOOD.replace(b"imagecache-sample-test", name.encode())


def problems(text: bytes) -> list[str]:
    return [str(problem) for problem in parse_manifests(text, "f.yaml").problems]


def test_the_documented_example() -> None:
    """The manifest that ECI's documentation shows declares what it says."""
    parsed = parse_manifests(GOOD, "f.yaml")
    (found,) = parsed.caches
    assert (found.name, found.size_gib, found.retention_days) == ("imagecache-sample-test", 25, 7)
    assert len(found.images) == 2
    assert found.options.reuse
    assert (parsed.problems, parsed.warnings) == ((), ())


def test_one_bad_document_stops_no_other() -> None:
    """Whatever is wrong with a document, those before and after it declare their caches."""
    parsed = parse_manifests(
        b"---\n".join([named("a"), b"a: [\n", named("b"), b"kind: Pod\n", named("c")]), "f.yaml"
    )
    assert [found.name for found in parsed.caches] == ["a", "b", "c"]
    assert [str(problem) for problem in parsed.problems] == [
        "f.yaml: document 2: not YAML: did not find expected node content, line 17",
        "f.yaml: document 4: apiVersion: must be eci.alibabacloud.com/v1, not None",
        "f.yaml: document 4: kind: must be ImageCache, not 'Pod'",
    ]


def test_lists() -> None:
    """What ``kubectl get -o yaml`` prints is a list, and can be given back."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [manifest(), {"kind": "Pod"}]}).encode()
    parsed = parse_manifests(listed, "f.json")
    assert [found.name for found in parsed.caches] == ["c"]
    assert str(parsed.problems[0]).startswith("f.json: items[1]: apiVersion: must be ")
    assert problems(b"{apiVersion: v1, kind: List, items: 5}") == [
        "f.yaml: items: must be a list of at most 1000"
    ]


def test_a_name_comes_once() -> None:
    """Two documents of one name in one file contradict each other; the first one counts."""
    (problem,) = problems(GOOD + b"---\n" + GOOD)
    assert problem.endswith(
        "2: metadata.name: 'imagecache-sample-test' is in an earlier document of this file too"
    )


@pytest.mark.parametrize("text", [b"", b"\n", b"---\n---\n", b"# nothing\n---\n# here\n", b"\xef\xbb\xbf"])
def test_an_empty_file_declares_nothing(text: bytes) -> None:
    """Empty documents and comments are no problem."""
    parsed = parse_manifests(text, "f.yaml")
    assert (parsed.caches, parsed.problems) == ((), ())


def test_markers_and_byte_order_mark() -> None:
    """The ways a document may begin: mark, directive, comment after the marker."""
    text = b"\xef\xbb\xbf%YAML 1.1\n--- # first\n" + named("a") + b"...\n---\n" + named("b")
    assert [found.name for found in parse_manifests(text, "f.yaml").caches] == ["a", "b"]


BOMB = (
    b"a: &a ["
    + b"x," * 9
    + b"x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 10)) for name in b"bcdefgh")
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "aliases that make it too large or too deep"),
        (b"a: &x [*x]", "an alias that contains itself, line 1"),
        (b"a: &x {b: *x}", "an alias that contains itself, line 1"),
        (b"[" * 100_000, "nested deeper than 24, line 1"),
        (b"{a: " * 100_000, "nested deeper than 24, line 1"),
        (b"- a\n" * 30_000, "more than 20000 values"),
        (b"1: 2", "a key that is not text, line 1"),
        (b"[a]: 2", "a key that is not text, line 1"),
        (b"? {a: b}\n: 2", "a key that is not text, line 1"),
        (b"x: 1\nx: 2", "the key 'x' comes twice, line 2"),
        (b"base: &b {a: 1}\nuse:\n  <<: *b", "a key that is not text, line 3"),
        (b"a: !!python/object/apply:os.system [ls]", "not a plain YAML value: "),
        (b"a: !local b", "not a plain YAML value: '!local', line 1"),
        (b"a: !!int x", "not a number: 'x', line 1"),
        (b"a: " + b"9" * 5000, "not a number: '99999"),
        (b"a: *nobody", "not YAML: found undefined alias, line 1"),
        (b"a: \x00", "not YAML: "),
        (b"a: \xff", "not UTF-8: invalid start byte at byte 3"),
        (b"\t- a", "not YAML: "),
        (b"a: 'x", "not YAML: "),
        (b"#" * ((1 << 20) + 1), "larger than 1048576 bytes"),
        (b"---\na\n" * 1001, "more than 1000 documents"),
    ],
)
def test_hostile_yaml(text: bytes, message: str) -> None:
    """YAML that would exhaust us, or that two readers would understand differently, is one short problem."""
    (problem,) = problems(text)
    assert problem.startswith(f"f.yaml: {message}")
    assert "\n" not in problem
    assert len(problem) < 300


def test_harmless_aliases() -> None:
    """An anchor used twice is ordinary YAML."""
    text = GOOD.replace(b"25", b"&n 25").replace(b"   7", b"   *n")
    (found,) = parse_manifests(text, "f.yaml").caches
    assert (found.size_gib, found.retention_days) == (25, 25)


@given(st.binary(max_size=200) | st.text(alphabet="&*[]{}:,-!?|>%@#'\"\n ab1", max_size=80).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    """Nothing is raised, and every problem is one bounded line."""
    parsed = parse_manifests(text, "f.yaml")
    assert all("\n" not in str(problem) and len(str(problem)) < 400 for problem in parsed.problems)


@given(st.lists(st.sampled_from([GOOD, b"a: [", b"x", b"kind: Pod", b"a: &x [*x]", b"\x01"]), max_size=6))
def test_neighbours_do_not_matter(documents: list[bytes]) -> None:
    """A good document is read whatever stands around it."""
    good = [document == GOOD for document in documents]
    text = b"\n---\n".join(
        GOOD.replace(b"imagecache-sample-test", b"n%d" % number) if fine else document
        for number, (document, fine) in enumerate(zip(documents, good, strict=True))
    )
    names = [found.name for found in parse_manifests(text, "f.yaml").caches]
    assert names == [f"n{number}" for number, fine in enumerate(good) if fine]


def test_yaml_is_paid_for_by_those_who_use_it() -> None:
    """It takes a MiB of every node's memory, and most nodes never see a manifest."""
    look = "import sys, imagecached.imagecache; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
