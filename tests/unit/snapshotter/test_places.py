"""places: which directories a mount shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagecached.errors import ImagecachedError
from imagecached.mounts import mountinfo
from imagecached.snapshotter.places import Places, numbers_shown

TABLE = b"""\
1 0 8:1 / / rw - ext4 /dev/root rw
2 1 0:9 / /a rw - overlay overlay rw,lowerdir=/r/s/2/fs:/r/m/3/fsx,upperdir=/r/s/1z/fs,workdir=/r/s/1z/work
3 1 0:10 / /b rw - overlay overlay ro,lowerdir=4/fs:5/fs
4 1 8:1 /r/s/6/fs /c ro - ext4 /dev/root rw
5 1 8:1 /r/s/7.trash/fs /d rw - ext4 /dev/root rw
6 1 8:1 /r/s/8.trash/fs//deleted /e rw - ext4 /dev/root rw
7 1 8:1 /home/fs /f rw - ext4 /dev/root rw
8 1 8:1 /r/s/9/work /g rw - ext4 /dev/root rw
9 1 0:11 / /h rw - overlay overlay rw,lowerdir=/var/snapshots/11/fs:/r/m/3,upperdir=/var/snapshots/12/fs
10 1 0:12 / /i rw - overlay overlay rw,lowerdir=13/fs:14/fs:/r/s/15/fs,upperdir=/var/snapshots/16/fs
11 1 0:13 / /j rw - overlay overlay rw,lowerdir=m/3:s/17/fs:18/fs,upperdir=/r/s/19/fs
12 1 8:1 /var/snapshots/20/fs /k rw - ext4 /dev/root rw
"""


def test_what_a_table_shows() -> None:
    """Uppers, lowers, relative ones, bind mounts, renamed and deleted ones; rather one too many.

    Not those of another snapshotter, whose directories are named much like ours.
    """
    shown = numbers_shown(mountinfo.parse(TABLE))
    ours = ("2", "1z", "4", "5", "6", "7", "8", "15", "17", "18", "19")
    assert shown == {int(number, 36) for number in ours}


def test_numbers_go_on_behind_all_that_is_taken(tmp_path: Path) -> None:
    """By a record, by a directory, by trash."""
    for name in ("3", "a.trash", "unknown file", "x.new"):
        (tmp_path / "s" / name).mkdir(parents=True)
    assert Places(tmp_path, [7]).next_number() == 11
    assert Places(tmp_path, [70]).next_number() == 71


def test_a_directory_that_is_there_is_not_taken_over(tmp_path: Path) -> None:
    """Its content is somebody's."""
    places = Places(tmp_path, [])
    places.make(5)
    with pytest.raises(ImagecachedError, match="snapshot 5"):
        places.make(5)
