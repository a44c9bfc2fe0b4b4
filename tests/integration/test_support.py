"""The real servers and image builders that other tests lean on do what they say."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import urllib.request
from io import BytesIO
from pathlib import Path

import pytest

from tests.support import demo, tars
from tests.support.containerd import Containerd
from tests.support.images import INDEX, ImageFolder, digest_of, host_platform
from tests.support.mounts import mounted_below, unmount_below
from tests.support.processes import NotStarted, running
from tests.support.registry import Registry, serve_registry


def test_a_registry_keeps_what_was_pushed(registry: Registry, images: ImageFolder) -> None:
    """A pushed manifest comes back byte for byte, under its tag and its digest."""
    image = images.image([images.layer(tars.tar(tars.file("a", b"1")))])
    by_digest = images.push(image, registry.reference("support/kept:1"))
    pushed = images.path(image.blob).read_bytes()
    for name in ("1", by_digest.partition("@")[2]):
        request = urllib.request.Request(
            f"http://{registry.address}/v2/support/kept/manifests/{name}",
            headers={"Accept": image.blob.media_type},
        )
        with urllib.request.urlopen(request) as answer:
            assert pushed == answer.read()


def test_an_index_is_pushed_with_its_parts(registry: Registry, images: ImageFolder) -> None:
    """The tag gives the index and each part can be had by its digest."""
    part = images.image([images.layer(tars.tar(tars.file("a")), "zstd")])
    images.push(images.index([(host_platform(), part)]), registry.reference("support/index:1"))
    url = f"http://{registry.address}/v2/support/index/manifests/"
    with urllib.request.urlopen(urllib.request.Request(url + "1", headers={"Accept": INDEX})) as answer:
        assert [part.blob.digest] == [found["digest"] for found in json.load(answer)["manifests"]]
    request = urllib.request.Request(url + part.blob.digest, headers={"Accept": part.blob.media_type})
    with urllib.request.urlopen(request) as answer:
        assert part.blob.digest == digest_of(answer.read())


def test_a_registry_stops_with_its_block_and_can_be_served_again(tmp_path: Path) -> None:
    """Nothing listens afterwards; the storage is kept."""
    folder = ImageFolder(tmp_path / "images")
    image = folder.image([folder.layer(tars.tar())])
    with serve_registry(tmp_path / "registry") as first:
        folder.push(image, first.reference("support/again:1"))
    with pytest.raises(ProcessLookupError):
        os.kill(first.pid, 0)
    with serve_registry(tmp_path / "registry", port=int(first.address.rpartition(":")[2])) as second:
        assert first.address == second.address
        assert second.stored_blob(image.blob.digest).read_bytes() == folder.path(image.blob).read_bytes()


def test_a_server_that_ends_early_is_reported_with_its_log(tmp_path: Path) -> None:
    """The error carries what the server said."""
    with (
        pytest.raises(NotStarted, match="no such flavour"),
        running(["sh", "-c", "echo no such flavour; exit 3"], log=tmp_path / "log", ready=lambda: False),
    ):
        pytest.fail("the block must not run")


def test_hand_made_archives_hold_what_was_asked() -> None:
    """Kinds, xattrs with any bytes, fractions of seconds and names that are not UTF-8 survive."""
    made = tars.tar(
        tars.directory("d", mode=0o700, uid=5),
        tars.file("d/f", b"x", mtime=1.5, xattrs={"user.any": b"\xff\x00"}),
        tars.hardlink("d/g", "d/f"),
        tars.device("d/c", 1, 3),
        tars.file(b"d/\xe9".decode("utf-8", "surrogateescape")),
        tars.whiteout("d/old"),
        tars.opaque("d"),
    )
    with tarfile.open(fileobj=BytesIO(made), errors="surrogateescape") as archive:
        found = archive.getmembers()
    assert [one.name for one in found] == [
        "d",
        "d/f",
        "d/g",
        "d/c",
        "d/\udce9",
        "d/.wh.old",
        "d/.wh..wh..opq",
    ]
    assert (
        found[0].mode,
        found[0].uid,
        found[1].mtime,
        found[2].linkname,
        found[3].devminor,
    ) == (0o700, 5, 1.5, "d/f", 3)
    assert b"SCHILY.xattr.user.any=\xff\x00" in made


@pytest.mark.root
@pytest.mark.containerd
def test_containerd_shows_the_tree_of_an_image(
    registry: Registry, containerd: Containerd, images: ImageFolder
) -> None:
    """An image of three layers in three encodings is pulled and mounted as overlayfs would show it."""
    lower = tars.tar(tars.directory("d", mode=0o750), tars.file("d/gone"), tars.file("d/kept", b"kept"))
    image = images.image(
        [
            images.layer(lower),
            images.layer(tars.tar(tars.whiteout("d/gone")), "zstd"),
            images.layer(tars.tar(tars.symlink("d/link", "kept")), "none"),
        ]
    )
    reference = registry.reference("support/tree:1")
    images.push(image, reference)
    containerd.pull(reference)
    with containerd.mounted(reference) as tree:
        assert sorted(found.name for found in (tree / "d").iterdir()) == ["kept", "link"]
        assert (tree / "d/link").read_bytes() == b"kept"
    assert mounted_below(containerd.directory) == []


@pytest.mark.root
@pytest.mark.containerd
def test_containerd_says_why_it_refuses(registry: Registry, containerd: Containerd) -> None:
    """The error of a failed pull holds the words of containerd."""
    with pytest.raises(subprocess.CalledProcessError) as refused:
        containerd.pull(registry.reference("support/absent:1"))
    assert "not found" in "".join(refused.value.__notes__)


@pytest.mark.root
def test_unmount_below_takes_nested_mounts_in_order(tmp_path: Path) -> None:
    """Inner mounts go first, names with spaces included."""
    outer = tmp_path / "outer one"
    outer.mkdir()
    for point in (outer, outer / "inner"):
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", point], check=True)
    assert [outer, outer / "inner"] == unmount_below(tmp_path)
    assert mounted_below(tmp_path) == []


@pytest.mark.root
@pytest.mark.containerd
def test_the_demo_images_run(registry: Registry, containerd: Containerd, tmp_path: Path) -> None:
    """Both start in a chroot of the tree that containerd makes of them, and share their first layer."""
    made = demo.push_demo(registry, tmp_path)
    shell, hello = (made[name] for name in (demo.SHELL, demo.HELLO))
    assert shell.blobs[1] == hello.blobs[1]
    for name, command, answer in (
        (demo.SHELL, ["/bin/sh", "-c", "echo $((6 * 7))"], "42\n"),
        (demo.HELLO, ["/usr/bin/hello"], "Hello, world!\n"),
    ):
        reference = registry.reference(name)
        containerd.pull(reference)
        with containerd.mounted(reference) as tree:
            done = subprocess.run(["chroot", tree, *command], capture_output=True, text=True, check=True)
            assert answer == done.stdout
            assert stat.S_IMODE((tree / "tmp").stat().st_mode) == 0o1777


def test_the_demo_program_serves_until_told_to_stop(tmp_path: Path) -> None:
    """It prints one line of JSON with references that answer, and ends without complaint."""
    command = [sys.executable, "-m", "tests.support.demo", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        references = json.loads(program.stdout.readline())["images"]
        address = references[0].partition("/")[0]
        with urllib.request.urlopen(f"http://{address}/v2/_catalog") as answer:
            assert json.load(answer)["repositories"] == ["demo/hello", "demo/shell"]
        program.send_signal(signal.SIGTERM)
        assert program.wait(20) == 0
