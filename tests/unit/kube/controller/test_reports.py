"""What nodes report, read from objects that nobody checked, and the census of all of them."""

from __future__ import annotations

from typing import Any

import pytest

from imagecached.errors import InvalidInput
from imagecached.imagecache import Options
from imagecached.kube.controller.census import Census
from imagecached.kube.controller.reports import CacheReport, NodeReport, Reader
from tests.unit.kube.controller.building import node

ENTRY = {
    "name": "web",
    "uid": "u1",
    "generation": 3,
    "phase": "Ready",
    "servingGeneration": 3,
    "bytesTotal": 9,
}


def document(name: str = "n1", *entries: Any, handler: Any = True) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "uid": f"uid-{name}"},
        "status": {"handlerReady": handler, "caches": list(entries)},
    }


def test_a_report_is_read_and_absent_numbers_are_zero() -> None:
    """Nodes leave out what is nothing."""
    report = Reader().read(document("n1", ENTRY))
    assert report == NodeReport("n1", "uid-n1", True, {"web": CacheReport("u1", 3, "Ready", 3, total=9)})


@pytest.mark.parametrize(
    "entry",
    [
        "text",
        {},
        {**ENTRY, "name": 3},
        {**ENTRY, "uid": ""},
        {**ENTRY, "phase": "Preparing"},
        {**ENTRY, "phase": ["Ready"]},
    ],
)
def test_an_entry_that_makes_no_sense_hides_no_other(entry: Any) -> None:
    """One broken entry costs itself only."""
    assert set(Reader().read(document("n1", entry, {**ENTRY, "name": "db"})).caches) == {"db"}


def test_numbers_and_texts_are_bounded() -> None:
    """What a node writes is summed and copied."""
    wild = {**ENTRY, "bytesTotal": 1 << 200, "bytesDone": -5, "bytesReused": True, "message": "x" * 9999}
    report = Reader().read(document("n1", wild)).caches["web"]
    assert (report.total, report.done, report.reused, len(report.message)) == (1 << 62, 0, 0, 300)


def test_a_report_without_status_says_nothing() -> None:
    """An agent creates the object before it writes the status."""
    statuses: list[Any] = [None, [], {}, {"caches": {"web": ENTRY}}]
    for status in statuses:
        report = Reader().read({"metadata": {"name": "n1"}, "status": status})
        assert (report.handler, report.caches) == (False, {})
    with pytest.raises(InvalidInput, match="NodeImageCache"):
        Reader().read({"status": {}})


def test_equal_reports_are_one_object() -> None:
    """A million of them are kept in a large cluster, nearly all the same."""
    reader = Reader()
    one, two = (reader.read(document(name, dict(ENTRY))) for name in ("n1", "n2"))
    assert one.caches["web"] is two.caches["web"]


def test_what_changed_is_named() -> None:
    """Only these caches are looked at."""
    reader, census = Reader(), Census()
    assert census.see_report("n1", reader.read(document("n1", ENTRY))) == {"web"}
    assert census.see_report("n1", reader.read(document("n1", ENTRY))) == set()
    more = reader.read(document("n1", ENTRY, {**ENTRY, "name": "db"}))
    assert census.see_report("n1", more) == {"db"}
    assert census.see_report("n1", None) == {"web", "db"}


def test_only_nodes_with_a_daemon_are_waited_for() -> None:
    """A node without our daemon reports nothing, ever."""
    census = Census()
    for name in ("n1", "n2"):
        census.see_node(name, node(name))
    census.see_report("n1", Reader().read(document("n1", ENTRY)))
    assert [(each.name, found is not None) for each, found in census.reported("web", "u1", Options())] == [
        ("n1", True)
    ]
    assert [found for _, found in census.reported("web", "u2", Options())] == [None]  # another object's


def test_a_selection_follows_the_nodes() -> None:
    """What is remembered of it is dropped when a node comes, goes, or changes what is asked of it."""
    census = Census()
    assert census.targets(Options()) == ()
    assert census.see_node("n1", node("n1"))
    assert [each.name for each in census.targets(Options())] == ["n1"]
    assert not census.see_node("n1", node("n1", labels={"imagecached.dev/handler": "ready"}))
    assert census.see_node("n1", node("n1", up=False))
    assert [each.up for each in census.targets(Options())] == [False]
    assert census.see_node("n1", None)
    assert census.targets(Options()) == ()
