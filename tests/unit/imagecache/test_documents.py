"""ImageCache documents: what is accepted, what is refused and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.imagecache import Findings, ImageCache, SecretName, Toleration, parse_object, read_cache
from imagecached.oci.platform import Platform
from tests.unit.imagecache.building import manifest

ECI = "k8s.aliyun.com/"
OURS = "imagecached.dev/"
NAME_RULE = "must be at most 253 of a-z, 0-9, '-' and '.', with a letter or digit first and last, not 'A_b'"


def read(document: Any) -> tuple[ImageCache | None, list[str], list[str]]:
    findings = Findings("f.yaml")
    found = read_cache(document, findings, from_file=True)
    return (
        found,
        [str(problem) for problem in findings.problems],
        [str(warning) for warning in findings.warnings],
    )


def annotated(**annotations: Any) -> dict[str, Any]:
    return manifest(metadata={"name": "c", "annotations": annotations})


def spec(**fields: Any) -> dict[str, Any]:
    return manifest(spec={"images": ["nginx:1"], **fields})


def test_an_object_of_the_api_server() -> None:
    """Every field of an object that the API server sends is read."""
    found = parse_object(
        manifest(
            spec={
                "images": ["nginx", "quay.io/a/b:1"],
                "imagePullSecrets": ["default:regcred", "kube-system:other.one"],
                "imageCacheSize": 25,
                "retentionDays": 7,
            }
        )
    )
    assert found.name == "c"
    assert found.uid == "0c4f1f4e-8f5d-4d6b-9a53-4b1b7e0f3a11"
    assert (found.generation, found.created) == (3, 1795600800.0)
    assert found.images == ("nginx", "quay.io/a/b:1")
    assert found.pull_secrets == (SecretName("default", "regcred"), SecretName("kube-system", "other.one"))
    assert (found.size_gib, found.retention_days) == (25, 7)
    assert found.id.startswith("imc-")


def test_defaults() -> None:
    """Without size it has 20 GiB, without retention it stays."""
    found = parse_object(manifest())
    assert (found.size_gib, found.retention_days, found.pull_secrets) == (20, None, ())
    assert found.options.platform is None


def test_a_file_gives_no_identity() -> None:
    """uid, generation and time in a file are somebody else's; the uid comes from the name."""
    found, problems, _ = read(manifest())
    assert found is not None
    assert (found.uid, found.generation, found.created, problems) == ("name/c", 0, 0.0, [])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "must be a mapping, not a list of 0"),
        (manifest(kind="Pod"), "kind: must be ImageCache, not 'Pod'"),
        (manifest(apiVersion="v1"), "apiVersion: must be eci.alibabacloud.com/v1, not 'v1'"),
        (manifest(metadata=None), "metadata: is missing"),
        (manifest(spec="x"), "spec: must be a mapping, not 'x'"),
        (manifest(metadata={}), "metadata.name: is missing"),
        (
            manifest(metadata={"name": "A_b"}),
            f"metadata.name: {NAME_RULE}",
        ),
        (manifest(spec={}), "spec.images: must be a list of 1 to 20 images, is missing"),
        (manifest(spec={"images": []}), "spec.images: must be a list of 1 to 20 images, not a list of 0"),
        (
            manifest(spec={"images": [f"a:{n}" for n in range(21)]}),
            "spec.images: must be a list of 1 to 20 images, not a list of 21",
        ),
        (manifest(spec={"images": "nginx"}), "spec.images: must be a list of 1 to 20 images, not 'nginx'"),
        (manifest(spec={"images": [1]}), "spec.images[0]: must be the text of an image reference, not 1"),
        (
            manifest(spec={"images": ["a", "UP"]}),
            (
                "spec.images[1]: must be an image reference such as registry/name:tag: "
                "repository must be lower case: 'UP'"
            ),
        ),
        (
            manifest(spec={"images": ["nginx", "docker.io/library/nginx:latest"]}),
            "spec.images[1]: 'docker.io/library/nginx:latest' is the same image as 'nginx'",
        ),
        (spec(imageCacheSize=19), "spec.imageCacheSize: must be a whole number from 20 to 32768, not 19"),
        (
            spec(imageCacheSize=32769),
            "spec.imageCacheSize: must be a whole number from 20 to 32768, not 32769",
        ),
        (spec(imageCacheSize="25"), "spec.imageCacheSize: must be a whole number from 20 to 32768, not '25'"),
        (spec(imageCacheSize=True), "spec.imageCacheSize: must be a whole number from 20 to 32768, not True"),
        (
            spec(imageCacheSize=10**400),
            "spec.imageCacheSize: must be a whole number from 20 to 32768, not a number far out of range",
        ),
        (spec(retentionDays=0), "spec.retentionDays: must be a whole number from 1 to 65536, not 0"),
        (spec(retentionDays=1.5), "spec.retentionDays: must be a whole number from 1 to 65536, not 1.5"),
        (
            spec(imagePullSecrets=["regcred"]),
            "spec.imagePullSecrets[0]: must be text of the form \"namespace:name\", not 'regcred'",
        ),
        (
            spec(imagePullSecrets=["Default:x"]),
            "spec.imagePullSecrets[0]: must be text of the form \"namespace:name\", not 'Default:x'",
        ),
        (
            spec(imagePullSecrets={}),
            "spec.imagePullSecrets: must be a list of at most 20, not a mapping of 0",
        ),
        (
            annotated(**{ECI + "imc-enable-flash": True}),
            f'metadata.annotations[{ECI}imc-enable-flash]: must be text in quotes, write "true", not True',
        ),
        (
            annotated(**{ECI + "imc-enable-flash": "on"}),
            f'metadata.annotations[{ECI}imc-enable-flash]: must be "true" or "false", not \'on\'',
        ),
        (
            annotated(**{ECI + "imc-size": "1"}),
            f"metadata.annotations[{ECI}imc-size]: must be a whole number from 20 to 32768, not '1'",
        ),
        (
            annotated(**{ECI + "imc-retention-days": "x"}),
            f"metadata.annotations[{ECI}imc-retention-days]: must be a whole number from 1 to 65536, not 'x'",
        ),
        (
            annotated(**{ECI + "imc-os-type": "windows"}),
            f"metadata.annotations[{ECI}imc-os-type]: must be \"linux\", not 'windows'",
        ),
        (
            annotated(**{ECI + "imc-cpu-arch": "z80"}),
            (
                f"metadata.annotations[{ECI}imc-cpu-arch]: must be one of 386, amd64, arm, arm64, loong64, "
                "mips64le, ppc64le, riscv64, s390x, not 'z80'"
            ),
        ),
        (
            annotated(**{ECI + "plain-http-registry": "a.b/c"}),
            (
                f"metadata.annotations[{ECI}plain-http-registry]: must be hosts or host:port, separated by "
                "commas; 'a.b/c' is neither, not 'a.b/c'"
            ),
        ),
        (
            annotated(**{OURS + "node-selector": "disk"}),
            (
                f"metadata.annotations[{OURS}node-selector]: must be labels key=value, separated by commas; "
                "'disk' is none, not 'disk'"
            ),
        ),
        (
            annotated(**{OURS + "elimination-strategy": "FIFO"}),
            f"metadata.annotations[{OURS}elimination-strategy]: must be \"LRU\", not 'FIFO'",
        ),
    ],
)
def test_refused(document: Any, message: str) -> None:
    """What is wrong is one line: source, field, what is allowed, what was there."""
    found, problems, _ = read(document)
    assert found is None
    assert problems == [f"f.yaml: {message}"]


