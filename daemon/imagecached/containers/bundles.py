"""OCI bundles for runc and crun: one run, made from an image's config and its mounted tree."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from imagecached.containers.rootfs import read_file
from imagecached.containers.spec import Host, Run, runtime_spec
from imagecached.containers.users import resolve
from imagecached.errors import Unsupported
from imagecached.oci.documents import ImageConfig

RUNTIMES: Final = ("runc", "crun")
_HOST_FILES: Final = ("/etc/resolv.conf", "/etc/hosts")
_MORE_PLACES: Final = (
    "/usr/local/sbin:/usr/sbin:/sbin"  # where runtimes lie, and a service's PATH may not reach
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A container ready to run.

    ``dir`` holds config.json and the mounted rootfs; ``runtime`` is a program's path.
    """

    id: str
    dir: Path
    runtime: str

    @property
    def argv(self) -> tuple[str, ...]:
        """What the client runs, in the foreground and with its own standard streams."""
        return (self.runtime, "run", "--bundle", str(self.dir), self.id)


def find_runtime() -> str:
    """The program that runs bundles. Unsupported: none is installed."""
    places = f"{os.environ.get('PATH', os.defpath)}:{_MORE_PLACES}"
    for name in RUNTIMES:
        found = shutil.which(name, path=places)
        if found:
            return found
    raise Unsupported("neither runc nor crun is installed")


def write_config(bundle: Bundle, config: ImageConfig, run: Run) -> None:
    """Write ``config.json``; rootfs is mounted already, for the image's users. InvalidInput; OSError."""
    rootfs = bundle.dir / "rootfs"
    passwd, group = (read_file(rootfs, path) for path in ("/etc/passwd", "/etc/group"))
    user = resolve(run.user or config.user, passwd, group)
    spec = runtime_spec(bundle.id, config, run, user, _host())
    (bundle.dir / "config.json").write_bytes(msgspec.json.encode(spec))


def _host() -> Host:
    # resolv.conf is often a link into /run: the container gets the file, not the link.
    files = {path: str(Path(path).resolve()) for path in _HOST_FILES if Path(path).is_file()}
    return Host(os.uname().nodename, files)
