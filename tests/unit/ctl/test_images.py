"""imagecachectl: pull, get, describe, rm."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from imagecached.errors import Corrupt, NotFound
from imagecached.events import PULLED
from tests.fakes.ports import CHAIN_IDS, DIFF_IDS, FakePorts, RegistrationState, Served, image
from tests.unit.ctl.conftest import Ctl

A, B = "docker.io/library/a:latest", "docker.io/library/b:latest"


def table(text: str) -> list[list[str]]:
    """Cells of every line."""
    return [re.split(r" {3,}", line) for line in text.splitlines()]


def test_pull_prints_where_the_time_went(ctl: Ctl) -> None:
    """Progress on standard error, a table on standard output."""
    ended = ctl("pull", "a", "b")
    assert ended.code == 0
    head, first, second = table(ended.out)
    assert head == [
        "NAME",
        "PHASE",
        "PROGRESS",
        "DOWNLOADED",
        "REUSED",
        "RESOLVE",
        "FETCH",
        "PREPARE",
        "TOTAL",
    ]
    assert first == [A, "Ready", "100%", "50 B", "100 B", "250 ms", "1.50 s", "4 ms", "1.75 s"]
    assert second[:3] == [B, "Ready", "100%"]
    assert f"{A}: ready 100%, 150 B of 150 B, 2 of 2 layers, 100 B reused" in ended.err.splitlines()


def test_blobs_fetch_prints_as_pull_does(ctl: Ctl) -> None:
    """One row per image; another action than fetch is wrong usage."""
    ended = ctl("blobs", "fetch", "-q", "a")
    assert ended.code == 0
    assert table(ended.out)[1][:2] == [A, "Ready"]
    wrong = ctl("blobs", "drop", "a")
    assert wrong.code == 2
    assert "expected fetch, got drop" in wrong.err


def test_what_containerd_knows(ctl: Ctl, fakes: FakePorts) -> None:
    """A column of the wide table and a line of describe; not told of is a dash."""
    fakes.store.records = {A: image(A), B: image(B)}
    fakes.registration.states[A] = RegistrationState("registered", "", True, 1.0)
    fakes.registration.states[B] = RegistrationState("failed", "no such snapshotter", None, 1.0)
    head, first, second = table(ctl("get", "images", "-o", "wide").out)
    assert head[-2:] == ["CONTAINERD", "REASON"]
    assert first[-2:] == ["Registered, pinned", "-"]
    assert second[-2:] == ["Failed", "no such snapshotter"]
    assert re.search(r"Containerd: +Failed no such snapshotter", ctl("describe", B).out)
    del fakes.registration.states[B]
    assert re.search(r"Containerd: +not told", ctl("describe", B).out)


def test_pull_as_json_is_an_interface(ctl: Ctl) -> None:
    """The documented keys per image."""
    ended = ctl("pull", "-q", "-o", "json", "a")
    [found] = json.loads(ended.out)["images"]
    keys = {"image", "manifest_digest", "chain_id", "bytes_downloaded", "bytes_reused", "layers", "seconds"}
    assert keys | {"state"} == set(found)
    assert set(found["seconds"]) == {"resolve", "fetch", "prepare", "total"}
    assert ended.err == ""


def test_pull_of_which_one_fails(ctl: Ctl, fakes: FakePorts) -> None:
    """The others are made ready; the exit code is of the first that failed."""
    fakes.images.outcomes = {A: NotFound("no such tag"), "docker.io/library/c:latest": Corrupt("bad")}
    ended = ctl("pull", "-q", "b", "a", "c")
    assert ended.code == 3
    assert [row[1] for row in table(ended.out)[1:]] == ["Ready", "Failed", "Failed"]
    assert ended.err.splitlines()[0] == f"imagecachectl: {A}: no such tag"
    document = json.loads(ctl("pull", "-q", "a", "-o", "json").out)
    assert document["images"][0]["error"] == {"kind": "not_found", "message": "no such tag"}


def test_images_as_a_table(ctl: Ctl, fakes: FakePorts) -> None:
    """What kubectl users expect of an ImageCache: age, phase, progress."""
    fakes.store.records = {A: image(A), B: image(B, damaged=True)}
    head, first, second = table(ctl("get", "images").out)
    assert head == ["NAME", "AGE", "SNAPSHOT", "PHASE", "PROGRESS", "DISK", "LAYERS"]
    assert (first[0], first[2:]) == (A, [CHAIN_IDS[-1][7:19], "Ready", "100%", "2.9 KiB", "2"])
    assert re.fullmatch(r"(\d+y)?\d+[dy]", first[1])
    assert second[3:5] == ["Damaged", "-"]


def test_one_image(ctl: Ctl, fakes: FakePorts) -> None:
    """By any spelling; as a document of its own."""
    fakes.store.records = {A: image(A), B: image(B)}
    assert [row[0] for row in table(ctl("get", "images", "b").out)] == ["NAME", B]
    assert json.loads(ctl("get", "images", "b", "-o", "json").out)["name"] == B
    assert ctl("get", "images", "c").code == 3


def test_snapshots_and_layers(ctl: Ctl) -> None:
    """One by the beginning of its digest."""
    assert table(ctl("get", "snapshots").out)[2][:3] == [
        CHAIN_IDS[1][7:19],
        CHAIN_IDS[0][7:19],
        DIFF_IDS[1][7:19],
    ]
    head, *rows = table(ctl("get", "layers").out)
    assert head == ["LAYER", "SIZE", "DISK", "ENTRIES", "IMAGES", "USED", "AGE"]
    assert [row[:5] for row in rows] == [
        [DIFF_IDS[0][7:19], "2.0 KiB", "2.0 KiB", "7", "0"],
        [DIFF_IDS[1][7:19], "1000 B", "1.0 KiB", "7", "0"],
    ]
    assert json.loads(ctl("get", "layers", DIFF_IDS[0][7:12], "-o", "json").out)["diff_id"] == DIFF_IDS[0]
    assert json.loads(ctl("get", "snapshots", CHAIN_IDS[0], "-o", "json").out)["chain_id"] == CHAIN_IDS[0]
    ended = ctl("get", "layers", "ffff0000")
    assert (ended.code, ended.err) == (3, "imagecachectl: no layer ffff0000\n")


def test_an_image_is_described(ctl: Ctl, served: Served, fakes: FakePorts) -> None:
    """Identity, timing split, layers with how each was obtained, events."""
    fakes.store.records = {A: image(A)}
    split = {"resolve": 0.1, "fetch": 12.0, "prepare": 0.01, "total": 12.11}
    sources = {DIFF_IDS[0]: "present", DIFF_IDS[1]: "fetched"}
    served.call(lambda: fakes.events.emit(PULLED, A, seconds=split, sources=sources, bytes_downloaded=50))
    out = ctl("describe", "a").out
    assert re.search(rf"^Name: +{A}$", out, re.MULTILINE)
    assert re.search(
        r"^Timing: +resolve 100 ms, fetch 12.0 s, prepare 10 ms, total 12.1 s$", out, re.MULTILINE
    )
    assert re.search(rf"^  {DIFF_IDS[1][7:19]} +50 B +1000 B +1.0 KiB +7 +1 +fetched$", out, re.MULTILINE)
    assert re.search(rf"^  \w+ +pulled +{A} +bytes_downloaded=50$", out, re.MULTILINE)
    assert yaml.safe_load(ctl("describe", "a", "-o", "yaml").out)["seconds"] == split


def test_a_forgotten_pull_is_said(ctl: Ctl, fakes: FakePorts) -> None:
    """A daemon started later does not know the split."""
    fakes.store.records = {A: image(A, damaged=True)}
    out = ctl("describe", "a").out
    assert "not remembered" in out
    assert "Damaged: pull it again" in out


def test_images_are_forgotten(ctl: Ctl, fakes: FakePorts) -> None:
    """Silently, as rm does; one that is not here is an error."""
    fakes.store.records = {A: image(A), B: image(B)}
    ended = ctl("rm", "a", "b")
    assert (ended.code, ended.out, ended.err, fakes.store.records) == (0, "", "", {})
    assert ctl("rm", "a").code == 3


@pytest.mark.parametrize("kind", ["images", "layers", "snapshots"])
def test_yaml_says_the_same_as_json(ctl: Ctl, fakes: FakePorts, kind: str) -> None:
    """Two spellings of one document."""
    fakes.store.records = {A: image(A)}
    assert yaml.safe_load(ctl("get", kind, "-o", "yaml").out) == json.loads(
        ctl("get", kind, "-o", "json").out
    )
