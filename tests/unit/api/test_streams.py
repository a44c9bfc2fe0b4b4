"""api: pulls, fsck and events, line by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imagecached.api import documents
from imagecached.ctl.client import Daemon
from imagecached.errors import Corrupt, FailedPrecondition, InvalidInput, Unavailable
from imagecached.oci.digest import Digest
from imagecached.store import Finding, FsckReport
from tests.fakes.ports import BLOBS, CHAIN_IDS, DIFF_IDS, FakePorts, Served, manifest, serve_api

A, B = "docker.io/library/a:latest", "docker.io/library/b:latest"


def pulling(daemon: Daemon, *images: str, **more: Any) -> Iterator[Mapping[str, Any]]:
    """The lines of a pull, each of a documented type."""
    for line in daemon.work("/v1/pulls", {"images": images, **more}):
        msgspec.convert(line, documents.PullProgress | documents.PullDone)
        yield line


def test_blobs_are_told_of_as_pulls_are(daemon: Daemon) -> None:
    """Progress and result have the same lines."""
    *progress, done = daemon.work("/v1/blobs", {"images": ["a"]})
    assert progress[-1]["state"] == "ready"
    assert [(image["image"], image["state"]) for image in done["images"]] == [(A, "ready")]


def test_blobs_without_a_containerd(fakes: FakePorts, tmp_path: Path) -> None:
    """There is nowhere to bring them, and the answer names the setting."""
    fakes.told = False
    with (
        serve_api(fakes, tmp_path / "api.sock") as served,
        pytest.raises(FailedPrecondition, match=r"containerd\.socket"),
    ):
        list(Daemon(str(served.socket)).work("/v1/blobs", {"images": ["a"]}))


def test_a_pull_tells_its_progress_and_its_result(daemon: Daemon) -> None:
    """The result has identity, bytes, layers and the timing split."""
    *progress, done = pulling(daemon, "a")
    assert {line["state"] for line in progress} <= {"resolving", "ready"}
    assert (progress[-1]["state"], progress[-1]["bytes_done"], progress[-1]["bytes_total"]) == (
        "ready",
        150,
        150,
    )
    assert done["images"] == [
        {
            "state": "ready",
            "image": A,
            "manifest_digest": Digest.of(manifest()),
            "chain_id": CHAIN_IDS[-1],
            "bytes_downloaded": 50,
            "bytes_reused": 100,
            "layers": [
                {
                    "digest": BLOBS[0],
                    "diff_id": DIFF_IDS[0],
                    "size_bytes": 100,
                    "done_bytes": 100,
                    "source": "present",
                },
                {
                    "digest": BLOBS[1],
                    "diff_id": DIFF_IDS[1],
                    "size_bytes": 50,
                    "done_bytes": 50,
                    "source": "fetched",
                },
            ],
            "seconds": {"resolve": 0.25, "fetch": 1.5, "prepare": 0.004, "total": 1.754},
        }
    ]


def test_progress_is_told_on_change_only(daemon: Daemon, served: Served, fakes: FakePorts) -> None:
    """Nothing new, nothing told."""
    fakes.images.held.add(A)
    lines = pulling(daemon, "a")
    told = [next(lines)]
    for done in (10, 10, 30):
        served.call(fakes.images.pulls[A].fetch, done)
        if told[-1]["bytes_done"] != 100 + done:
            told.append(next(lines))
    served.call(fakes.images.pulls[A].ended.set)
    told += lines
    assert [line.get("bytes_done") for line in told] == [0, 110, 130, 150, None]
    assert [line.get("state") for line in told] == ["resolving", "fetching", "fetching", "ready", None]


def test_one_image_that_fails_does_not_end_the_others(daemon: Daemon, fakes: FakePorts) -> None:
    """Each image has its own end, in the order asked for; the unforeseen is told calmly."""
    fakes.images.outcomes = {A: Unavailable("busy", retry_after=5), "x.io/c:1": ZeroDivisionError("secret")}
    done = list(pulling(daemon, "a", "b", "x.io/c:1"))[-1]
    first, second, third = done["images"]
    assert first == {
        "state": "failed",
        "image": A,
        "error": {"kind": "unavailable", "message": "busy", "retry_after_seconds": 5},
    }
    assert (second["state"], second["image"]) == ("ready", B)
    assert (third["error"]["kind"], "secret" in str(third)) == ("failed", False)


def test_spellings_of_one_image_are_one_pull(daemon: Daemon, fakes: FakePorts) -> None:
    """And the platform is passed on in its normal form."""
    done = list(pulling(daemon, "a", A, "a:latest", platform="linux/x86_64"))[-1]
    assert [image["image"] for image in done["images"]] == [A]
    assert fakes.images.platforms == ["linux/amd64"]


def test_nothing_is_pulled_when_one_name_is_wrong(daemon: Daemon, fakes: FakePorts) -> None:
    """The request is refused as a whole."""
    with pytest.raises(InvalidInput, match="lower case"):
        list(pulling(daemon, "a", "x/Y"))
    assert not fakes.images.pulls


def test_a_client_that_goes_away_leaves_its_pulls(daemon: Daemon, fakes: FakePorts) -> None:
    """Closing the connection is how a pull is cancelled."""
    fakes.images.held.update((A, B))
    lines = daemon.work("/v1/pulls", {"images": [A, B]})
    next(lines)
    lines.close()  # type: ignore[attr-defined]  # it is a generator
    assert fakes.images.somebody_left.wait(10)
    assert daemon.get("/v1/version")
    assert fakes.images.left == {A, B}


def test_the_daemon_that_stops_leaves_its_pulls(daemon: Daemon, served: Served, fakes: FakePorts) -> None:
    """The client hears why."""
    fakes.images.held.add(A)
    lines = pulling(daemon, "a")
    next(lines)
    served.stop()
    with pytest.raises(Unavailable, match="the daemon is stopping"):
        list(lines)
    assert fakes.images.left == {A}


def test_fsck_tells_bytes_and_faults(daemon: Daemon, fakes: FakePorts) -> None:
    """Progress while it reads, then everything it found."""
    fakes.store.steps = [(1000, 3000)]
    fakes.store.checked.clear()
    fault = Finding("layer_corrupt", DIFF_IDS[0], "another digest", repaired=True)
    fakes.store.report = FsckReport((fault,), 2, 3000)
    lines = daemon.work("/v1/fsck", {"repair": True})
    first = next(lines)
    assert msgspec.convert(first, documents.FsckProgress).bytes_total == 3000
    fakes.store.checked.set()
    done = list(lines)[-1]
    assert msgspec.convert(done, documents.FsckDone).faults == [
        documents.Fault(kind="layer_corrupt", subject=DIFF_IDS[0], text="another digest", repaired=True)
    ]
    assert (done["files"], done["bytes"]) == (2, 3000)


def test_fsck_that_fails(daemon: Daemon, fakes: FakePorts) -> None:
    """Its error is the last line."""
    fakes.store.fsck_error = Corrupt("the database is gone")
    with pytest.raises(Corrupt, match="the database is gone"):
        list(daemon.work("/v1/fsck", {}))


def test_events_are_told_and_followed(daemon: Daemon, served: Served, fakes: FakePorts) -> None:
    """The past at once; with follow also what is still to come; of one subject if asked."""
    served.call(fakes.events.emit, "pulled", "a")
    served.call(fakes.events.emit, "gc")
    past = list(daemon.follow("/v1/events"))
    assert [(event["number"], event["kind"], event["subject"]) for event in past] == [
        (1, "pulled", "a"),
        (2, "gc", ""),
    ]
    assert msgspec.convert(past[0], documents.EventLine).time.year == 2023
    assert [event["number"] for event in daemon.follow("/v1/events", since=1)] == [2]
    following = daemon.follow("/v1/events", follow=True, subject="a")
    assert next(following)["number"] == 1
    served.call(fakes.events.emit, "pulled", "b")
    served.call(fakes.events.emit, "pulled", "a")
    assert next(following)["number"] == 4
