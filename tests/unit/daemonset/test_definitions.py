"""The two definitions: what they say about fields is what the code says, and their rules stay cheap."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.imagecache import PHASES, ImageStatus, Status, parse_object, status_document
from imagecached.imagecache import model as limits
from imagecached.imagecache.status import MAX_EVENTS, CacheEvent, Condition
from imagecached.oci.digest import Digest
from imagecached.oci.reference import Reference
from tests.e2e.kustomize import walk
from tests.support.apiserver import ApiServer

CRDS: Final = Path(__file__).resolve().parents[3] / "daemonset/crds"
DIGEST: Final = Digest.of(b"")


def _definition(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CRDS / name).read_text()))


def _version(name: str) -> dict[str, Any]:
    [version] = _definition(name)["spec"]["versions"]
    return dict(version)


SCHEMA: Final = _version("imagecaches.yaml")["schema"]["openAPIV3Schema"]
SPEC: Final = SCHEMA["properties"]["spec"]["properties"]
STATUS: Final = SCHEMA["properties"]["status"]["properties"]
IMAGE: Final = re.compile(SPEC["images"]["items"]["pattern"])


def test_kubectl_prints_the_columns_that_users_know() -> None:
    """NAME comes from kubectl, then AGE, CACHEID, PHASE, PROGRESS; all others only with -o wide."""
    columns = _version("imagecaches.yaml")["additionalPrinterColumns"]
    assert [column["name"].upper() for column in columns if not column.get("priority")] == [
        "AGE",
        "CACHEID",
        "PHASE",
        "PROGRESS",
    ]
    paths = {column["name"]: column["jsonPath"] for column in columns}
    assert paths["Age"] == ".metadata.creationTimestamp"
    for name, path in paths.items():
        assert name == "Age" or path.removeprefix(".status.") in STATUS


def test_the_definition_has_the_names_that_users_type() -> None:
    """Group, scope, short names and category are ECI's; the status is a subresource."""
    spec = _definition("imagecaches.yaml")["spec"]
    names = spec["names"]
    assert (spec["group"], spec["scope"]) == ("eci.alibabacloud.com", "Cluster")
    assert names["shortNames"] == ["ic", "imc"]
    assert names["categories"] == ["all"]
    for name in ("imagecaches.yaml", "nodeimagecaches.yaml"):
        assert _version(name)["subresources"] == {"status": {}}


def test_ranges_are_those_of_the_code() -> None:
    """What the API server lets in, the controller can use."""
    images, size, days = SPEC["images"], SPEC["imageCacheSize"], SPEC["retentionDays"]
    assert (images["minItems"], images["maxItems"]) == (1, limits.MAX_IMAGES)
    assert (size["minimum"], size["maximum"]) == (limits.MIN_SIZE_GIB, limits.MAX_SIZE_GIB)
    assert size["default"] == limits.DEFAULT_SIZE_GIB
    assert (days["minimum"], days["maximum"]) == (1, limits.MAX_RETENTION_DAYS)
    assert "default" not in days


def test_every_field_of_a_status_is_in_the_definition() -> None:
    """The API server drops fields that it does not know, silently."""
    image = ImageStatus("nginx", DIGEST, (DIGEST,), 1)
    status = Status(
        start_time=1.0,
        last_updated_time=1.0,
        expire_date_time=1.0,
        events=(CacheEvent("Pulled", "", "Normal", 1.0),),
        conditions=(Condition("Ready", "True", "Ready"),),
        images=(image,),
        serving=(image,),
        last_matched_time=1.0,
        drifted_images=("nginx",),
    )
    _assert_known(status_document(status), {"type": "object", "properties": STATUS}, "status")


def _assert_known(value: Any, schema: dict[str, Any], where: str) -> None:
    if isinstance(value, dict):
        assert schema["type"] == "object", where
        for key, child in value.items():
            assert key in schema["properties"], f"{where}.{key}"
            _assert_known(child, schema["properties"][key], f"{where}.{key}")
    elif isinstance(value, list):
        assert schema["type"] == "array", where
        for child in value:
            _assert_known(child, schema["items"], f"{where}[]")
    else:
        assert schema["type"] == {str: "string", int: "integer", bool: "boolean"}[type(value)], where


def test_phases_and_events_are_bounded_as_in_the_code() -> None:
    """The same phases, for caches and for nodes, and room for all the events that are kept."""
    node = _version("nodeimagecaches.yaml")["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    assert tuple(STATUS["phase"]["enum"]) == PHASES
    assert tuple(node["caches"]["items"]["properties"]["phase"]["enum"]) == PHASES
    assert STATUS["events"]["maxItems"] == MAX_EVENTS


@pytest.mark.parametrize("name", ["imagecaches.yaml", "nodeimagecaches.yaml"])
def test_nothing_that_a_rule_or_a_watcher_reads_is_unbounded(name: str) -> None:
    """Every list has a greatest length: objects stay small and the estimated cost of rules is finite."""
    lists = [node for node in walk(_version(name)) if isinstance(node, dict) and node.get("type") == "array"]
    assert lists
    assert all("maxItems" in node for node in lists)
    judged = [
        node for node in walk(_version(name)) if isinstance(node, dict) and "x-kubernetes-validations" in node
    ]
    for node in judged:
        assert node["type"] != "string" or "maxLength" in node
        assert node["type"] != "array" or "maxLength" in node["items"]


@settings(deadline=None)  # how long a text takes is the machine's business
@given(
    st.from_regex(r"(([a-z0-9.-]{1,20}\.[a-z]{2,5}|localhost|\[::1\])(:[0-9]{1,5})?/)?", fullmatch=True),
    st.lists(
        st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6})?", fullmatch=True),
        min_size=1,
        max_size=4,
    ),
    st.from_regex(r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?", fullmatch=True),
    st.sampled_from(["", f"@{DIGEST}"]),
)
def test_no_reference_that_the_code_takes_is_refused(
    registry: str, path: list[str], tag: str, digest: str
) -> None:
    """The pattern is no stricter than the grammar of references."""
    text = f"{registry}{'/'.join(path)}{tag}{digest}"
    try:
        Reference.parse(text)
    except InvalidInput:
        return
    assert IMAGE.search(text)


