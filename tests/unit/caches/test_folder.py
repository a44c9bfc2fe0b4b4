"""The folder of manifests: what appears, changes, breaks and goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagecached.caches.folder import FILE_BYTES, Folder, Reading
from imagecached.events import EventLog
from tests.unit.caches.conftest import manifest


class Heard:
    """A folder and what was heard of it."""

    def __init__(self, path: Path) -> None:
        self.readings: list[Reading] = []
        self.events = EventLog()
        self.folder = Folder(path, self.readings.append, self.events)

    async def settle(self) -> Reading:
        """Look until a change has been read."""
        await self.folder.look()
        await self.folder.look()
        return self.readings[-1]

    @property
    def names(self) -> list[str]:
        return sorted(self.readings[-1].declared)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "caches.d"
    folder.mkdir()
    return folder


@pytest.fixture
def heard(path: Path) -> Heard:
    return Heard(path)


async def test_files_come_change_and_go(heard: Heard, path: Path) -> None:
    """The first look reads at once; then a change is read when it has settled, and nothing else is said."""
    (path / "a.yaml").write_bytes(manifest("a", "nginx"))
    await heard.folder.look()
    assert heard.names == ["a"]
    (path / "b.json").write_bytes(manifest("b", "nginx"))
    await heard.folder.look()
    assert len(heard.readings) == 1
    await heard.folder.look()
    assert heard.names == ["a", "b"]
    await heard.folder.look()
    assert len(heard.readings) == 2
    (path / "a.yaml").write_bytes(manifest("c", "nginx"))
    await heard.settle()
    assert heard.names == ["b", "c"]
    (path / "b.json").unlink()
    await heard.settle()
    assert heard.names == ["c"]
    assert heard.readings[-1].declared["c"].origin == str(path / "a.yaml")


async def test_a_file_that_is_being_written_is_let_alone(heard: Heard, path: Path) -> None:
    """Half a manifest is never read while it grows."""
    whole = manifest("a", "nginx")
    await heard.folder.look()
    for end in range(10, len(whole) + 1, 10):
        (path / "a.yaml").write_bytes(whole[:end])
        await heard.folder.look()
    assert len(heard.readings) == 1
    (path / "a.yaml").write_bytes(whole)
    assert (await heard.settle()).problems == ()
    assert heard.names == ["a"]


async def test_one_bad_file_stops_no_other(heard: Heard, path: Path) -> None:
    """It is named with what is allowed; what it declared is not called gone."""
    (path / "a.yaml").write_bytes(manifest("a", "nginx"))
    (path / "bad.yaml").write_bytes(manifest("b", "nginx", imageCacheSize=5))
    (path / "worse.yaml").write_bytes(b"{" * 100)
    reading = await heard.settle()
    assert heard.names == ["a"]
    assert reading.unclear == {str(path / "bad.yaml"), str(path / "worse.yaml")}
    assert "spec.imageCacheSize: must be a whole number from 20 to 32768, not 5" in str(reading.problems[0])
    (path / "a.yaml").write_bytes(manifest("c", "nginx"))
    await heard.settle()
    told = [(event.kind, event.subject) for event in heard.events.recent()]
    assert told == [("imagecache_refused", str(problem.source)) for problem in reading.problems]


@pytest.mark.parametrize("kind", ["directory", "fifo", "dangling", "large", "loop"])
async def test_what_is_no_manifest_is_a_problem(heard: Heard, path: Path, kind: str) -> None:
    """Whatever somebody puts there: it is named, and nobody waits for it."""
    odd = path / "odd.yaml"
    match kind:
        case "directory":
            odd.mkdir()
        case "fifo":
            os.mkfifo(odd)
        case "dangling":
            odd.symlink_to("nowhere")
        case "large":
            odd.write_bytes(b"#" * (FILE_BYTES + 1))
        case _:
            odd.symlink_to(odd)
    (path / "a.yaml").write_bytes(manifest("a", "nginx"))
    reading = await heard.settle()
    assert heard.names == ["a"]
    assert [problem.source for problem in reading.problems] == [str(odd)]


async def test_one_name_in_two_files(heard: Heard, path: Path) -> None:
    """The first by name counts, the second hears which."""
    (path / "b.yaml").write_bytes(manifest("a", "busybox"))
    (path / "a.yaml").write_bytes(manifest("a", "nginx"))
    reading = await heard.settle()
    assert reading.declared["a"].cache.images == ("nginx",)
    [problem] = reading.problems
    assert str(problem) == (
        f"{path / 'b.yaml'}: metadata.name: 'a' is declared by {path / 'a.yaml'} already, which counts"
    )
    assert reading.unclear == frozenset()


async def test_other_names_are_not_ours(heard: Heard, path: Path) -> None:
    """Editors leave backups and hidden files."""
    for name in (".a.yaml", "a.yaml~", "a.yaml.bak", "README"):
        (path / name).write_bytes(b"{")
    assert await heard.settle() == Reading({}, frozenset())


async def test_a_missing_folder_declares_nothing(tmp_path: Path) -> None:
    """It may appear later."""
    heard = Heard(tmp_path / "none")
    await heard.settle()
    assert heard.names == []
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.yaml").write_bytes(manifest("a", "nginx"))
    await heard.settle()
    assert heard.names == ["a"]


async def test_waking_reads_at_once(heard: Heard, path: Path) -> None:
    """Who asks for it says that the files are whole; what has not changed is heard again all the same."""
    await heard.settle()
    (path / "a.yaml").write_bytes(manifest("a", "nginx"))
    heard.folder.wake()
    await heard.folder.look()
    assert heard.names == ["a"]
