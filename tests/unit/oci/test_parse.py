"""Manifests, indexes and configs: what is accepted, what is refused and how it is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecached.errors import Corrupt, ImagecachedError, Unsupported
from imagecached.oci import media_types
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Index, Manifest
from imagecached.oci.parse import MAX_LAYERS, MAX_MANIFEST_BYTES, parse_config, parse_manifest

DIGEST = Digest.of(b"content")
Document = dict[str, Any]


def descriptor(media_type: str, **more: object) -> Document:
    """A descriptor of something."""
    return {"mediaType": media_type, "digest": DIGEST, "size": 7, **more}


def manifest(**changes: object) -> Document:
    """A good OCI manifest of one layer, changed; a value of None removes a member."""
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": descriptor(media_types.OCI_CONFIG),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
        **changes,
    }
    return {name: value for name, value in document.items() if value is not None}


def raw(document: object) -> bytes:
    """As a registry sends it."""
    return json.dumps(document).encode()


def parsed(document: Document, media_type: str = "") -> Manifest:
    """The manifest; these tests know that it is none of the other kind."""
    result = parse_manifest(raw(document), media_type)
    assert isinstance(result, Manifest)
    return result


def test_manifest() -> None:
    """Config, layers and the raw bytes."""
    document = manifest(annotations={"a": "b"}, unknown={"x": [1, None]})
    result = parsed(document, media_types.OCI_MANIFEST)
    assert result.raw == raw(document)
    assert result.config.media_type == media_types.OCI_CONFIG
    assert [(layer.digest, layer.size) for layer in result.layers] == [(DIGEST, 7)]


@pytest.mark.parametrize("layer", sorted(media_types.LAYER_TYPES))
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (media_types.OCI_MANIFEST, media_types.OCI_CONFIG),
        (media_types.DOCKER_MANIFEST, media_types.DOCKER_CONFIG),
        (media_types.DOCKER_MANIFEST, media_types.LEGACY_CONFIG),
    ],
)
def test_layer_types(kind: str, config: str, layer: str) -> None:
    """OCI's and Docker's layers, plain, gzip and zstd, in either manifest."""
    result = parsed(manifest(mediaType=kind, config=descriptor(config), layers=[descriptor(layer)]))
    assert result.layers[0].media_type == layer


def test_index() -> None:
    """Entries in order, with platform and annotations as far as they are there."""
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8", "os.version": "1"}
    document = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_INDEX,
        "manifests": [
            descriptor(media_types.OCI_MANIFEST, platform=platform, annotations={"a": "b"}),
            descriptor(media_types.DOCKER_MANIFEST, annotations=None),
            descriptor(media_types.OCI_MANIFEST, platform={}),
        ],
    }
    index = parse_manifest(raw(document), f"{media_types.OCI_INDEX}; charset=utf-8")
    assert isinstance(index, Index)
    assert [str(entry.platform) for entry in index.manifests] == ["linux/arm64", "None", "None"]
    assert index.manifests[0].annotations == {"a": "b"}
    assert index.raw == raw(document)


@pytest.mark.parametrize("claimed", ["", "application/json", "application/octet-stream", "text/plain"])
@pytest.mark.parametrize("stated", [True, False])
def test_kind_without_a_useful_content_type(claimed: str, stated: bool) -> None:
    """The document's own word counts, else its shape."""
    kind = {} if stated else {"mediaType": None}
    assert isinstance(parse_manifest(raw(manifest(**kind)), claimed), Manifest)
    index = {"schemaVersion": 2, "manifests": [], **({"mediaType": media_types.OCI_INDEX} if stated else {})}
    assert isinstance(parse_manifest(raw(index), claimed), Index)


