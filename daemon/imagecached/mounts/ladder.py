"""How this host mounts a layer file below this root: found out once by trying, never assumed.

A mount alone proves nothing: on a disk of 4096-byte sectors ``directio`` mounts, and then every read fails.
So the probe writes a real layer file, mounts it each way in turn, reads a directory and a file through the
mount, and takes the first way that gave the right bytes. Invariants: a method with a known fault on this
kernel is not even tried; nothing of the probe stays mounted or on disk.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import secrets
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imagecached.errors import AccessDenied, OutOfSpace, Unsupported
from imagecached.layers.layerfile import LayerWriter
from imagecached.layers.limits import Limits
from imagecached.mounts import syscalls
from imagecached.mounts.kernel import LADDER, Kernel, Method

log = logging.getLogger(__name__)

_NAME: Final = "probe"
# No multiple of 512, so that a block is read only in part; at 4096 + 2 * 512 in the file, so that 4096-byte
# sectors are met across.
_CONTENT: Final = bytes(range(256)) * 9 + b"end"

Attempt = Callable[[Method, Path, Path], None]


@dataclass(frozen=True, slots=True)
class Probe:
    """``method`` works; ``refused`` says why each better one was not taken."""

    method: Method
    refused: dict[Method, str]


def mount_layer(method: Method, file: Path, point: Path) -> None:
    """Mount the layer file ``file`` read-only on the directory ``point``. OSError."""
    if method is Method.LOOP:
        fd, device = syscalls.attach_loop(file)
        try:
            syscalls.mount(device, point, "erofs", syscalls.MS_RDONLY)
        finally:
            os.close(fd)
    else:
        options = "directio" if method is Method.DIRECTIO else ""
        syscalls.mount(str(file), point, "erofs", syscalls.MS_RDONLY, options)


def probe(
    root: Path, kernel: Kernel, allowed: Sequence[Method] = LADDER, attempt: Attempt | None = None
) -> Probe:
    """The best of ``allowed`` that works for layer files below ``root`` (which has ``ingest/`` and ``m/``).

    Unsupported lists the reason of every method; AccessDenied without the right to mount; OutOfSpace.
    """
    with _layer_file(root / "ingest") as file, _mount_point(root / "m" / _NAME) as point:
        found = climb(kernel, allowed, lambda method: (attempt or _attempt)(method, file, point))
    log.info("mount method chosen", extra={"method": str(found.method), "refused": found.refused})
    return found


def climb(kernel: Kernel, allowed: Sequence[Method], attempt: Callable[[Method], None]) -> Probe:
    """Try ``allowed`` in order until ``attempt`` raises no OSError; decides which failures end the search.

    Pure but for ``attempt``.
    """
    faults, refused = kernel.faults(), dict[Method, str]()
    layout_refused = False
    for method in allowed:
        if method in faults:
            refused[method] = f"not tried: {faults[method]} on Linux {kernel.release}"
            continue
        if method is Method.LOOP and layout_refused:
            refused[method] = "not tried: the kernel refuses the layout, whatever it lies on"
            continue
        try:
            attempt(method)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise AccessDenied(f"mounting needs root (CAP_SYS_ADMIN): {error.strerror}") from error
            refused[method] = _reason(error)
            # EINVAL of directio may only mean that this kernel does not know the option.
            layout_refused = method is Method.BUFFERED and error.errno == errno.EINVAL
        else:
            return Probe(method, refused)
    raise Unsupported(_explain(kernel, refused))


def _attempt(method: Method, file: Path, point: Path) -> None:
    mount_layer(method, file, point)
    try:
        _read(point)
    finally:
        syscalls.umount(point)


def _read(point: Path) -> None:
    """A directory and a file as the probe's tar has them, else EIO."""
    names = [entry.name for entry in (point / "directory").iterdir()]
    content = (point / "directory" / "file").read_bytes()
    if names != ["file"] or content != _CONTENT:
        raise OSError(errno.EIO, "mounts, but gives wrong bytes", str(point))


def _reason(error: OSError) -> str:
    meaning = {
        errno.ENOTBLK: "needs a block device: this kernel or file system has no file-backed mounts",
        errno.EINVAL: "the kernel refuses the layout (512-byte blocks) or the option",
        errno.ENODEV: "no EROFS in this kernel: modprobe erofs",
        errno.ENOENT: "no loop device: modprobe loop",
    }
    name = errno.errorcode.get(error.errno or 0, "EIO")
    return f"{name}: {meaning.get(error.errno or 0, error.strerror or 'failed')}"


def _explain(kernel: Kernel, refused: dict[Method, str]) -> str:
    reasons = "; ".join(f"{method}: {reason}" for method, reason in refused.items())
    return f"Linux {kernel.release} mounts no layer file here ({reasons})"


@contextlib.contextmanager
def _layer_file(ingest: Path) -> Iterator[Path]:
    path = ingest / f"{_NAME}-{secrets.token_hex(4)}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        writer = LayerWriter(fd, Limits(), None)
        writer.feed(_tar())
        writer.finish()
        yield path
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutOfSpace(f"{ingest}: no space for the mount probe") from error
        raise
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        directory = tarfile.TarInfo("directory")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
        file = tarfile.TarInfo("directory/file")
        file.size = len(_CONTENT)
        archive.addfile(file, io.BytesIO(_CONTENT))
    return buffer.getvalue()


@contextlib.contextmanager
def _mount_point(point: Path) -> Iterator[Path]:
    """An empty directory; a mount that a killed probe left there is taken away first."""
    point.mkdir(mode=0o700, exist_ok=True)
    while os.path.ismount(point):
        syscalls.umount(point)
    try:
        yield point
    finally:
        point.rmdir()