@pytest.mark.parametrize(
    "image",
    [
        "",
        "NGINX",
        "nginx latest",
        "https://host/nginx",
        "nginx:",
        "/nginx",
        "nginx@sha256:",
        "a//b",
        "nginx\n",
    ],
)
def test_what_is_no_reference_is_refused_by_the_api_server(image: str) -> None:
    """The user learns it from ``kubectl create``, not from a phase later."""
    assert not re.compile(IMAGE.pattern.removesuffix("$") + r"\Z").search(image)


@pytest.mark.parametrize(
    ("secret", "good"),
    [
        ("default:regcred", True),
        ("kube-system:my.secret", True),
        ("regcred", False),
        ("Default:regcred", False),
        ("a:b:c", False),
        ("default:", False),
        ("default/regcred", False),
    ],
)
def test_pull_secrets_are_namespace_and_name(secret: str, good: bool) -> None:
    """Anything else names no Secret."""
    assert bool(re.search(SPEC["imagePullSecrets"]["items"]["pattern"], secret)) is good


@pytest.fixture
async def api() -> AsyncIterator[ApiServer]:
    """An API server that serves our definitions."""
    async with ApiServer() as server:
        server.install(CRDS)
        yield server


async def _create(server: ApiServer, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    url = f"{server.url}/apis/eci.alibabacloud.com/v1/imagecaches"
    async with aiohttp.ClientSession() as session, session.post(url, json=document) as answer:
        return answer.status, dict(await answer.json())


def _cache(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "eci.alibabacloud.com/v1",
        "kind": "ImageCache",
        "metadata": {"name": "c"},
        "spec": {"images": ["nginx:1"], **spec},
    }


async def test_the_users_manifest_is_taken_unchanged(api: ApiServer) -> None:
    """It is stored as it was written, and shows as Pending before anybody has looked at it."""
    document = yaml.safe_load((CRDS.parent / "examples/imagecache.yaml").read_text())
    code, made = await _create(api, document)
    assert code == 201
    assert made["spec"] == document["spec"]
    assert made["status"] == {"phase": "Pending", "progress": "0%"}
    parse_object(made)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"images": []}, "spec.images"),
        ({"images": [f"nginx:{number}" for number in range(21)]}, "spec.images"),
        ({"images": ["nginx:1", "nginx:1"]}, "spec.images[1]"),
        ({"images": ["nginx", "nginx:latest"]}, "spec.images"),
        ({"images": ["NGINX:1"]}, "spec.images[0]"),
        ({"images": "nginx"}, "spec.images"),
        ({"imageCacheSize": 19}, "spec.imageCacheSize"),
        ({"imageCacheSize": 32769}, "spec.imageCacheSize"),
        ({"imageCacheSize": "25"}, "spec.imageCacheSize"),
        ({"retentionDays": 0}, "spec.retentionDays"),
        ({"retentionDays": 65537}, "spec.retentionDays"),
        ({"imagePullSecrets": ["regcred"]}, "spec.imagePullSecrets[0]"),
    ],
)
async def test_a_bad_manifest_is_refused_with_its_field(
    api: ApiServer, spec: dict[str, Any], field: str
) -> None:
    """The user reads it from ``kubectl create``; nothing is stored."""
    code, told = await _create(api, _cache(**spec))
    assert code == 422
    assert field in told["message"]
    assert api.all("imagecaches.eci.alibabacloud.com") == []


@pytest.mark.parametrize(
    "spec", [{"retentionDays": 65536}, {"imageCacheSize": 32768}, {"imageCacheSize": 20}]
)
async def test_the_ends_of_ranges_are_inside(api: ApiServer, spec: dict[str, Any]) -> None:
    """What the documents allow is allowed."""
    code, _ = await _create(api, _cache(**spec))
    assert code == 201


async def test_the_size_has_its_default(api: ApiServer) -> None:
    """20 GiB, and no end."""
    _, made = await _create(api, _cache())
    assert made["spec"]["imageCacheSize"] == limits.DEFAULT_SIZE_GIB
    assert "retentionDays" not in made["spec"]


async def test_the_id_of_a_cache_never_changes(api: ApiServer) -> None:
    """Once it is there, even the controller cannot write another."""
    await _create(api, _cache())
    url = f"{api.url}/apis/eci.alibabacloud.com/v1/imagecaches/c/status"
    headers = {"Content-Type": "application/merge-patch+json"}
    codes = []
    async with aiohttp.ClientSession(headers=headers) as session:
        for each in ("imc-1", "imc-1", "imc-2"):
            async with session.patch(url, json={"status": {"imageCacheId": each}}) as answer:
                codes.append(answer.status)
    assert codes == [200, 200, 422]
