"""Claiming a root: ours, alone, and of a known format."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from imagecached.errors import Corrupt, FailedPrecondition
from imagecached.store.layout import Layout
from imagecached.store.root import BALLAST_BYTES, FORMAT, Root

HOLD_LOCK = """
import sys
from pathlib import Path
from imagecached.store.layout import Layout
from imagecached.store.root import Root
root = Root(Layout(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def test_makes_the_root_for_the_owner_only(root: Path) -> None:
    """Missing parents are made too; the mode is 0700 even if the folder was there with another."""
    deep = root / "a" / "b"
    Root(Layout(deep)).release()
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    deep.chmod(0o755)
    Root(Layout(deep)).release()
    assert stat.S_IMODE(deep.stat().st_mode) == 0o700
    assert (deep / "version").read_text() == '{"format":1}'


def test_takes_an_empty_folder_or_a_fresh_file_system(root: Path) -> None:
    """systemd makes the folder; mkfs makes lost+found."""
    (root / "lost+found").mkdir(parents=True)
    Root(Layout(root)).release()


def test_leaves_a_folder_of_someone_else_alone(root: Path) -> None:
    """A typing error in --root must not change or delete anything."""
    root.mkdir(mode=0o755)
    (root / "precious").write_text("data")
    with pytest.raises(FailedPrecondition, match="holds 'precious' but no version file"):
        Root(Layout(root))
    assert [path.name for path in root.iterdir()] == ["precious"]
    assert stat.S_IMODE(root.stat().st_mode) == 0o755


def test_refuses_a_newer_format_and_changes_nothing(root: Path) -> None:
    """The message names both numbers."""
    Root(Layout(root)).release()
    (root / "version").write_text(f'{{"format": {FORMAT + 6}, "flags": []}}')
    (root / "ingest" / "future").write_text("x")
    with pytest.raises(FailedPrecondition, match=f"format {FORMAT + 6}.*up to {FORMAT}"):
        Root(Layout(root))
    assert (root / "ingest" / "future").exists()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "1"}', '{"format": 0}', "\0" * 12])
def test_refuses_an_unreadable_version(root: Path, content: str) -> None:
    """Guessing a format could destroy the store."""
    Root(Layout(root)).release()
    (root / "version").write_text(content)
    with pytest.raises(Corrupt, match="version"):
        Root(Layout(root))


def test_refuses_a_second_opening_in_this_process(root: Path) -> None:
    """A released root can be claimed again."""
    first = Root(Layout(root))
    with pytest.raises(FailedPrecondition, match=f"in use by process {os.getpid()}"):
        Root(Layout(root))
    first.release()
    first.release()
    Root(Layout(root)).release()


def test_names_the_other_process(root: Path) -> None:
    """The second daemon says who has the root; once the first is dead the root is free."""
    command = [sys.executable, "-c", HOLD_LOCK, str(root)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(FailedPrecondition, match=rf"in use by process {other.pid} \(python"):
            Root(Layout(root))
        other.kill()
    Root(Layout(root)).release()


def test_says_why_a_root_cannot_be_used(tmp_path: Path) -> None:
    """A file in the way is no traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedPrecondition, match="Not a directory"):
        Root(Layout(tmp_path / "file" / "root"))


def test_follows_a_link_to_the_root(root: Path, tmp_path: Path) -> None:
    """The state folder may be a link to another disk; paths are those the kernel names."""
    (tmp_path / "disk").mkdir()
    root.symlink_to(tmp_path / "disk")
    claimed = Root(Layout(root))
    assert claimed.layout.root == (tmp_path / "disk").resolve()
    claimed.release()


def test_ballast_is_taken_and_given_back_once(root: Path) -> None:
    """It occupies real blocks; giving back says whether there was any."""
    claimed = Root(Layout(root))
    claimed.take_ballast()
    assert claimed.layout.ballast.stat().st_blocks * 512 >= BALLAST_BYTES
    assert claimed.give_back()
    assert not claimed.give_back()
    claimed.release()
