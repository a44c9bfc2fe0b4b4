"""From nothing to committed and away again: what containerd demands of any snapshotter."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from grpclib.client import Channel

from imagecached.rpc._proto import snapshots_pb2 as pb
from tests.support.snapshots import Snapshots, World, mounted, refused, run_in

pytestmark = pytest.mark.root


async def test_two_layers_from_empty_to_removed(snapshots: Snapshots, target: Path) -> None:
    """Written, committed, changed above, viewed; parents cannot go before their children."""
    with mounted(await snapshots.prepare("one"), target):
        run_in(target, "echo a >a; mkdir -p d/e; echo b >d/e/b")
    await snapshots.commit("base", "one")
    info = await snapshots.stat("base")
    assert (info.name, info.parent, info.kind) == ("base", "", pb.COMMITTED)
    async with refused(Status.NOT_FOUND):
        await snapshots.stat("one")
    with mounted(await snapshots.prepare("two", "base"), target):
        assert (target / "a").read_text() == "a\n"
        run_in(target, "echo A >a; rm d/e/b; echo c >d/c")
    await snapshots.commit("top", "two")
    info = await snapshots.stat("top")
    assert (info.parent, info.kind) == ("base", pb.COMMITTED)
    assert {one.name: one for one in await snapshots.walk()} == {
        name: await snapshots.stat(name) for name in ("base", "top")
    }
    with mounted(await snapshots.view("look", "top"), target):
        assert (target / "a").read_text() == "A\n"
        assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["a", "d", "d/c", "d/e"]
    async with refused(Status.FAILED_PRECONDITION, "remove"):
        await snapshots.remove("base")
    for name in ("look", "top", "base"):
        await snapshots.remove(name)
    assert await snapshots.walk() == []


async def test_stat_of_an_active_snapshot(snapshots: Snapshots) -> None:
    """Its key, its kind, no parent."""
    await snapshots.prepare("one")
    info = await snapshots.stat("one")
    assert (info.name, info.kind, info.parent) == ("one", pb.ACTIVE, "")


async def test_stat_of_a_committed_snapshot(snapshots: Snapshots) -> None:
    """The kind changes, and times begin anew."""
    await snapshots.prepare("one")
    before = await snapshots.stat("one")
    await snapshots.commit("base", "one")
    info = await snapshots.stat("base")
    assert (info.name, info.kind, info.parent) == ("base", pb.COMMITTED, "")
    assert info.created_at == info.updated_at
    assert info.created_at.ToNanoseconds() > before.created_at.ToNanoseconds()


async def test_parents_are_readable_step_by_step(snapshots: Snapshots) -> None:
    """A chain of two: the upper names the lower."""
    await snapshots.prepare("one")
    await snapshots.commit("base", "one")
    await snapshots.prepare("two", "base")
    assert (await snapshots.stat("two")).parent == "base"
    await snapshots.commit("top", "two")
    assert (await snapshots.stat((await snapshots.stat("top")).parent)).name == "base"


@pytest.mark.parametrize(
    ("first", "second"), [("prepare", "view"), ("prepare", "prepare"), ("view", "view"), ("view", "prepare")]
)
@pytest.mark.parametrize("key", ["one", "/tmp/1/one", "one/two/three"])
async def test_a_key_is_given_once(snapshots: Snapshots, first: str, second: str, key: str) -> None:
    """Whatever kind it is wanted for the second time."""
    await getattr(snapshots, first)(key)
    async with refused(Status.ALREADY_EXISTS):
        await getattr(snapshots, second)(key)


async def test_a_name_is_free_right_after_removal(snapshots: Snapshots) -> None:
    """For another kind as well; a committed name can be committed again."""
    await snapshots.prepare("one")
    await snapshots.remove("one")
    await snapshots.view("one")
    await snapshots.remove("one")
    for _ in range(2):
        await snapshots.prepare("one")
        await snapshots.commit("base", "one")
        await snapshots.remove("base")
    assert await snapshots.walk() == []


async def test_the_middle_of_a_chain_stays(snapshots: Snapshots) -> None:
    """Only from the top down can it be removed; an active child holds its parent too."""
    await snapshots.prepare("a")
    await snapshots.commit("1", "a")
    await snapshots.prepare("b", "1")
    async with refused(Status.FAILED_PRECONDITION, "remove"):
        await snapshots.remove("1")
    await snapshots.commit("2", "b")
    await snapshots.prepare("c", "2")
    await snapshots.commit("3", "c")
    for name in ("1", "2"):
        async with refused(Status.FAILED_PRECONDITION, "remove"):
            await snapshots.remove(name)
    for name in ("3", "2", "1"):
        await snapshots.remove(name)


async def test_a_stat_in_the_middle_of_a_list(snapshots: Snapshots) -> None:
    """No deadlock, and the same in every field."""
    for number in range(250):
        await snapshots.prepare(f"key-{number}", labels={"n": str(number)})
    sizes = []
    async for block in snapshots.blocks():
        sizes.append(len(block))
        assert await snapshots.stat(block[-1].name) == block[-1]
        await snapshots.prepare(f"between-{len(sizes)}")
    assert sizes == [100, 100, 50]


async def test_a_client_that_leaves_twice(world: World) -> None:
    """Closing a connection, and once more, harms nobody."""
    channel = Channel(path=str(world.root.with_suffix(".sock")))
    await Snapshots(channel).prepare("one")
    channel.close()
    channel.close()
    assert (await world.snapshots.stat("one")).kind == pb.ACTIVE


async def test_codes_in_detail(snapshots: Snapshots) -> None:
    """What is missing, of the wrong kind, or no name at all."""
    await snapshots.prepare("active")
    await snapshots.view("view")
    await snapshots.prepare("gone")
    await snapshots.commit("committed", "gone")
    for call, status in (
        (snapshots.prepare("x", "nobody"), Status.NOT_FOUND),
        (snapshots.view("x", "nobody"), Status.NOT_FOUND),
        (snapshots.prepare("x", "active"), Status.INVALID_ARGUMENT),
        (snapshots.view("x", "view"), Status.INVALID_ARGUMENT),
        (snapshots.prepare(""), Status.INVALID_ARGUMENT),
        (snapshots.mounts("nobody"), Status.NOT_FOUND),
        (snapshots.mounts("committed"), Status.FAILED_PRECONDITION),
        (snapshots.commit("x", "nobody"), Status.NOT_FOUND),
        (snapshots.commit("x", "view"), Status.FAILED_PRECONDITION),
        (snapshots.commit("x", "committed"), Status.FAILED_PRECONDITION),
        (snapshots.commit("committed", "active"), Status.ALREADY_EXISTS),
        (snapshots.commit("active", "active"), Status.ALREADY_EXISTS),
        (snapshots.commit("", "active"), Status.INVALID_ARGUMENT),
        (snapshots.remove("nobody"), Status.NOT_FOUND),
        (snapshots.stat("nobody"), Status.NOT_FOUND),
        (snapshots.usage("nobody"), Status.NOT_FOUND),
        (snapshots.update(pb.Info(name="nobody")), Status.NOT_FOUND),
        (snapshots.walk("kind="), Status.INVALID_ARGUMENT),
    ):
        with pytest.raises(GRPCError) as caught:
            await call
        assert caught.value.status is status, caught.value
    assert await snapshots.names() == {"active", "view", "committed"}


async def test_commit_may_give_a_parent_to_what_had_none(snapshots: Snapshots) -> None:
    """The parent of the request counts if there was none, must be the same otherwise, and committed."""
    await snapshots.prepare("a")
    await snapshots.commit("base", "a")
    await snapshots.prepare("b")
    async with refused(Status.NOT_FOUND):
        await snapshots.commit("top", "b", parent="nobody")
    async with refused(Status.FAILED_PRECONDITION):
        await snapshots.commit("top", "b", parent="b")
    await snapshots.commit("top", "b", parent="base")
    assert (await snapshots.stat("top")).parent == "base"
    await snapshots.prepare("c", "top")
    async with refused(Status.INVALID_ARGUMENT):
        await snapshots.commit("x", "c", parent="base")
    await snapshots.commit("x", "c", parent="top")


async def test_snapshotter_names_stay_apart(snapshots: Snapshots) -> None:
    """One server under two names holds two sets of snapshots."""
    other = snapshots.of(snapshotter="other")
    await snapshots.prepare("one")
    await other.prepare("one")
    await other.commit("base", "one")
    assert await snapshots.names() == {"one"}
    assert await other.names() == {"base"}
    async with refused(Status.NOT_FOUND):
        await snapshots.prepare("two", "base")


async def test_every_call_is_counted_by_its_code(world: World) -> None:
    """Refusals too."""
    async with refused(Status.NOT_FOUND):
        await world.snapshots.stat("nobody")
    await world.snapshots.walk()
    assert world.calls == [("Stat", "NOT_FOUND"), ("List", "OK")]
