"""Layer files made at once from entries, and what is left of them in the kernel."""

from __future__ import annotations

import os
from pathlib import Path

from imagecached.layers.layerfile import LayerWriter
from imagecached.layers.limits import Limits
from tests.support.tars import Entry, tar


def layer_file(path: Path, *entries: Entry) -> Path:
    """A finished layer file at ``path``, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        writer = LayerWriter(fd, Limits(), None)
        writer.feed(tar(*entries))
        writer.finish()
    finally:
        os.close(fd)
    return path


def loops_below(directory: Path) -> list[str]:
    """Loop devices whose file lies below ``directory``."""
    found = []
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            name = device.read_text().strip()
        except OSError:
            continue
        if name.startswith(str(directory)):
            found.append(device.parts[3])
    return found
