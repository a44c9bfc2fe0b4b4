"""Restarts, lost databases, collisions: what must survive, and what must not be taken for something else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from grpclib import GRPCError, Status

from imagecached.errors import FailedPrecondition
from imagecached.rpc._proto import snapshots_pb2 as pb
from imagecached.rpc.service import Service
from imagecached.sockets import handed_over, listening
from tests.support.snapshots import REF, Snapshots, World, mounted, names, refused, run_in, served
from tests.unit.store import building

pytestmark = pytest.mark.root


async def test_everything_survives_a_restart(root: Path, target: Path) -> None:
    """Records, contents, mounts of a running container, and a snapshot in the making."""
    async with served(root) as world:
        image = world.hold_image("app", building.layer(1), building.layer(2))
        infos = await world.snapshots.adopt_image(image)
        mounts = await world.snapshots.prepare("container", infos[-1].name)
        with mounted(await world.snapshots.prepare("making"), target):
            run_in(target, "echo half >f")
        before = await world.snapshots.walk()
    with mounted(mounts, target):
        async with served(root) as world:
            assert await world.snapshots.walk() == before
            assert await world.snapshots.mounts("container") == mounts
            await world.snapshots.cleanup()
            assert names(target / "d") == ["file1", "file2"]
            run_in(target, "touch d/written")
    async with served(root) as world:
        await world.snapshots.commit("made", "making")
        with mounted(await world.snapshots.view("view", "made"), target):
            assert (target / "f").read_text() == "half\n"
        await world.snapshots.prepare("another", infos[-1].name)


async def test_directories_without_record_go_at_start(root: Path) -> None:
    """A crash came between the directory and its record, or between a removal and its end."""
    async with served(root) as world:
        await world.snapshots.prepare("one")
        await world.snapshots.prepare("two")
        await world.snapshots.remove("two")
        kept = [name for name in names(root / "s") if not name.endswith(".trash")]
        (root / "s/zz/fs").mkdir(parents=True)
    async with served(root) as world:
        assert names(root / "s") == sorted([*kept, "2.trash", "zz.trash"])
        await world.snapshots.cleanup()
        assert names(root / "s") == kept
        await world.snapshots.prepare("three")
        assert (root / "s/100/fs").is_dir(), "numbers are not used again"


async def test_a_lost_directory_is_said(world: World) -> None:
    """An empty one in its place would be wrong bytes."""
    await world.snapshots.prepare("one")
    (world.root / "s/1").rename(world.root / "elsewhere")
    async with refused(Status.DATA_LOSS, "lost"):
        await world.snapshots.mounts("one")


async def test_stale_names_give_way(world: World, target: Path) -> None:
    """containerd's database began anew: its sequence numbers come again, with other content."""
    snapshots = world.snapshots
    with mounted(await snapshots.prepare("default/1/extract a"), target):
        run_in(target, "touch old")
    await snapshots.commit("default/2/sha256:a", "default/1/extract a")
    await snapshots.prepare("default/3/container", "default/2/sha256:a")
    with mounted(await snapshots.prepare("default/1/extract a"), target):
        assert names(target) == []
        run_in(target, "touch new")
    await snapshots.commit("default/2/sha256:a", "default/1/extract a")
    assert await snapshots.names() == {"default/2/sha256:a"}
    with mounted(await snapshots.prepare("default/3/container", "default/2/sha256:a"), target):
        assert names(target) == ["new"]


async def test_only_names_that_containerd_makes_are_stale(world: World) -> None:
    """Another, or one of another namespace than that of the caller, is simply taken."""
    for key in ("other/1/x", "default/x/1", "default/1/", "default", "/default/1/x"):
        await world.snapshots.prepare(key)
        async with refused(Status.ALREADY_EXISTS):
            await world.snapshots.prepare(key)
    unnamed = world.snapshots.of(namespace="")  # containerd 1.6 does not say
    await unnamed.prepare("other/1/x")


async def test_a_container_outlives_the_database(world: World, target: Path) -> None:
    """What its mount shows is not deleted when its record gives way, only after it ended."""
    snapshots = world.snapshots
    await snapshots.prepare("default/1/extract")
    await snapshots.commit("default/2/base", "default/1/extract")
    with mounted(await snapshots.prepare("default/3/container", "default/2/base"), target):
        run_in(target, "echo mine >f")
        await snapshots.prepare("default/3/container")
        await snapshots.cleanup()
        assert (target / "f").read_text() == "mine\n"
        run_in(target, "echo more >>f; touch g")
    await snapshots.cleanup()
    assert len([name for name in names(world.root / "s") if name.endswith(".trash")]) == 0


async def test_adopted_records_outlive_the_database(world: World) -> None:
    """They are found by what they are, not by a name of containerd's."""
    image = world.hold_image("app", building.layer(1), building.layer(2))
    infos = await world.snapshots.adopt_image(image)
    assert await world.snapshots.adopt_image(image) == infos


