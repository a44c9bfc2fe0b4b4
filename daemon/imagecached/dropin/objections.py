"""Why a node must not be set up like that: what would stop working on it. Pure.

What is asked of a node that is in use is answered by :class:`InUse`, which somebody else finds out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from imagecached.dropin.settings import (
    IMAGES,
    NAME,
    OLD_CRI,
    RUNTIME,
    Cri,
    Mode,
    section,
)
from imagecached.dropin.version import Version
from imagecached.dropin.written import Written

_STOCK: Final = ("", "overlayfs", "native")
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class InUse:
    """What a running containerd has: how many containers CRI made, and images that only one snapshotter can
    start, because the layers themselves are not kept.
    """

    containers: int
    only_ours: tuple[str, ...] = ()
    only_others: tuple[str, ...] = ()


def objections(
    version: Version, mode: Mode, written: Written, in_use: InUse | None, before: Mode | None = None
) -> list[str]:
    """Each with its reason; none if all is well.

    ``in_use`` None: containerd does not run. ``before``: how the node is set up by us already.
    """
    switches = before != mode and "default" in (before, mode)
    return [*_in_the_files(version, mode, written), *(_on_the_node(mode, in_use) if switches else ())]


def _in_the_files(version: Version, mode: Mode, written: Written) -> Iterator[str]:
    document, main = written.document, written.main
    if any(str(each).rpartition(".")[2] == "cri" for each in document.get("disabled_plugins", ())):
        yield f"CRI is turned off in {main} (disabled_plugins): no pod starts here at all"
    if written.form < 2 and (document.get("plugins") or document.get("disabled_plugins")):
        yield f"{main} has no `version = 2`, the form of containerd 1.2: see `containerd config migrate`"
    if written.form > 2 and not version.merges:
        yield f"{main} is made for containerd 2, which is not the one that is installed ({version})"
    if NAME in section(document, "proxy_plugins"):
        yield f"a plugin {NAME} is defined already, by one of {_names(written)}"
    if any(NAME in runtimes for runtimes in _runtimes(document)):
        yield f"a runtime handler {NAME} is defined already, by one of {_names(written)}"
    cri = Cri.of(document)
    if mode == "default" and cri.snapshotter not in _STOCK:
        yield f"the default snapshotter is {cri.snapshotter}: another tool's pods would lose their images"
    if mode == "default" and cri.images.get("discard_unpacked_layers"):
        yield (
            "discard_unpacked_layers is on: the images that are here have no layers left to unpack anew,"
            " so that no pod of theirs would start"
        )


def _on_the_node(mode: Mode, in_use: InUse | None) -> Iterator[str]:
    if in_use is None:
        yield "containerd does not answer, so that nobody can say what runs here: start it first"
        return
    if in_use.containers:
        yield (
            f"{in_use.containers} containers are here, whose images lie in the other snapshotter:"
            " drain the node and remove them first"
        )
    if names := in_use.only_others if mode == "default" else in_use.only_ours:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        yield f"images without their layers would not start: remove {', '.join(names[:_SHOWN])}{more}"


def _runtimes(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield section(document, "plugins", OLD_CRI, "containerd", "runtimes")
    yield section(document, "plugins", RUNTIME, "containerd", "runtimes")
    yield section(document, "plugins", IMAGES, "runtime_platforms")


def _names(written: Written) -> str:
    return ", ".join(str(path) for path in written.files)
