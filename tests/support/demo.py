"""The two small images of the quickstart: they share a layer, and each of the three layer encodings occurs.

| image | layers |
|---|---|
| ``demo/shell:1`` | base (busybox, gzip) |
| ``demo/hello:1`` | base · libc6 (zstd) · hello (plain tar) |

Run as a program it serves both until it is terminated; one line of JSON tells that it is ready:

    python -m tests.support.demo DIRECTORY  →  {"images": ["127.0.0.1:40123/demo/shell:1", …]}
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Final

from tests.support import tars
from tests.support.debian import packages_tar
from tests.support.images import Image, ImageFolder, Layer
from tests.support.registry import Registry, serve_registry

SHELL: Final = "demo/shell:1"
HELLO: Final = "demo/hello:1"

_APPLETS: Final = (
    "sh ls cat cp mv rm mkdir rmdir ln touch echo env printf test true false id uname date sleep head tail "
    "wc sort uniq cut tr grep sed awk find xargs stat du df mount umount ps kill tar gzip gunzip sha256sum dd"
).split()


def push_demo(registry: Registry, directory: Path) -> dict[str, Image]:
    """Build both images below ``directory``, push them; their names as keys."""
    folder = ImageFolder(directory)
    images = demo_images(folder)
    for name, image in images.items():
        folder.push(image, registry.reference(name))
    return images


def demo_images(folder: ImageFolder) -> dict[str, Image]:
    """Both images, not pushed."""
    base = base_layer(folder)
    libc = folder.layer(packages_tar(["libc6"]), "zstd")
    hello = folder.layer(packages_tar(["hello"]), "none")
    path = "PATH=/usr/bin:/usr/sbin"
    return {
        SHELL: folder.image(
            [base], {"Cmd": ["/bin/sh", "-c", "echo A shell from a prepared snapshot"], "Env": [path]}
        ),
        HELLO: folder.image([base, libc, hello], {"Cmd": ["/usr/bin/hello"], "Env": [path]}),
    }


def base_layer(folder: ImageFolder) -> Layer:
    """A file system one can start a shell in: busybox with its applets, the usual directories, two users."""
    skeleton = [
        *(
            tars.directory(name)
            for name in ("dev", "etc", "proc", "run", "sys", "usr/lib", "usr/lib64", "usr/sbin", "var")
        ),
        tars.directory("root", mode=0o700),
        tars.directory("tmp", mode=0o1777),
        *(tars.symlink(name, f"usr/{name}") for name in ("bin", "lib", "lib64", "sbin")),
        tars.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        tars.file("etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
        *(tars.symlink(f"usr/bin/{applet}", "busybox") for applet in _APPLETS),
    ]
    return folder.layer(tars.joined(packages_tar(["busybox-static"]), tars.tar_of(skeleton)))


def main() -> None:
    """Serve the demo images for a script."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    directory = Path(sys.argv[1])
    with serve_registry(directory / "registry") as registry:
        images = push_demo(registry, directory)
        print(json.dumps({"images": [registry.reference(name) for name in images]}), flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