def test_every_problem_is_told_at_once() -> None:
    """A person mends a document in one go."""
    _, problems, _ = read(manifest(metadata={"name": "-"}, spec={"images": ["UP"], "imageCacheSize": 1}))
    assert [problem.split(": ")[1] for problem in problems] == [
        "metadata.name",
        "spec.images[0]",
        "spec.imageCacheSize",
    ]


def test_the_api_servers_object_names_its_first_problem() -> None:
    """An object that bypassed the schema is InvalidInput, in one line that counts the rest."""
    with pytest.raises(InvalidInput, match=r"^spec\.images\[0\]: .* \(and 1 more\)$"):
        parse_object(manifest(spec={"images": ["UP"], "imageCacheSize": 1}))
    with pytest.raises(InvalidInput, match=r"^metadata\.uid: must be the API server's, not None"):
        parse_object(manifest(metadata={"name": "c", "creationTimestamp": "2026-11-25T10:00:00Z"}))


@pytest.mark.parametrize("moment", [None, 7, "yesterday", "2026-11-25T10:00:00", "9999-99-99T00:00:00Z"])
def test_a_creation_time_is_a_time_with_zone(moment: Any) -> None:
    """A time that is none, or that could be anywhere, is refused and not guessed."""
    with pytest.raises(
        InvalidInput, match=r"metadata\.creationTimestamp: must be a time as in RFC 3339, not "
    ):
        parse_object(manifest(metadata={"name": "c", "uid": "u", "creationTimestamp": moment}))


