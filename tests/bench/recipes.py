"""The images that the benchmark pulls, made of Debian packages and one wheel, as OCI layouts in a cache
folder.

Content is what real images carry (a JRE, jars, compilers, icon themes), so that sizes, file counts and how
well it compresses are those of real images. Nothing is made twice: a finished image has a file ``index.json``
in its folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BASE = (
    "base-files base-passwd bash coreutils dash debianutils diffutils findutils grep gzip hostname libc-bin "
    "libc6 libgcc-s1 libselinux1 libpcre2-8-0 libtinfo6 login passwd perl-base sed tar util-linux zlib1g "
    "libstdc++6 locales tzdata openssl libssl3 ca-certificates curl libcurl4 perl perl-modules-5.36 "
    "libperl5.36"
)
PYTHON = "python3.11 python3.11-minimal libpython3.11-stdlib libpython3.11-minimal"
LLVM = (
    "libclang-14-dev llvm-14-dev llvm-14 clang-14 libclang-common-14-dev libllvm14 libclang-cpp14 "
    "rustc libstd-rust-dev"
)
TREES = "papirus-icon-theme golang-1.19-src libboost1.74-dev node-typescript fonts-dejavu-core"


@dataclass(frozen=True)
class Layer:
    """``fill`` puts files into a directory; ``parents``: whether the tar has entries for directories."""

    name: str
    fill: Callable[[Path, Path], None]
    parents: bool = True


def debs(names: str) -> Callable[[Path, Path], None]:
    """Files of Debian packages."""

    def fill(cache: Path, root: Path) -> None:
        folder = cache / "debs"
        folder.mkdir(parents=True, exist_ok=True)
        for name in names.split():
            if not list(folder.glob(f"{name}_*.deb")):
                run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name], cwd=folder)
            run(["dpkg-deb", "-x", str(next(folder.glob(f"{name}_*.deb"))), str(root)])

    return fill


def jars(cache: Path, root: Path) -> None:
    """The jars that the apache-flink-libraries source package ships, below opt/flink."""
    folder = cache / "wheels"
    if not list(folder.glob("apache-flink-libraries-*.tar.gz")):
        pip = ["python3", "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
        run([*pip, "apache-flink-libraries==1.17.2", "-d", str(folder)])
    (root / "opt/flink").mkdir(parents=True)
    source = next(folder.glob("apache-flink-libraries-*.tar.gz"))
    run(
        ["tar", "--extract", "--no-same-owner", "--file", str(source), "--directory", str(root / "opt/flink")]
    )


def busybox(cache: Path, root: Path) -> None:
    """A static busybox with a few names."""
    debs("busybox-static")(cache, root)
    for name in ("sh", "cat", "ls", "date", "true"):
        (root / "bin" / name).symlink_to("busybox")


def files(count: int, size: int) -> Callable[[Path, Path], None]:
    """``count`` small files of ``size`` bytes: configuration, or an application's own layer."""

    def fill(cache: Path, root: Path) -> None:
        for number in range(count):
            path = root / f"opt/app/conf/{number % 7}/file-{number}.properties"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((f"key.{number}=value\n" * (size // 16 + 1)).encode()[:size])

    return fill


FLINK = (
    Layer("base", debs(BASE)),
    Layer("jre", debs("openjdk-17-jre-headless")),
    Layer("python", debs(PYTHON)),
    Layer("fonts", debs("fonts-dejavu-core")),
    Layer("jdk", debs("openjdk-17-jdk-headless")),
    Layer("jars", jars, parents=False),
    Layer("conf", files(40, 900), parents=False),
    Layer("app", files(4, 100_000)),
    Layer("busybox", busybox),
)
RECIPES: dict[str, tuple[tuple[Layer, ...], str]] = {
    "tiny": ((Layer("busybox", busybox),), "gzip"),
    "flink": (FLINK, "gzip"),
    "flink-zstd": (FLINK, "zstd"),
    "manyfiles": (
        (Layer("base", debs(BASE)), Layer("trees", debs(TREES)), Layer("busybox", busybox)),
        "gzip",
    ),
    "big": (
        (
            Layer(
                "llvm",
                debs(f"{LLVM} openjdk-17-jdk-headless openjdk-17-jre-headless fonts-noto-cjk busybox-static"),
            ),
        ),
        "gzip",
    ),
    "shared": ((*FLINK[:5], Layer("other", files(300, 20_000))), "gzip"),
}


def run(argv: list[str], cwd: Path | None = None) -> None:
    subprocess.run(argv, cwd=cwd, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def build(cache: Path, name: str) -> Path:
    """OCI layout of image ``name`` below ``cache``, made once; its tag is ``1``."""
    layout = cache / "images" / name
    if (layout / "index.json").exists():
        return layout
    layers, compression = RECIPES[name]
    shutil.rmtree(layout, ignore_errors=True)
    (layout / "blobs/sha256").mkdir(parents=True)
    made = [_layer(cache, layout, layer, compression) for layer in layers]
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in made]},
    }  # fmt: skip
    oci = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2, "mediaType": f"{oci}.manifest.v1+json",
        "config": _blob(layout, f"{oci}.config.v1+json", json.dumps(config).encode()),
        "layers": [descriptor for _, descriptor in made],
    }  # fmt: skip
    entry = _blob(layout, f"{oci}.manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return layout


def _layer(cache: Path, layout: Path, layer: Layer, compression: str) -> tuple[str, dict[str, Any]]:
    """(diffID, descriptor) of one layer, its tar kept in the cache for the other images that use it."""
    tar = cache / "tars" / f"{layer.name}.tar"
    if not tar.exists():
        tar.parent.mkdir(parents=True, exist_ok=True)
        root = cache / "roots" / layer.name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        layer.fill(cache, root)
        names = sorted(_names(root, directories=layer.parents))
        base = [
            "tar",
            "--numeric-owner",
            "--no-recursion",
            "-C",
            str(root),
            "--null",
            "-T",
            "-",
            "-cf",
            str(tar.with_suffix(".new")),
        ]
        subprocess.run(base, input=b"\0".join(os.fsencode(name) for name in names), check=True)
        tar.with_suffix(".new").rename(tar)
        shutil.rmtree(root)
    program = ["pigz", "-6", "-n"] if compression == "gzip" else ["zstd", "-q", "-3", "-T2"]
    packed = layout / "packing"
    with tar.open("rb") as source, packed.open("wb") as target:
        subprocess.run([*program, "-c"], stdin=source, stdout=target, check=True)
    digest = f"sha256:{_sha256(packed)}"
    size = packed.stat().st_size
    packed.rename(layout / "blobs/sha256" / digest[7:])
    media = f"application/vnd.oci.image.layer.v1.tar+{compression}"
    return f"sha256:{_sha256(tar)}", {"mediaType": media, "digest": digest, "size": size}


def _names(root: Path, *, directories: bool) -> Iterable[str]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        entries = [here / name for name in names]
        entries += [here / name for name in folders if directories or (here / name).is_symlink()]
        yield from (str(entry.relative_to(root)) for entry in entries)


def _blob(layout: Path, media_type: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
