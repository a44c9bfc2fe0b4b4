"""What is mounted below a folder, read from the kernel and not from memory."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path


def mounted_below(directory: Path) -> list[Path]:
    """Mount points at or below ``directory``, the newest last."""
    root = directory.resolve()
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = (Path(_unescape(line.split(" ")[4])) for line in lines)
    return [point for point in points if point.is_relative_to(root)]


def unmount_below(directory: Path) -> list[Path]:
    """Unmount everything at or below ``directory``, the newest first; returns what was there."""
    points = mounted_below(directory)
    for point in reversed(points):
        subprocess.run(["umount", "--lazy", point], check=True)
    return points


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