def test_unknown_fields_are_warned_about() -> None:
    """A field of another version, or a slip, does not refuse the document and is not passed over silently."""
    document = manifest(
        metadata={"name": "c", "namespace": "x"}, spec={"images": ["a"], "imageCachSize": 30}, x=1
    )
    found, problems, warnings = read(document)
    assert found is not None
    assert problems == []
    assert warnings == [
        "f.yaml: x: is no field of an ImageCache; it is ignored",
        "f.yaml: metadata.namespace: an ImageCache belongs to no namespace; it is ignored",
        "f.yaml: spec.imageCachSize: is no field of an ImageCache; it is ignored",
    ]


@pytest.mark.parametrize("spelling", ["imc-enable-reuse", "auto-match-imagecache", "eci-image-cache"])
def test_every_spelling_of_reuse(spelling: str) -> None:
    """ECI called layer reuse by three names; each is accepted."""
    found, problems, warnings = read(annotated(**{ECI + spelling: "true"}))
    assert found is not None
    assert (found.options.reuse, problems, warnings) == (True, [], [])


def test_options() -> None:
    """What annotations and labels can say of a cache."""
    found, problems, warnings = read(
        manifest(
            metadata={
                "name": "c",
                "labels": {OURS + "automatic": "true"},
                "annotations": {
                    ECI + "imc-enable-flash": "TRUE",
                    ECI + "imc-cpu-arch": "arm64",
                    ECI + "imc-os-type": "linux",
                    ECI + "plain-http-registry": "h1, 1.2.3.4:5000,h2:80",
                    ECI + "insecure-registry": "[::1]:5000",
                    OURS + "refresh": "monday",
                    OURS + "node-selector": "disk=ssd, example.com/pool=",
                    OURS + "tolerations": '[{"key":"gpu","operator":"Exists"},{"key":"a","value":"b",'
                    '"effect":"NoSchedule"}]',
                    OURS + "elimination-strategy": "LRU",
                    "example.com/other": "untouched",
                },
            }
        )
    )
    assert found is not None
    assert (problems, warnings) == ([], [])
    options = found.options
    assert (options.flash, options.lru, options.automatic, options.refresh) == (True, True, True, "monday")
    assert options.platform == Platform("linux", "arm64")
    assert options.plain_http == ("h1", "1.2.3.4:5000", "h2:80")
    assert options.insecure == ("[::1]:5000",)
    assert options.node_selector == {"disk": "ssd", "example.com/pool": ""}
    assert options.tolerations == (Toleration("gpu", "Exists"), Toleration("a", "Equal", "b", "NoSchedule"))


