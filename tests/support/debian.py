"""Layers made from Debian's packages: real trees with real modes, owners, links and times.

Packages are fetched once with ``apt-get download`` (no root needed, apt lists needed) and kept in a folder.
"""

from __future__ import annotations

import fcntl
import io
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "debs"
"""Where packages are kept between runs; git ignores it."""

_UNMERGED: Final = re.compile(r"^(bin|sbin|lib|lib32|lib64|libx32)(?=/|$)")


def packages_tar(names: Iterable[str], *, directory: Path = CACHE) -> bytes:
    """One archive with the files of these packages (not of what they depend on), with ``/usr`` merged.

    Where packages give the same directory, the first one's entry stays. Documentation is left out.
    """
    merged = io.BytesIO()
    seen: set[str] = set()
    with tarfile.open(fileobj=merged, mode="w", format=tarfile.PAX_FORMAT) as writer:
        for name in names:
            for header, content in _entries(package(name, directory=directory)):
                if header.name not in seen:
                    seen.add(header.name)
                    writer.addfile(header, io.BytesIO(content))
    return merged.getvalue()


def package(name: str, *, directory: Path = CACHE) -> Path:
    """The ``.deb`` file of a package for this machine, fetched unless it is there."""
    directory.mkdir(parents=True, exist_ok=True)
    with _alone(directory):
        kept = sorted(directory.glob(f"{name}_*.deb"))
        if not kept:
            kept = [_fetch(name, directory)]
    return kept[-1]


def _fetch(name: str, directory: Path) -> Path:
    # Into a folder of its own first: an interrupted fetch must not leave half a package under its name.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as scratch:
        done = subprocess.run(
            ["apt-get", "download", name], cwd=scratch, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise OSError(f"apt-get download {name} failed: {done.stderr.strip()}")
        (fetched,) = Path(scratch).glob("*.deb")
        return fetched.rename(directory / fetched.name)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _entries(deb: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as reader:
        for header in reader:
            header.name = _merged(header.name)
            if header.islnk():
                header.linkname = _merged(header.linkname)
            if header.name == "." or header.name.startswith(
                ("usr/share/doc", "usr/share/man", "usr/share/locale")
            ):
                continue
            content = reader.extractfile(header) if header.isreg() else None
            yield header, content.read() if content else b""


def _merged(name: str) -> str:
    # Debian 12's packages say ./lib, Debian 13's ./usr/lib: both get the layout of an installed system.
    return _UNMERGED.sub(r"usr/\1", name.removeprefix("./"))
