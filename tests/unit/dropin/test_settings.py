"""Drop-ins for every version and mode: golden files, and what is taken over from the node's own files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from imagecached.dropin import Mode, Places, Version, Written, explained
from imagecached.dropin.settings import IMAGES, OLD_CRI, RUNTIME, TRANSFER, settings
from imagecached.errors import Unsupported

GOLDEN: Final = Path(__file__).with_name("golden")
NOTHING: Final = Written(Path("/etc/containerd/config.toml"), (), {})
CASES: Final[list[tuple[str, Mode]]] = [
    ("1.6", "default"), ("1.7", "handler"), ("1.7", "default"), ("2.0", "handler"), ("2.x", "handler"),
    ("2.x", "default"),
]  # fmt: skip


def plugins(version: str, mode: Mode, written: dict[str, Any]) -> Any:
    """The plugins' part of a drop-in."""
    return settings(Version.parse(version), mode, written, Places())["plugins"]


@pytest.mark.parametrize(("version", "mode"), CASES)
def test_on_a_node_without_a_configuration(version: str, mode: Mode) -> None:
    """What is printed, to the letter: a change of it is a change for every node."""
    text = explained(Version.parse(version), mode, NOTHING, Places())
    assert text == (GOLDEN / f"{version}-{mode}.toml").read_text()
    tomllib.loads(text)


@pytest.mark.parametrize(("version", "mode"), [("1.5", "default"), ("1.6.99", "handler")])
def test_what_cannot_be(version: str, mode: Mode) -> None:
    """The reason is told."""
    with pytest.raises(Unsupported, match="containerd 1"):
        plugins(version, mode, {})


RUNTIMES: Final = {
    "default_runtime_name": "special",
    "runtimes": {
        "special": {"runtime_type": "x", "options": {"SystemdCgroup": True}},
        "other": {"runtime_type": "y"},
    },
}
OURS: Final = {**RUNTIMES["runtimes"]["special"], "snapshotter": "imagecached"}  # type: ignore[index]


def test_the_handler_is_the_default_runtime_again() -> None:
    """Its cgroup driver above all, or pods of the handler would not start."""
    new = plugins("2.1", "handler", {"version": 3, "plugins": {RUNTIME: {"containerd": RUNTIMES}}})
    assert new[RUNTIME] == {"containerd": {"runtimes": {"imagecached": OURS}}}
    old = plugins("1.7", "handler", {"version": 2, "plugins": {OLD_CRI: {"containerd": RUNTIMES}}})
    assert old[OLD_CRI]["containerd"]["runtimes"] == {**RUNTIMES["runtimes"], "imagecached": OURS}  # type: ignore[dict-item]


def test_containerd_1_gets_its_whole_section_again() -> None:
    """An imported section replaces that of the main file."""
    section = {
        "sandbox_image": "pause:1",
        "registry": {"config_path": "/certs"},
        "containerd": {"no_pivot": True},
    }
    [(_, cri)] = plugins("1.7", "default", {"version": 2, "plugins": {OLD_CRI: section}}).items()
    assert (cri["sandbox_image"], cri["registry"]) == ("pause:1", {"config_path": "/certs"})
    below = cri["containerd"]
    assert (below["no_pivot"], below["snapshotter"], below["disable_snapshot_annotations"]) == (
        True, "imagecached", False,
    )  # fmt: skip


def test_containerd_2_with_files_of_the_old_form_gets_the_old_form() -> None:
    """Two forms do not mix; the platforms, which the conversion forgets, are said in the new one."""
    written = {"version": 2, "plugins": {OLD_CRI: {"containerd": RUNTIMES}}}
    document = settings(Version(2, 1), "default", written, Places())
    assert document["version"] == 2
    assert document["plugins"][OLD_CRI] == {
        "containerd": {"snapshotter": "imagecached", "runtimes": {"imagecached": OURS}}
    }
    assert document["plugins"][IMAGES] == {
        "runtime_platforms": {"imagecached": {"snapshotter": "imagecached"}}
    }


@pytest.mark.parametrize(
    "images",
    [
        {"use_local_image_pull": True},
        {"max_concurrent_downloads": 5},
        {"discard_unpacked_layers": True},
        {"image_pull_with_sync_fs": True},
        {"registry": {"mirrors": {"docker.io": {}}}},
    ],
)
def test_a_node_that_pulls_by_itself_tells_us_of_images(images: dict[str, Any]) -> None:
    """These settings turn containerd's transfer service off, which would have told us."""
    for written in (
        {"version": 3, "plugins": {IMAGES: images}},
        {"version": 2, "plugins": {OLD_CRI: images}},
    ):
        found = plugins("2.1", "handler", written)
        said = found[OLD_CRI]["containerd"] if OLD_CRI in found else found[IMAGES]
        assert said["disable_snapshot_annotations"] is False
    assert "disable_snapshot_annotations" not in plugins("2.1", "handler", {})[IMAGES]


def test_unpackers_that_are_there_already_are_not_named_again() -> None:
    """Lists of several files are added up."""
    there = [{"platform": "linux/amd64", "snapshotter": "zfs"}]
    written = {"version": 3, "plugins": {IMAGES: {"snapshotter": "zfs"}, TRANSFER: {"unpack_config": there}}}
    assert plugins("2.1", "handler", written)[TRANSFER] == {
        "unpack_config": [{"platform": "linux", "snapshotter": "imagecached"}]
    }