@pytest.mark.parametrize(
    "text", ["", "{}", '[{"operator":"Exists","x":1}]', '[{"value":"x"}]', '[{"operator":"In","key":"a"}]',
             '[{"key":"a","effect":"Never"}]', "[" * 100_000, '[{"key": 5}]']
)  # fmt: skip
def test_tolerations_refused(text: str) -> None:
    """Only a list of tolerations as in a pod, in JSON."""
    found, problems, _ = read(annotated(**{OURS + "tolerations": text}))
    assert found is None
    assert problems[0].startswith(f"f.yaml: metadata.annotations[{OURS}tolerations]: must ")
    assert len(problems[0]) < 300


@pytest.mark.parametrize(
    ("fields", "annotations", "size", "days", "warned"),
    [
        ({}, {"imc-size": "25", "imc-retention-days": "3"}, 25, 3, 0),
        ({"imageCacheSize": 30, "retentionDays": 5}, {"imc-size": "25", "imc-retention-days": "3"}, 30, 5, 2),
        ({"imageCacheSize": 30}, {"imc-size": "30"}, 30, None, 0),
        ({"imageCacheSize": 20}, {"imc-size": "25"}, 25, None, 0),
    ],
)
def test_the_spec_overrules_annotations(
    fields: dict[str, Any], annotations: dict[str, str], size: int, days: int | None, warned: int
) -> None:
    """spec wins and the disagreement is told; but a size of 20 may be the API server's default."""
    metadata = {"name": "c", "annotations": {ECI + key: value for key, value in annotations.items()}}
    found, _, warnings = read(manifest(metadata=metadata, spec={"images": ["a"], **fields}))
    assert found is not None
    assert (found.size_gib, found.retention_days, len(warnings)) == (size, days, warned)
    assert all("is overruled by spec." in warning for warning in warnings)


def test_annotations_without_meaning() -> None:
    """What steers ECI's own machines, or is a slip in our name spaces, is said to have no effect."""
    found, _, warnings = read(
        annotated(
            **{ECI + "vswitch-ids": "v", ECI + "acr-instance-ids": "c", ECI + "imc-flash": "true", "x/y": "z"}
        )
    )
    assert found is not None
    assert warnings == [
        f"f.yaml: metadata.annotations[{ECI}vswitch-ids]: has no effect on ordinary nodes",
        f"f.yaml: metadata.annotations[{ECI}acr-instance-ids]: has no effect on ordinary nodes",
        f"f.yaml: metadata.annotations[{ECI}imc-flash]: is unknown on an ImageCache and has no effect",
    ]


def test_what_is_built_from() -> None:
    """Images, platform and refresh annotation decide about a new build; size and order of images do not."""
    first = parse_object(manifest(spec={"images": ["a", "b"]}))
    same = parse_object(manifest(spec={"images": ["docker.io/library/b:latest", "a"], "imageCacheSize": 40}))
    other = parse_object(manifest(spec={"images": ["a", "b:2"]}))
    assert first.build == same.build != other.build


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(metadata=JSON, fields=JSON)
def test_any_document_is_read_or_refused(metadata: Any, fields: Any) -> None:
    """Nothing but a value or problems of one bounded line comes out."""
    found, problems, _ = read(manifest(metadata=metadata, spec=fields))
    assert (found is None) == bool(problems)
    assert all("\n" not in problem and len(problem) < 800 for problem in problems)


@given(annotations=st.dictionaries(st.sampled_from(
    [ECI + "imc-size", ECI + "imc-cpu-arch", ECI + "plain-http-registry", OURS + "tolerations",
     OURS + "node-selector", ECI + "imc-enable-flash"]), st.text(max_size=40), max_size=4))  # fmt: skip
def test_any_annotation_is_read_or_refused(annotations: dict[str, str]) -> None:
    """The same for the values of annotations."""
    found, problems, _ = read(annotated(**annotations))
    assert (found is None) == bool(problems)
    assert all("\n" not in problem and len(problem) < 800 for problem in problems)
