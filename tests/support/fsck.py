"""``fsck.erofs``: a second opinion on every layer file.

Debian 12's own (1.5) knows no blocks of 512 bytes. Where no newer one is installed, Debian 13's is unpacked
with the libraries it needs into a folder that is kept, from the mirror that this machine uses anyway; nothing
is installed.
"""

from __future__ import annotations

import fcntl
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.support.debian import CACHE

_SINCE: Final = (1, 6)
_SUITE: Final = "trixie"
_PACKAGES: Final = (
    "erofs-utils",
    "libc6",
    "libdeflate0",
    "liblz4-1",
    "liblzma5",
    "libpcre2-8-0",
    "libselinux1",
    "libuuid1",
    "libxxhash0",
    "libzstd1",
    "zlib1g",
)


class Faulty(AssertionError):
    """``fsck.erofs`` finds fault with a file; the message is what it said."""


def check(image: Path) -> None:
    """Raise Faulty unless ``fsck.erofs`` is content with the file."""
    done = subprocess.run([*_command(), image], capture_output=True, text=True, check=False)
    if done.returncode or "<W>" in done.stdout + done.stderr:
        raise Faulty(f"{image.name}: {done.stdout}{done.stderr}")


@functools.cache
def _command() -> tuple[str, ...]:
    installed = shutil.which("fsck.erofs")
    if installed and _version((installed,)) >= _SINCE:
        return (installed,)
    return _unpacked(CACHE.parent / "erofs-utils")


def _version(command: tuple[str, ...]) -> tuple[int, ...]:
    said = subprocess.run([*command, "-V"], capture_output=True, text=True, check=False)
    found = re.search(r"(\d+)\.(\d+)", said.stdout + said.stderr)
    return tuple(map(int, found.groups())) if found else (0,)


def _unpacked(directory: Path) -> tuple[str, ...]:
    """The newer program, run by the loader and with the libraries it was built for."""
    directory.mkdir(parents=True, exist_ok=True)
    root = directory / _SUITE
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            with tempfile.TemporaryDirectory(prefix=".unpack-", dir=directory) as scratch:
                _unpack(Path(scratch))
                (Path(scratch) / "root").rename(root)
    libraries = next((root / "usr/lib").glob("*-linux-gnu*"))
    loader = next(libraries.glob("ld-linux*.so.*"))
    return (str(loader), "--library-path", str(libraries), str(root / "usr/bin/fsck.erofs"))


def _unpack(scratch: Path) -> None:
    """Fetch and unpack the packages with apt lists of their own below ``scratch``."""
    for folder in ("lists/partial", "archives/partial", "root"):
        (scratch / folder).mkdir(parents=True)
    (scratch / "sources.list").write_text(f"deb {_mirror()} {_SUITE} main\n")
    options = {
        "Dir::Etc::SourceList": scratch / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": scratch / "lists",
        "Dir::Cache::Archives": scratch / "archives",
        "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    for arguments in (["update"], ["download", *_PACKAGES]):
        done = subprocess.run([*apt, *arguments], cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"apt-get {arguments[0]} for {_SUITE} failed: {done.stderr.strip()}")
    for deb in scratch.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", deb, scratch / "root"], check=True)


def _mirror() -> str:
    """Where this machine's Debian comes from, out of its own list of sources."""
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for text in (file.read_text() for file in lists if file.is_file()):
        for line in text.splitlines():
            if not line.lstrip().startswith("#") and (
                found := re.search(r"https?://\S+/debian/?(?=\s|$)", line)
            ):
                return found[0]
    raise OSError("no Debian mirror in /etc/apt: install erofs-utils 1.6 or newer")
