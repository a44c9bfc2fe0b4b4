"""Labels and filters over the socket."""

from __future__ import annotations

import time

import pytest
from grpclib import Status

from imagecached.rpc._proto import snapshots_pb2 as pb
from tests.support.snapshots import Snapshots, refused

pytestmark = pytest.mark.root


async def make(snapshots: Snapshots, name: str, kind: str, parent: str = "", **labels: str) -> None:
    """A snapshot of any kind."""
    if kind == "view":
        await snapshots.view(name, parent, labels)
        return
    await snapshots.prepare(name if kind == "active" else f"{name}-key", parent, labels)
    if kind == "committed":
        await snapshots.commit(name, f"{name}-key", labels)


@pytest.mark.parametrize("kind", ["active", "view", "committed"])
@pytest.mark.parametrize("parent", ["", "base"])
async def test_update_moves_nothing_but_labels_and_its_own_time(
    snapshots: Snapshots, kind: str, parent: str
) -> None:
    """Times lie between the clock readings around them, to the nanosecond; the rest of the request is
    ignored.
    """
    await make(snapshots, "base", "committed")
    before = time.time_ns()
    await make(snapshots, "x", kind, parent, l1="v1", l2="v2", l3="v3")
    between = time.time_ns()
    made = await snapshots.stat("x")
    assert before <= made.created_at.ToNanoseconds() <= between
    assert made.created_at == made.updated_at
    asked = pb.Info(name="x", parent="else", kind=pb.VIEW, labels={"l1": "new", "l3": "no"})
    updated = await snapshots.update(asked, "labels.l1", "labels.l2")
    after = time.time_ns()
    assert between <= updated.updated_at.ToNanoseconds() <= after
    assert (updated.name, updated.parent, updated.kind) == ("x", made.parent, made.kind)
    assert updated.created_at == made.created_at
    assert dict(updated.labels) == {"l1": "new", "l3": "v3"}
    assert await snapshots.stat("x") == updated
    replaced = await snapshots.update(pb.Info(name="x", labels={"only": "1"}), "labels")
    assert dict(replaced.labels) == {"only": "1"}
    assert dict((await snapshots.update(pb.Info(name="x", labels={"a.b/c": "2"}))).labels) == {"a.b/c": "2"}
    gone = await snapshots.update(pb.Info(name="x"), "labels.a.b/c")
    assert dict(gone.labels) == {}
    for mask in ("parent", "kind", "labels.", "name"):
        async with refused(Status.INVALID_ARGUMENT):
            await snapshots.update(pb.Info(name="x", parent="base"), mask)


async def test_filters_choose(snapshots: Snapshots) -> None:
    """Each expression over nine snapshots of all kinds gives its set."""
    await make(snapshots, "p1", "committed")
    await make(snapshots, "p2", "committed", "p1", l="1")
    await make(snapshots, "v", "view", "p2", l="2")
    await make(snapshots, "v0", "view", l="1")
    await make(snapshots, "a", "active", "p2")
    await make(snapshots, "a0", "active", l="2")
    await make(snapshots, "a1", "active", "p1", l="1")
    await make(snapshots, "c", "committed", "p2", l="2")
    await make(snapshots, "c0", "committed", l="1")
    every = {"p1", "p2", "v", "v0", "a", "a0", "a1", "c", "c0"}
    for filters, expected in (
        ([], every),
        ([""], every),
        (['labels."l"==1'], {"p2", "v0", "a1", "c0"}),
        (["kind==active,labels.l==1"], {"a1"}),
        (["kind==view,labels.l==2"], {"v"}),
        (["kind==committed,labels.l==1"], {"p2", "c0"}),
        (["kind==active,labels.l==1", "kind==view"], {"a1", "v", "v0"}),
        (["name==a0,labels.l"], {"a0"}),
        (["name==p1,labels.l"], set()),
        (["parent==p2"], {"v", "a", "c"}),
        (['parent!=""'], {"p2", "v", "a", "a1", "c"}),
        (["labels.l"], every - {"p1", "a"}),
        (["labels.l==2"], {"v", "a0", "c"}),
        (["labels.l!=2"], every - {"v", "a0", "c"}),
        (["name~=/^[ac]0$/"], {"a0", "c0"}),
    ):
        assert await snapshots.names(*filters) == expected, filters


async def test_labels_have_a_size(snapshots: Snapshots) -> None:
    """4096 bytes for key and value, not characters; one more is refused by every method."""
    fits, large = {"k": "v" * 4095}, {"k": "é" * 2048}
    await snapshots.prepare("one", labels=fits)
    for call in (
        snapshots.prepare("two", labels=large),
        snapshots.view("two", labels=large),
        snapshots.commit("two", "one", large),
        snapshots.update(pb.Info(name="one", labels=large)),
    ):
        async with refused(Status.INVALID_ARGUMENT, "4096"):
            await call
    assert await snapshots.names() == {"one"}
    assert dict((await snapshots.stat("one")).labels) == fits


@pytest.mark.parametrize("label", ["uidmapping", "gidmapping"])
async def test_mapped_ids_change_no_owner(snapshots: Snapshots, label: str) -> None:
    """Without the capability ``remap-ids`` the client does it, and its label says only that it did."""
    wanted = {f"containerd.io/snapshot/{label}": "0:100000:65536"}
    mounts = await snapshots.prepare("one", labels=wanted)
    assert not any("idmap" in option for mount in mounts for option in mount.options)
    assert dict((await snapshots.stat("one")).labels) == wanted
