"""api: requests become nouns, nouns become documents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imagecached import __version__
from imagecached.api import documents
from imagecached.containers import Run
from imagecached.ctl.client import Daemon
from imagecached.errors import InvalidInput, NotFound
from imagecached.events import PULLED
from imagecached.oci.digest import Digest
from tests.fakes.ports import BLOBS, CHAIN_IDS, DIFF_IDS, FakePorts, RegistrationState, image, manifest

NGINX = "docker.io/library/nginx:latest"


def of(kind: type[msgspec.Struct], answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """``answer``, after a look whether it has the documented type and nothing more."""
    typed = msgspec.convert(answer, kind)
    assert msgspec.to_builtins(typed) == answer
    return answer


@pytest.fixture(autouse=True)
def images(fakes: FakePorts) -> None:
    fakes.store.records = {NGINX: image(NGINX), "r.io/b:1": image("r.io/b:1", damaged=True)}


def test_images_are_listed(daemon: Daemon) -> None:
    """Sizes in bytes, times in RFC 3339."""
    first, second = of(documents.ImageList, daemon.get("/v1/images"))["images"]
    assert first == {
        "name": NGINX,
        "manifest_digest": Digest.of(manifest()),
        "chain_id": CHAIN_IDS[-1],
        "platform": "linux/amd64",
        "layers": 2,
        "disk_bytes": 3000,
        "damaged": False,
        "created": "2023-11-14T22:13:20Z",
        "last_used": "2023-11-14T22:21:40.500000Z",
        "registration": None,
    }
    assert second["damaged"]


def test_what_containerd_knows_is_told(daemon: Daemon, fakes: FakePorts) -> None:
    """State, reason, pin and since when; an image that is removed is forgotten there, too."""
    fakes.registration.states[NGINX] = RegistrationState("pending", "no answer", None, 1_700_000_000.0)
    answer = of(documents.ImageDescription, daemon.get("/v1/images/describe", name="nginx"))
    assert answer["image"]["registration"] == {
        "state": "pending",
        "reason": "no answer",
        "pinned": None,
        "since": "2023-11-14T22:13:20Z",
    }
    daemon.delete("/v1/images", name="nginx")
    assert fakes.registration.unregistered == [NGINX]


def test_an_image_is_described(daemon: Daemon, fakes: FakePorts) -> None:
    """By any spelling of its name; layers from manifest, store and the last pull that obtained something."""
    split = {"resolve": 0.1, "fetch": 2.0, "prepare": 0.01, "total": 2.11}
    fakes.events.emit(PULLED, NGINX, seconds=split, sources={DIFF_IDS[0]: "shared", DIFF_IDS[1]: "fetched"})
    fakes.events.emit(PULLED, "r.io/b:1")
    fakes.events.emit(PULLED, NGINX, seconds={"total": 0.1}, sources=dict.fromkeys(DIFF_IDS, "present"))
    answer = of(documents.ImageDescription, daemon.get("/v1/images/describe", name="nginx"))
    assert answer["image"]["name"] == NGINX
    assert answer["target_digest"] == Digest.of(manifest())
    assert answer["seconds"] == split
    assert [event["number"] for event in answer["events"]] == [1, 3]
    lower, upper = answer["layers"]
    assert lower == {
        "diff_id": DIFF_IDS[0],
        "blob_digest": BLOBS[0],
        "blob_bytes": 100,
        "tar_bytes": 2000,
        "disk_bytes": 2048,
        "entries": 7,
        "images": 2,
        "source": "shared",
    }
    assert (upper["blob_bytes"], upper["source"]) == (50, "fetched")


def test_what_is_not_remembered_is_null(daemon: Daemon) -> None:
    """A daemon that was started after the pull knows neither split nor sources."""
    answer = of(documents.ImageDescription, daemon.get("/v1/images/describe", name=NGINX))
    assert answer["seconds"] is None
    assert [layer["source"] for layer in answer["layers"]] == [None, None]


def test_only_what_is_present_counts_when_nothing_was_obtained(daemon: Daemon, fakes: FakePorts) -> None:
    """A pull that found everything here is the best there is to tell."""
    fakes.events.emit(PULLED, NGINX, seconds={"total": 0.1}, sources=dict.fromkeys(DIFF_IDS, "present"))
    answer = daemon.get("/v1/images/describe", name=NGINX)
    assert answer["seconds"]["total"] == 0.1
    assert {layer["source"] for layer in answer["layers"]} == {"present"}


@pytest.mark.parametrize("document", [b"", b"{}", b"<html>"])
def test_a_damaged_document_is_no_obstacle(daemon: Daemon, fakes: FakePorts, document: bytes) -> None:
    """What is known without it is told."""
    lost = Digest.of(b"lost")
    fakes.store.records[NGINX] = image(NGINX, manifest=document, damaged=True, diff_ids=(DIFF_IDS[0], lost))
    layers = of(documents.ImageDescription, daemon.get("/v1/images/describe", name=NGINX))["layers"]
    assert [layer["blob_bytes"] for layer in layers] == [None, None]
    assert [layer["tar_bytes"] for layer in layers] == [2000, None]


def test_an_image_that_is_not_here(daemon: Daemon) -> None:
    """The canonical name is told, so that a wrong spelling shows."""
    with pytest.raises(NotFound, match=r"image docker\.io/library/debian:12 is not here"):
        daemon.get("/v1/images/describe", name="debian:12")
    with pytest.raises(InvalidInput, match="repository must be lower case"):
        daemon.get("/v1/images/describe", name="X/Y")


def test_an_image_is_forgotten(daemon: Daemon, fakes: FakePorts) -> None:
    """Once."""
    assert of(documents.Done, daemon.delete("/v1/images", name="nginx")) == {}
    assert list(fakes.store.records) == ["r.io/b:1"]
    with pytest.raises(NotFound):
        daemon.delete("/v1/images", name="nginx")


def test_layers_and_snapshots_are_listed(daemon: Daemon) -> None:
    """With how many images share a layer."""
    layers = of(documents.LayerList, daemon.get("/v1/layers"))["layers"]
    assert [(layer["diff_id"], layer["images"]) for layer in layers] == [(DIFF_IDS[0], 2), (DIFF_IDS[1], 2)]
    snapshots = of(documents.SnapshotList, daemon.get("/v1/snapshots"))["snapshots"]
    assert [(each["chain_id"], each["parent"], each["seam"]) for each in snapshots] == [
        (CHAIN_IDS[0], None, False),
        (CHAIN_IDS[1], CHAIN_IDS[0], True),
    ]


def test_mounts(daemon: Daemon, fakes: FakePorts) -> None:
    """Made and undone by their directory."""
    body = {"image": "nginx", "target": "/mnt/x y", "read_write": True}
    of(documents.Done, daemon.post("/v1/mounts", body))
    assert fakes.containers.mounts == {Path("/mnt/x y"): (NGINX, True)}
    of(documents.Done, daemon.delete("/v1/mounts", target="/mnt/x y"))
    assert not fakes.containers.mounts


def test_containers(daemon: Daemon, fakes: FakePorts) -> None:
    """What the client wants of a run, and which process it is; then the bundle is released."""
    body = {
        "image": "nginx",
        "arguments": ["a", "b c"],
        "environment": {"X": "1"},
        "user": "7",
        "terminal": True,
    }
    answer = of(documents.ContainerBundle, daemon.post("/v1/containers", body))
    assert (answer["id"], answer["dir"]) == ("0123456789ab", "/bundle")
    [(name, command, terminal, client, settings)] = fakes.containers.runs
    assert (name, command, terminal) == (NGINX, ("a", "b c"), True)
    assert client > 1
    assert settings == Run(environment={"X": "1"}, user="7")
    of(documents.Done, daemon.delete(f"/v1/containers/{answer['id']}"))
    assert fakes.containers.released == ["0123456789ab"]


def test_gc(daemon: Daemon) -> None:
    """What went, or would."""
    answer = of(documents.GcAnswer, daemon.post("/v1/gc", {"dry_run": True}))
    assert answer == {
        "images": [],
        "snapshots": [],
        "layers": [DIFF_IDS[1]],
        "orphans": ["ingest/x"],
        "freed_bytes": 1024,
        "dry_run": True,
    }


def test_doctor(daemon: Daemon, fakes: FakePorts) -> None:
    """Findings as doctor gave them."""
    found = documents.Finding(name="kernel", verdict="fail", text="too old", advice="upgrade")
    fakes.findings = [found]
    answer = of(documents.Diagnosis, daemon.get("/v1/doctor"))
    assert answer["findings"] == [msgspec.to_builtins(found)]


def test_version_and_status(daemon: Daemon, fakes: FakePorts) -> None:
    """Who answers, and how it is."""
    assert of(documents.Version, daemon.get("/v1/version"))["version"] == __version__
    status = of(documents.Status, daemon.get("/v1/status"))
    assert (status["root"], status["mount_method"]) == (str(fakes.folder), "directio")
    assert (status["images"], status["disk_used_bytes"], status["why_not_ready"]) == (2, 3072, None)
    assert datetime.fromisoformat(status["started"]).timestamp() == 1_700_000_000
    assert status["uptime_seconds"] > 0