@pytest.mark.parametrize(
    ("document", "media_type", "complaint"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, "", "schema 1"),
        ({"schemaVersion": 1}, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        (manifest(mediaType="application/vnd.oci.artifact.manifest.v1+json"), "", "artifact.manifest"),
        (manifest(mediaType="application/vnd.example+json"), "", "application/vnd.example"),
        (manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")), "", "helm"),
        (
            manifest(
                config=descriptor("application/vnd.oci.empty.v1+json"), artifactType="application/vnd.sbom"
            ),
            "",
            "application/vnd.sbom",
        ),
        (manifest(config=descriptor(media_types.LEGACY_CONFIG)), "", "octet-stream"),
        (manifest(layers=[descriptor(min(media_types.FOREIGN_LAYER_TYPES))]), "", "foreign layer"),
        (
            manifest(layers=[descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")]),
            "",
            "encrypted",
        ),
        (manifest(layers=[descriptor("")]), "", "unknown media type"),
        (manifest(layers=[]), "", "without layers"),
        (manifest(layers=[descriptor("application/vnd.oci.image.layer.v1.tar")] * 500), "", "500 layers"),
        ({}, "application/json", "neither"),
    ],
)
def test_unsupported_by_name(document: Document, media_type: str, complaint: str) -> None:
    """What is no image for us is refused with a message that names it."""
    with pytest.raises(Unsupported, match=complaint):
        parse_manifest(raw(document), media_type)


@pytest.mark.parametrize("layer", sorted(media_types.FOREIGN_LAYER_TYPES))
def test_every_foreign_layer_is_refused(layer: str) -> None:
    """Docker's and OCI's, in every compression."""
    with pytest.raises(Unsupported, match="foreign"):
        parse_manifest(raw(manifest(layers=[descriptor(layer)])))


@pytest.mark.parametrize(
    ("content", "media_type", "complaint"),
    [
        (b"", "", "cannot be read"),
        (b"<!DOCTYPE html><html>", "text/html", "HTML"),
        (b"\xff\xfe", "", "cannot be read"),
        (b'{"mediaType": "\xff"}', "", "cannot be read"),
        (b'{"schemaVersion": 2', "", "cannot be read"),
        (b"null", "", "cannot be read"),
        (b"[" * 1_000_000, "", "cannot be read"),
        (b'{"x":' + b"[" * 1_000_000, "", "nested"),
        (b'{"layers":' + b"[" * 1_000_000, "", "nested|cannot be read"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "", "larger than 4194304"),
        (raw(manifest(manifests=[])), "", "ambiguous"),
        (raw({"schemaVersion": 2, "manifests": [], "layers": []}), "", "ambiguous"),
        (raw(manifest()), media_types.OCI_INDEX, "was sent as"),
        (raw(manifest(mediaType=media_types.OCI_INDEX)), "", "has not the members"),
        (raw({"schemaVersion": 2, "manifests": []}), media_types.OCI_MANIFEST, "has not the members"),
        (raw(manifest(config=None)), "", "config"),
        (raw(manifest(config=descriptor(media_types.OCI_CONFIG, digest="md5:1"))), "", "digest"),
        (raw(manifest(config=descriptor(media_types.OCI_CONFIG, size=-1))), "", "impossible size"),
        (raw(manifest(config=descriptor(media_types.OCI_CONFIG, size=1 << 63))), "", "impossible size"),
        (raw(manifest(config=descriptor(media_types.OCI_CONFIG, size=1.5))), "", "int"),
        (raw(manifest(layers={})), "", "array"),
    ],
)
def test_corrupt(content: bytes, media_type: str, complaint: str) -> None:
    """What breaks the specification's promises is Corrupt."""
    with pytest.raises(Corrupt, match=complaint):
        parse_manifest(content, media_type)


def config(**changes: object) -> bytes:
    """A good config for :func:`manifest`, changed."""
    return raw(
        {
            "os": "linux",
            "architecture": "amd64",
            "created": "2023-11-14T22:13:20Z",
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
            "config": {
                "Env": ["A=b"],
                "Entrypoint": None,
                "Cmd": ["sh"],
                "WorkingDir": "/w",
                "User": "1:2",
                "Labels": {"l": "v"},
                "Volumes": {"/data": {}},
                "StopSignal": "SIGINT",
            },
            "history": [{"created_by": "x", "empty_layer": True}],
            **changes,
        }
    )


def test_config() -> None:
    """What a container needs; null is nothing."""
    result = parse_config(config(), parsed(manifest()))
    assert result.diff_ids == (DIGEST,)
    assert (result.env, result.entrypoint, result.cmd) == (("A=b",), (), ("sh",))
    assert (result.working_dir, result.user, result.stop_signal) == ("/w", "1:2", "SIGINT")
    assert (result.labels, result.volumes) == ({"l": "v"}, ("/data",))
    assert str(result.platform) == "linux/amd64"
    assert result.raw == config()


def test_config_without_settings() -> None:
    """Images made by other tools than Docker may have next to nothing in it."""
    result = parse_config(raw({"rootfs": {"type": "layers", "diff_ids": [DIGEST]}}), parsed(manifest()))
    assert result.cmd == result.env == ()


@pytest.mark.parametrize(
    ("content", "kind", "complaint"),
    [
        (config(rootfs=None), Unsupported, "rootfs type must be 'layers', it is none"),
        (config(rootfs={"type": "layers+base", "diff_ids": [DIGEST]}), Unsupported, "layers[+]base"),
        (b"{}", Unsupported, "rootfs"),
        (config(rootfs={"type": "layers", "diff_ids": []}), Corrupt, "0 diffIDs, its manifest 1 layers"),
        (config(rootfs={"type": "layers", "diff_ids": [DIGEST] * 2}), Corrupt, "2 diffIDs"),
        (config(rootfs={"type": "layers", "diff_ids": ["sha256:xyz"]}), Corrupt, "digest"),
        (config(config={"Cmd": "sh -c"}), Corrupt, "Cmd"),
        (config(config={"Env": [1]}), Corrupt, "Env"),
        (b"<html>", Corrupt, "HTML"),
        (b"[" * 100_000, Corrupt, "cannot be read"),
        (b'{"history":' + b"[" * 1_000_000, Corrupt, "nested"),
    ],
)
def test_bad_config(content: bytes, kind: type[ImagecachedError], complaint: str) -> None:
    """Artifacts in disguise are Unsupported; a config that does not match its manifest is Corrupt."""
    with pytest.raises(kind, match=complaint):
        parse_config(content, parsed(manifest()))


def test_most_layers() -> None:
    """The bound is what the kernel can stack."""
    layers = [descriptor("application/vnd.oci.image.layer.v1.tar")] * MAX_LAYERS
    assert len(parsed(manifest(layers=layers)).layers) == MAX_LAYERS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3)
    ),
    max_leaves=8,
)
MEMBERS = st.sampled_from(
    (
        "schemaVersion mediaType config layers manifests digest size platform os rootfs diff_ids annotations "
        "Env Cmd Labels architecture artifactType fsLayers"
    ).split()
)
MUTATIONS = st.dictionaries(MEMBERS, JSON, max_size=4)


@settings(deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(["", media_types.OCI_MANIFEST, media_types.OCI_INDEX, "text/html"]),
)
def test_any_bytes(content: bytes, media_type: str) -> None:
    """Nothing but Corrupt and Unsupported comes out of noise."""
    with pytest.raises((Corrupt, Unsupported)):
        parse_manifest(content, media_type)


@settings(deadline=None)
@given(MUTATIONS, MUTATIONS, MUTATIONS)
def test_any_document(outer: Document, inner: Document, settings: Document) -> None:
    """Documents that are nearly right are read or refused, never anything else."""
    document = {**manifest(), **outer}
    if isinstance(document.get("config"), dict):
        document["config"] = {**document["config"], **inner}
    try:
        result = parse_manifest(raw(document))
    except (Corrupt, Unsupported):
        result = parsed(manifest())
    if isinstance(result, Index):
        return
    base = json.loads(config())
    try:
        parse_config(raw({**base, **inner, "config": {**base["config"], **settings}}), result)
    except (Corrupt, Unsupported):
        return
