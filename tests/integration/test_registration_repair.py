"""A registration outlives what happens to containerd, and ends with the image; nothing of it is left then."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containerd import CONTAINERD2, STABLE
from tests.support.demo import HELLO, SHELL, push_demo
from tests.support.nodes import Node, push_pause
from tests.support.processes import await_true
from tests.support.registered import await_event, await_state, registration, serve_registered
from tests.support.registry import Registry

pytestmark = [pytest.mark.root, pytest.mark.containerd, pytest.mark.timeout(180)]

SPACES = ("k8s.io", "default")
VERSIONS = [
    pytest.param(STABLE, id="1"),
    pytest.param(CONTAINERD2, id="2", marks=pytest.mark.containerd2),
]


@pytest.fixture(scope="module")
def demo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry with both demo images in it."""
    push_demo(registry, tmp_path_factory.mktemp("demo"))
    return registry


@pytest.fixture(scope="module")
def pause(demo: Registry, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image of sandboxes."""
    return push_pause(demo, tmp_path_factory.mktemp("pause"))


@pytest.fixture(scope="module", params=VERSIONS)
def shared(demo: Registry, pause: str, request: pytest.FixtureRequest) -> Iterator[Node]:
    """A daemon and a containerd for all tests of one version; two namespaces are told."""
    with serve_registered(demo, pause, "default", request.param, namespaces=list(SPACES)) as served:
        yield served


@pytest.fixture
def node(demo: Registry, shared: Node) -> Iterator[Node]:
    """With both demo images registered before, and nothing afterwards."""
    references = [demo.reference(HELLO), demo.reference(SHELL)]
    shared.daemon.ctl("pull", *references)
    for reference in references:
        await_state(shared.daemon, reference)
    yield shared
    for reference in references:
        shared.daemon.ctl("rm", reference, check=False)
    assert left(shared) == {}


def left(node: Node) -> dict[str, list[str]]:
    """What containerd still holds, by kind, once it has collected its garbage."""
    node.containerd.collect_garbage()
    kinds = {
        "images": ("images", "list", "--quiet"),
        "content": ("content", "list", "--quiet"),
        "leases": ("leases", "list", "--quiet"),
        "snapshots": ("snapshots", "--snapshotter", "imagecached", "list"),
    }
    found = {
        f"{space} {kind}": node.containerd.ctr("--namespace", space, *command).split()
        for space in SPACES
        for kind, command in kinds.items()
    }
    return {key: value for key, value in found.items() if value and value != ["KEY", "PARENT", "KIND"]}


def names(node: Node, space: str = "k8s.io") -> set[str]:
    """The names of image records."""
    return set(node.containerd.ctr("--namespace", space, "images", "list", "--quiet").split())


def says(node: Node, reference: str, space: str = "k8s.io") -> str:
    """What a container of an image says."""
    arguments = (
        "run",
        "--rm",
        "--snapshotter",
        "imagecached",
        reference,
        f"t-{abs(hash(reference + space)):x}",
    )
    return node.containerd.ctr("--namespace", space, *arguments)


def await_names(node: Node, wanted: set[str], space: str = "k8s.io") -> None:
    """Wait until containerd has just these records."""
    await_true(
        lambda: names(node, space) == wanted, what=f"{wanted}", deadline_seconds=20, alive=lambda: True
    )


def delete(node: Node, *wanted: str) -> None:
    """Remove records, as somebody else would."""
    node.containerd.ctr("--namespace", "k8s.io", "images", "remove", "--sync", *wanted)


def test_two_namespaces(demo: Registry, node: Node) -> None:
    """A container starts in each without a request, and each keeps what it needs through a collection."""
    hello = demo.reference(HELLO)
    node.containerd.collect_garbage()
    with demo.requests("demo/hello") as requests:
        assert [says(node, hello, space) for space in SPACES] == ["Hello, world!\n"] * 2
    assert requests == []


def test_a_second_pull_changes_nothing(demo: Registry, node: Node) -> None:
    """No step is taken for what is there; one event per registration."""
    hello = demo.reference(HELLO)
    before = node.containerd.ctr("--namespace", "k8s.io", "images", "list")
    events = len(node.daemon.ctl("-o", "json", "events").stdout.splitlines())
    node.daemon.ctl("pull", hello)
    await_state(node.daemon, hello)
    node.daemon.ctl("pull", hello)
    after = node.daemon.ctl("-o", "json", "events").stdout.splitlines()[events:]
    assert not any('"registered"' in line for line in after)
    assert node.containerd.ctr("--namespace", "k8s.io", "images", "list") == before


def test_rm_takes_only_what_no_other_image_needs(demo: Registry, node: Node) -> None:
    """The images share a layer; the one that stays still runs after the other was removed and collected."""
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    node.daemon.ctl("rm", hello)
    node.daemon.ctl("gc")
    node.containerd.collect_garbage()
    assert not any("demo/hello" in name for name in names(node))
    assert says(node, shell) == "A shell from a prepared snapshot\n"


def test_records_that_others_removed(demo: Registry, node: Node) -> None:
    """One, or all with what they kept: they are back, and the image runs."""
    hello, wanted = demo.reference(HELLO), names(node)
    delete(node, hello)
    await_names(node, wanted)
    delete(node, *sorted(name for name in wanted if "demo/hello" in name or name.startswith("sha256:")))
    await_names(node, wanted)
    await_state(node.daemon, hello)
    assert says(node, hello) == "Hello, world!\n"


def test_an_ordinary_pull_drops_the_pin(demo: Registry, node: Node) -> None:
    """``ctr images pull`` writes the record anew; the pin is back on it, and the image outlives our rm."""
    hello = demo.reference(HELLO)
    certs = node.containerd.certs
    arguments = ("images", "pull", "--hosts-dir", certs, "--snapshotter", "imagecached", hello)
    node.containerd.ctr("--namespace", "k8s.io", *arguments)
    await_true(lambda: pinned(node, hello), what="the pin", deadline_seconds=20, alive=lambda: True)
    node.daemon.ctl("rm", hello)
    assert hello in names(node)
    assert not pinned(node, hello)
    assert says(node, hello) == "Hello, world!\n"
    delete(node, *(name for name in names(node) if "demo/hello" in name))


def pinned(node: Node, reference: str) -> bool:
    """Whether the record carries the label that CRI takes for a pin."""
    listed = node.containerd.ctr("--namespace", "k8s.io", "images", "list", f"name=={reference}")
    return "io.cri-containerd.pinned=pinned" in listed


def test_containerd_restarts(demo: Registry, node: Node) -> None:
    """Nothing is lost, and what happens afterwards is heard of."""
    hello, wanted = demo.reference(HELLO), names(node)
    node.containerd.stop()
    node.containerd.start()
    assert names(node) == wanted
    assert says(node, hello) == "Hello, world!\n"
    delete(node, hello)
    await_names(node, wanted)


def test_containerd_lost_everything(demo: Registry, node: Node) -> None:
    """A wiped root: all of it is registered again, with nobody's help."""
    hello, wanted = demo.reference(HELLO), names(node)
    node.containerd.stop()
    shutil.rmtree(node.containerd.directory / "root")
    node.containerd.start()
    for space in SPACES:
        await_names(node, wanted, space)
    await_state(node.daemon, hello)
    node.containerd.collect_garbage()
    assert says(node, hello) == "Hello, world!\n"


def test_the_daemon_lost_everything(demo: Registry, node: Node) -> None:
    """A wiped store: records of images that are gone go, too; pulled again, the chain that containerd still
    believes in is made anew.
    """
    hello = demo.reference(HELLO)
    node.daemon.stop()
    wipe(node.daemon.root)
    node.daemon.start()
    await_names(node, set())
    node.daemon.ctl("pull", hello)
    await_state(node.daemon, hello)
    assert says(node, hello) == "Hello, world!\n"


def test_others_stand_on_what_the_daemon_lost(demo: Registry, node: Node) -> None:
    """A wiped store, and an image that shares a layer with the one wanted, and is not wanted any more, but
    which containerd keeps, as somebody pulled it themselves.
    """
    hello, shell = demo.reference(HELLO), demo.reference(SHELL)
    pull = ("--namespace", "k8s.io", "images", "pull", "--hosts-dir", node.containerd.certs)
    node.containerd.ctr(*pull, "--snapshotter", "imagecached", shell)
    node.daemon.stop()
    wipe(node.daemon.root)
    node.daemon.start()
    node.daemon.ctl("pull", hello)
    await_state(node.daemon, hello)
    assert says(node, hello) == "Hello, world!\n"
    assert shell in names(node)
    node.daemon.ctl("rm", hello)
    delete(node, *names(node))


def wipe(root: Path) -> None:
    """Delete a store as somebody would who wants to begin anew."""
    subprocess.run(["sh", "-c", f"umount -l {root}/m/* 2>/dev/null; rm -rf {root}"], check=True)


def test_a_layer_that_is_lost(demo: Registry, node: Node) -> None:
    """No record claims that the image is there, until it was pulled again."""
    hello, wanted = demo.reference(HELLO), names(node)
    layer = node.daemon.ask("describe", hello)["layers"][-1]["diff_id"].removeprefix("sha256:")
    [file] = node.daemon.root.glob(f"layers/sha256/*/{layer}.erofs")
    file.write_bytes(b"x" * 8192)
    node.daemon.ctl("fsck", "--repair", check=False)
    node.daemon.stop()
    node.daemon.start()
    state = await_state(node.daemon, hello, "failed")
    assert "pull it again" in state["reason"]
    assert not any("demo/hello" in name for name in names(node))
    node.daemon.ctl("pull", hello)
    await_names(node, wanted)
    assert says(node, hello) == "Hello, world!\n"


def test_containerd_is_away(demo: Registry, node: Node) -> None:
    """Pulls do not care; the image says that its registration is pending, and why; it comes later."""
    shell = demo.reference(SHELL)
    node.containerd.stop()
    node.daemon.ctl("rm", shell)
    node.daemon.ctl("pull", shell)
    state = await_state(node.daemon, shell, "pending")
    assert "containerd" in state["reason"]
    node.containerd.start()
    await_state(node.daemon, shell)
    assert says(node, shell) == "A shell from a prepared snapshot\n"
    await_event(node.daemon, "registered", shell)


def test_the_table_says_it(demo: Registry, node: Node) -> None:
    """``get images -o wide`` and ``describe`` show what containerd knows."""
    hello = demo.reference(HELLO)
    assert registration(node.daemon, hello)["reason"] == ""
    lines = node.daemon.ctl("get", "images", "-o", "wide").stdout.splitlines()
    assert "CONTAINERD" in lines[0]
    assert all("Registered" in line for line in lines[1:])
    assert "Containerd:" in node.daemon.ctl("describe", hello).stdout
