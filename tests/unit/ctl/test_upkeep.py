"""imagecachectl: gc, fsck, doctor, events, version."""

from __future__ import annotations

import json

import pytest
import yaml

from imagecached import __version__
from imagecached.api.documents import Finding
from imagecached.store import Finding as Fault
from imagecached.store import FsckReport
from tests.fakes.ports import DIFF_IDS, FakePorts, Served
from tests.unit.ctl.conftest import Ctl


def test_gc_says_what_went(ctl: Ctl) -> None:
    """And a dry run what would."""
    out = ctl("gc").out.splitlines()
    assert [line.split() for line in out[:-1]] == [
        ["KIND", "SUBJECT"],
        ["layer", DIFF_IDS[1]],
        ["orphan", "ingest/x"],
    ]
    assert out[-1] == "Freed 1.0 KiB."
    assert ctl("gc", "--dry-run").out.splitlines()[-1] == "Would free 1.0 KiB."
    assert json.loads(ctl("gc", "--dry-run", "-o", "json").out)["dry_run"] is True


@pytest.mark.parametrize(("repaired", "code"), [(False, 5), (True, 0)])
def test_fsck_fails_while_a_fault_remains(ctl: Ctl, fakes: FakePorts, *, repaired: bool, code: int) -> None:
    """Each fault has a line; scripts get them all."""
    fault = Fault("layer_corrupt", DIFF_IDS[0], "another digest", repaired=repaired)
    fakes.store.report = FsckReport((fault,), 2, 3000)
    ended = ctl("fsck", "--repair")
    assert ended.code == code
    head, line, last = ended.out.splitlines()
    assert head.split() == ["FAULT", "SUBJECT", "STATE", "WHAT"]
    assert line.split()[:3] == ["layer_corrupt", DIFF_IDS[0], "repaired" if repaired else "-"]
    assert last == "Verified 2 files, 2.9 KiB. Faults: 1."
    assert json.loads(ctl("fsck", "-o", "json").out)["faults"][0]["repaired"] is repaired


def test_a_clean_store(ctl: Ctl) -> None:
    """One line."""
    ended = ctl("fsck")
    assert (ended.code, ended.out) == (0, "Verified 2 files, 2.9 KiB. Faults: 0.\n")


def test_doctor_asks_the_daemon(ctl: Ctl, fakes: FakePorts) -> None:
    """Advice below the finding; exit code 1 if something must be done."""
    fakes.findings = [
        Finding(name="kernel", verdict="ok", text="6.12", advice=""),
        Finding(name="disk", verdict="warn", text="nearly full", advice="add some"),
    ]
    ended = ctl("doctor")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "OK     kernel   6.12",
        "WARN   disk     nearly full",
        "                → add some",
    ]
    fakes.findings = [Finding(name="kernel", verdict="fail", text="5.15", advice="upgrade")]
    assert ctl("doctor", "-o", "json").code == 1


def test_doctor_works_without_a_daemon(alone: Ctl) -> None:
    """The other program examines the host then."""
    ended = alone("doctor", "-o", "json")
    verdicts = {finding["verdict"] for finding in json.loads(ended.out)["findings"]}
    assert verdicts <= {"ok", "warn", "fail"}
    assert ended.code == ("fail" in verdicts)


def test_doctor_without_a_daemon_needs_root(alone: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an examination would mislead."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert alone("doctor").code == 4


@pytest.fixture
def happened(served: Served, fakes: FakePorts) -> None:
    served.call(lambda: fakes.events.emit("pulled", "a", bytes_downloaded=5, seconds={"total": 1}))
    served.call(lambda: fakes.events.emit("gc"))


@pytest.mark.usefixtures("happened")
def test_events(ctl: Ctl) -> None:
    """A table, or one document per event."""
    head, first, second = ctl("events").out.splitlines()
    assert head.split() == ["AGE", "KIND", "SUBJECT", "FACTS"]
    assert first.split()[1:] == ["pulled", "a", "bytes_downloaded=5"]
    assert second.split()[1:] == ["gc", "-"]
    lines = ctl("events", "-o", "json", "--since", "1").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"number": 2, "time": "2023-11-14T22:13:20Z", "kind": "gc", "subject": "", "facts": {}}
    ]
    documents = list(yaml.safe_load_all(ctl("events", "-o", "yaml").out))
    assert [document["kind"] for document in documents] == ["pulled", "gc"]


@pytest.mark.usefixtures("happened")
def test_events_are_followed_until_the_daemon_stops(
    ctl: Ctl, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Line by line, each as soon as it happens."""
    real = print

    def stopping(*words: object, **more: object) -> None:
        real(*words, **more)  # type: ignore[call-overload]
        if "  gc  " in str(words[0]):
            served.stop()

    monkeypatch.setattr("builtins.print", stopping)
    ended = ctl("events", "--follow")
    assert ended.out == "2023-11-14T22:13:20Z  pulled  a  bytes_downloaded=5\n2023-11-14T22:13:20Z  gc  -\n"
    assert (ended.code, ended.err) == (7, "imagecachectl: the daemon is stopping\n")


def test_version(ctl: Ctl) -> None:
    """Of both programs."""
    assert ctl("version").out == f"imagecachectl {__version__}\nimagecached {__version__}\n"
    assert json.loads(ctl("version", "-o", "json").out) == {"client": __version__, "daemon": __version__}


def test_version_without_a_daemon(alone: Ctl) -> None:
    """No error: the client has one of its own."""
    ended = alone("version")
    assert (ended.code, ended.out) == (0, f"imagecachectl {__version__}\nimagecached does not run\n")
