"""Platforms: containerd's normal forms and order of preference; which entry of an index is taken."""

from __future__ import annotations

import platform as system

import pytest

from imagecached.errors import InvalidInput, NotFound
from imagecached.oci.choice import candidates, choose
from imagecached.oci.digest import Digest
from imagecached.oci.documents import Descriptor, Index
from imagecached.oci.media_types import OCI_INDEX, OCI_MANIFEST
from imagecached.oci.platform import Platform


def entry(text: str | None, media_type: str = OCI_MANIFEST, features: tuple[str, ...] = ()) -> Descriptor:
    """An index entry for a platform; its digest tells entries apart."""
    platform = None
    if text is not None:
        os, architecture, variant = [*text.split("/"), ""][:3]
        platform = Platform.of(os, architecture, variant, features)
    return Descriptor(media_type, Digest.of(f"{text}{media_type}{features}".encode()), 1, platform=platform)


def index(*entries: Descriptor) -> Index:
    """An index of these entries."""
    return Index(entries, OCI_INDEX, b"")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("linux/x86_64", "linux/amd64"),
        ("Linux/AMD64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/i386", "linux/386"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/9", "linux/arm64/v9"),
        ("linux/aarch64/v8.1", "linux/arm64/v8.1"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/riscv64", "linux/riscv64"),
    ],
)
def test_normal_form(text: str, normal: str) -> None:
    """Names that mean the same machine become one."""
    assert str(Platform.parse(text)) == normal


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b", "linux/\u00e4"]
)
def test_parse_refuses(text: str) -> None:
    """What is no os/architecture[/variant] is InvalidInput."""
    with pytest.raises(InvalidInput):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("host", "suitable"),
    [
        ("linux/amd64", ["linux/amd64", "linux/386"]),
        ("linux/amd64/v3", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
        ("linux/arm/v7", ["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/arm/v5", ["linux/arm/v5"]),
        ("linux/arm64", ["linux/arm64", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
        ("linux/s390x", ["linux/s390x"]),
    ],
)
def test_suitable(host: str, suitable: list[str]) -> None:
    """Best first: the machine itself, then what it can run as well."""
    assert [str(platform) for platform in Platform.parse(host).suitable()] == suitable


def test_newer_arm64_runs_older() -> None:
    """Armv9.n includes Armv8.(n+5)."""
    suitable = [str(platform) for platform in Platform.parse("linux/arm64/v9.1").suitable()]
    assert suitable[:4] == ["linux/arm64/v9.1", "linux/arm64/v9", "linux/arm64/v8.6", "linux/arm64/v8.5"]
    assert "linux/arm64" in suitable
    assert "linux/arm64/v8.7" not in suitable


@pytest.mark.parametrize(
    ("machine", "platform"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("i686", "linux/386"),
    ],
)
def test_host(machine: str, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's name of the machine becomes the specification's."""
    monkeypatch.setattr(system, "machine", lambda: machine)
    assert str(Platform.host()) == platform


def test_choose_takes_the_best_not_the_first() -> None:
    """The exact platform wins over one that would run too."""
    offered = index(entry("linux/386"), entry("linux/arm64"), entry("linux/amd64"))
    assert choose(offered, Platform.parse("linux/amd64")).platform == Platform.parse("linux/amd64")


def test_choose_arm_variants() -> None:
    """An Armv7 machine takes v7 before v6, and v6 where there is no v7."""
    host = Platform.parse("linux/arm/v7")
    assert choose(index(entry("linux/arm/v6"), entry("linux/arm/v7")), host).platform == host
    fallback = choose(index(entry("linux/arm/v8"), entry("linux/arm/v6"), entry("linux/arm/v5")), host)
    assert str(fallback.platform) == "linux/arm/v6"


def test_entries_without_platform_come_last() -> None:
    """They may fit, but an entry that says so goes first; the order of the document holds among equals."""
    unstated, stated = entry(None), entry("linux/amd64")
    assert candidates(index(unstated, stated), Platform.parse("linux/amd64")) == (stated, unstated)


def test_attached_things_are_no_candidates() -> None:
    """Attestations (unknown/unknown), artifacts and images that need features of the system are left out."""
    offered = index(
        entry("unknown/unknown"),
        entry("linux/amd64", media_type="application/vnd.oci.artifact.manifest.v1+json"),
        entry("linux/amd64", features=("erofs",)),
        entry("windows/amd64"),
    )
    assert candidates(offered, Platform.parse("linux/amd64")) == ()


def test_nothing_fits() -> None:
    """NotFound says what was wanted and what is there."""
    with pytest.raises(NotFound, match=r"no image for linux/riscv64; offered: linux/amd64, linux/arm64"):
        choose(index(entry("linux/arm64"), entry("linux/amd64")), Platform.parse("linux/riscv64"))
    with pytest.raises(NotFound, match="nothing that states a platform"):
        choose(index(), Platform.parse("linux/amd64"))
