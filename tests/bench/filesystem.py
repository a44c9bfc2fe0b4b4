"""A fresh ext4 for every run.

Creating files soon after deleting many on the same ext4 scans recently deleted inodes and triples the system
time of whoever creates files; so no run may follow another's deletions.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.mounts import mounted_below

SIZE = "10G"


@contextmanager
def fresh(folder: Path) -> Iterator[None]:
    """Mount an empty ext4 (on a preallocated file beside it) at ``folder``; unmount everything below it
    afterwards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(".ext4")
    if not image.exists():
        subprocess.run(["fallocate", "-l", SIZE, str(image)], check=True)
    options = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", options, str(image)], check=True)
    argv = ["losetup", "-f", "--show", "--direct-io=on", str(image)]
    device = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        subprocess.run(["mount", "-o", "noinit_itable,relatime", device, str(folder)], check=True)
        try:
            yield
        finally:
            _umount_below(folder)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def allocated(folder: Path) -> int:
    """Bytes of disk below ``folder``, on its own file system only."""
    du = subprocess.run(["du", "-sxB1", str(folder)], check=True, capture_output=True, text=True)
    return int(du.stdout.split()[0])


def _umount_below(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while mounts := mounted_below(folder):
        for mount in reversed(mounts):
            subprocess.run(["umount", mount], stderr=subprocess.DEVNULL, check=False)
        if time.monotonic() > deadline:
            raise RuntimeError(f"still mounted: {mounts}")