async def test_prepare_and_remove_of_one_key_race(world: World) -> None:
    """Whatever the order, each answer is one of the contract's, and the directory belongs to the record."""
    codes: list[str] = []

    async def attempt(call: Awaitable[object]) -> None:
        try:
            await call
        except GRPCError as error:
            codes.append(error.status.name)

    async with asyncio.TaskGroup() as group:
        for _ in range(30):
            group.create_task(attempt(world.snapshots.prepare("key")))
            group.create_task(attempt(world.snapshots.remove("key")))
    assert set(codes) <= {"ALREADY_EXISTS", "NOT_FOUND"}
    await world.snapshots.cleanup()
    assert len(names(world.root / "s")) == len(await world.snapshots.walk())


async def test_one_of_many_commits_wins(world: World, target: Path) -> None:
    """containerd tries again when two pulls of one image meet."""
    for number in range(8):
        await world.snapshots.prepare(f"key-{number}")
    results: list[str] = []

    async def commit(number: int) -> None:
        try:
            await world.snapshots.commit("name", f"key-{number}", {REF: "sha256:x"})
            results.append("OK")
        except GRPCError as error:
            results.append(error.status.name)

    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(commit(number))
    assert sorted(results) == ["ALREADY_EXISTS"] * 7 + ["OK"]
    assert len(await world.snapshots.walk()) == 8


async def test_a_call_that_hangs_is_answered(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its deadline the client hears UNAVAILABLE; other calls are served meanwhile; the work ends."""
    release = asyncio.Event()
    original = world.snapshotter.remove

    async def slow(*arguments: object) -> None:
        await release.wait()
        await original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(world.snapshotter, "remove", slow)
    monkeypatch.setattr(Service, "deadline_seconds", 0.2)
    await world.snapshots.prepare("one")
    async with refused(Status.UNAVAILABLE, "ask again"):
        await world.snapshots.remove("one")
    assert (await world.snapshots.stat("one")).name == "one"
    release.set()
    while await world.snapshots.names():
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("method", "ask"),
    [
        ("prepare", lambda snapshots: snapshots.prepare("two")),
        ("view", lambda snapshots: snapshots.view("two")),
        ("mounts", lambda snapshots: snapshots.mounts("one")),
        ("commit", lambda snapshots: snapshots.commit("two", "one")),
        ("update", lambda snapshots: snapshots.update(pb.Info(name="one"))),
        ("usage", lambda snapshots: snapshots.usage("one")),
    ],
)
async def test_no_method_hangs_for_ever(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    ask: Callable[[Snapshots], Awaitable[object]],
) -> None:
    """Whichever it is, its client hears UNAVAILABLE at the deadline."""
    await world.snapshots.prepare("one")
    release = asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        await release.wait()

    monkeypatch.setattr(world.snapshotter, method, hang)
    monkeypatch.setattr(Service, "deadline_seconds", 0.1)
    async with refused(Status.UNAVAILABLE, "ask again"):
        await ask(world.snapshots)
    release.set()


async def test_what_nobody_foresaw_is_internal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never UNKNOWN, which would stop containerd's sweeps; and no Python text."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(world.snapshotter, "stat", broken)
    async with refused(Status.INTERNAL, "Stat: internal error"):
        await world.snapshots.stat("one")


async def test_cleanup_never_fails_for_containerd(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of it would end the round of garbage collection."""

    async def broken() -> None:
        raise FailedPrecondition("busy")

    monkeypatch.setattr(world.snapshotter, "cleanup", broken)
    await world.snapshots.cleanup()


async def test_the_socket_is_roots_alone(world: World) -> None:
    """And a second daemon does not take it away."""
    path = world.root.with_suffix(".sock")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FailedPrecondition, match="in use"), listening(path):
        pass
    assert (await world.snapshots.walk()) == []


def test_a_stale_socket_is_replaced(root: Path) -> None:
    """Its listener is dead; a file that is no socket stays."""
    path = root.with_suffix(".sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening(path):
        pass
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(FailedPrecondition, match="no socket"), listening(path):
        pass


def test_a_socket_of_the_service_manager_is_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one bound to the path among those handed over; its file stays afterwards."""
    path = root.with_suffix(".sock")
    with socket.socket(socket.AF_UNIX) as systemd, socket.socket(socket.AF_UNIX) as other:
        systemd.bind(str(path))
        systemd.listen()
        first = os.dup(other.fileno())
        monkeypatch.setattr("imagecached.sockets._FIRST_DESCRIPTOR", first)
        second = os.dup(systemd.fileno())
        monkeypatch.setenv("LISTEN_FDS", str(second - first + 1))
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        with listening(path) as found:
            assert found.fileno() == second
            assert not os.get_inheritable(second)
        assert path.exists()
        assert handed_over(root / "else") is None
        monkeypatch.setenv("LISTEN_PID", "1")
        assert handed_over(path) is None
        os.close(first)
