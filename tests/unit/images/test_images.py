"""Pulls: what is fetched, shared, refused, and what is left when something goes wrong."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from imagecached.errors import AccessDenied, Corrupt, InvalidInput, NotFound, OutOfSpace, Unavailable
from imagecached.images import PullResult
from imagecached.oci.chain import chain_ids
from imagecached.oci.digest import Digest
from imagecached.registry import NOTHING, Access
from imagecached.store import StorePolicy
from tests.fakes import faults
from tests.fakes.registry import LAYER, FakeRegistry, descriptor
from tests.unit.images.conftest import Bench, layer


async def test_a_pull_makes_an_image_present(bench: Bench) -> None:
    """Layers, snapshots of every prefix and the image are there; the result names them."""
    tars = [layer("a"), layer("b"), layer("c")]
    digest = bench.fake.put_image("demo", "1", tars)
    pull = bench.images.pull(bench.name("demo:1"))
    result = await pull.wait()
    diff_ids = [Digest.of(tar) for tar in tars]
    assert result == PullResult(Digest(digest), chain_ids(diff_ids)[-1])
    assert [layer.diff_id for layer in bench.store.layers()] == sorted(diff_ids)
    assert {snapshot.chain_id for snapshot in bench.store.snapshots()} == set(chain_ids(diff_ids))
    progress = pull.progress()
    assert progress.state == "ready"
    assert progress.bytes_from("fetched") == sum(map(len, tars))
    assert [each.done for each in progress.layers] == [len(tar) for tar in tars]
    assert progress.seconds["total"] >= progress.seconds["fetch"] > 0


async def test_the_second_pull_of_a_tag_is_one_request(bench: Bench) -> None:
    """An image that is here and unchanged costs one HEAD, by digest nothing at all."""
    digest = bench.fake.put_image("demo", "1", [layer("a")])
    first = await bench.images.pull(bench.name("demo:1")).wait()
    before = len(bench.fake.requests)
    again = bench.images.pull(bench.name("demo:1"))
    assert await again.wait() == first
    assert [asked.method for asked in bench.fake.requests[before:]] == ["HEAD"]
    assert again.progress().bytes_from("present") == len(layer("a"))
    await bench.images.pull(bench.name(f"demo@{digest}")).wait()
    before = len(bench.fake.requests)
    await bench.images.pull(bench.name(f"demo@{digest}")).wait()
    assert len(bench.fake.requests) == before


async def test_what_was_looked_at_is_brought_even_if_the_tag_moves(bench: Bench) -> None:
    """Looking fetches no layer; bringing resolves nothing again, and names the image by its digest."""
    digest = bench.fake.put_image("demo", "1", [layer("a"), layer("b")])
    outlook = await bench.images.look(bench.name("demo:1"))
    assert outlook.name == bench.name(f"demo@{digest}")
    assert outlook.layers == {Digest.of(layer(name)): len(layer(name)) for name in "ab"}
    assert bench.store.layers() == ()
    bench.fake.put_image("demo", "1", [layer("c")])
    before = len(bench.fake.asked("/manifests/"))
    await bench.images.bring(outlook).wait()
    assert len(bench.fake.asked("/manifests/")) == before
    [image] = bench.store.images()
    assert (image.name, image.manifest_digest) == (outlook.name, digest)


async def test_an_image_gets_a_second_name(bench: Bench) -> None:
    """By the tag that people type; a name that was another image's now is this one's."""
    old = bench.fake.put_image("demo", "1", [layer("old")])
    await bench.images.pull(bench.name("demo:1")).wait()
    new = bench.fake.put_image("demo", "2", [layer("new")])
    await bench.images.pull(bench.name(f"demo@{new}")).wait()
    await bench.images.name(bench.name("demo:1"), of=bench.name(f"demo@{new}"))
    images = {image.name: image.manifest_digest for image in bench.store.images()}
    assert images == {bench.name("demo:1"): new, bench.name(f"demo@{new}"): new}
    with pytest.raises(NotFound):
        await bench.images.name(bench.name("demo:3"), of=bench.name(f"demo@{old}"))


async def test_one_manifest_of_an_index_by_itself(bench: Bench) -> None:
    """Two platforms of one index can be here side by side: each by the digest of its own manifest."""
    arm = bench.fake.put_image("demo", None, [layer("arm")], config={"architecture": "arm64"})
    amd = bench.fake.put_image("demo", None, [layer("amd")])
    entries = [
        (arm, {"os": "linux", "architecture": "arm64"}),
        (amd, {"os": "linux", "architecture": "amd64"}),
    ]
    index = bench.fake.put_index("demo", "1", entries)
    here = await bench.images.look(bench.name("demo:1"))
    there = await bench.images.look(bench.name("demo:1"), "linux/arm64", exactly=True)
    assert (here.name, there.name) == (bench.name(f"demo@{index}"), bench.name(f"demo@{arm}"))
    await bench.images.bring(here).wait()
    await bench.images.bring(there, "linux/arm64").wait()
    assert {str(image.platform): image.manifest_digest for image in bench.store.images()} == {
        "linux/amd64": amd,
        "linux/arm64": arm,
    }
    before = len(bench.fake.requests)
    await bench.images.bring(there, "linux/arm64").wait()
    assert len(bench.fake.requests) == before


async def test_a_moved_tag_is_noticed(bench: Bench) -> None:
    """The tag names another image now: that one is pulled."""
    bench.fake.put_image("demo", "1", [layer("a")])
    await bench.images.pull(bench.name("demo:1")).wait()
    digest = bench.fake.put_image("demo", "1", [layer("b")])
    assert (await bench.images.pull(bench.name("demo:1")).wait()).manifest_digest == digest


async def test_only_what_is_missing_is_fetched(bench: Bench) -> None:
    """A second image that shares a layer brings its own layer and its config only."""
    bench.fake.put_image("one", "1", [layer("base"), layer("one")])
    bench.fake.put_image("two", "1", [layer("base"), layer("two")])
    await bench.images.pull(bench.name("one:1")).wait()
    before = bench.blobs_asked()
    pull = bench.images.pull(bench.name("two:1"))
    await pull.wait()
    assert bench.blobs_asked() - before == 2
    assert [each.source for each in pull.progress().layers] == ["present", "fetched"]
    assert len(bench.store.layers()) == 3


async def test_a_layer_that_an_image_has_twice_is_fetched_once(bench: Bench) -> None:
    """The same diffID at two places of one image is one transfer."""
    bench.fake.put_image("demo", "1", [layer("a"), layer("b"), layer("a")])
    pull = bench.images.pull(bench.name("demo:1"))
    await pull.wait()
    assert len(pull.progress().layers) == 2
    assert len(bench.store.snapshots()) == 3


async def test_one_flight_per_image(bench: Bench) -> None:
    """Two callers of one image share the requests and the progress."""
    bench.fake.put_image("demo", "1", [layer("a")])
    pulls = [bench.images.pull(bench.name("demo:1")) for _ in range(2)]
    assert await pulls[0].wait() == await pulls[1].wait()
    assert pulls[0].progress() is pulls[1].progress()
    assert len(bench.fake.asked("/manifests/")) == 1


async def test_one_flight_per_layer(bench: Bench) -> None:
    """Two images pulled at once fetch a common layer once; the other one says it shared."""
    bench.fake.put_image("one", "1", [layer("base"), layer("one")])
    bench.fake.put_image("two", "1", [layer("base"), layer("two")])
    gate = asyncio.Event()
    digest = Digest.of(layer("base"))
    bench.fake.script(f"/v2/one/blobs/{digest}", faults.gated(gate, after=100))
    bench.fake.script(f"/v2/two/blobs/{digest}", faults.gated(gate, after=100))
    pulls = [bench.images.pull(bench.name(f"{name}:1")) for name in ("one", "two")]
    while not all(pull.progress().layers for pull in pulls):
        await asyncio.sleep(0)
    gate.set()
    for pull in pulls:
        await pull.wait()
    assert len(bench.fake.asked(digest)) == 1
    assert sorted(str(pull.progress().layers[0].source) for pull in pulls) == ["fetched", "shared"]


async def test_callers_of_different_access_share_no_flight(bench: Bench) -> None:
    """Neither of an image nor of a layer: what one login opens, or fails to open, is no other's outcome."""
    bench.fake.put_image("demo", "1", [layer("a")])
    gate = asyncio.Event()
    blob = f"/v2/demo/blobs/{Digest.of(layer('a'))}"
    bench.fake.script(blob, faults.gated(gate, after=100), faults.gated(gate, after=100))
    accesses = (NOTHING, Access(plain_http=("r.io",)), Access(plain_http=("r.io",)))
    pulls = [bench.images.pull(bench.name("demo:1"), access=access) for access in accesses]
    while not all(pull.progress().layers and pull.progress().layers[0].done for pull in pulls):
        await asyncio.sleep(0)
    gate.set()
    for pull in pulls:
        await pull.wait()
    assert len(bench.fake.asked(blob)) == 2
    assert pulls[1].progress() is pulls[2].progress()
    assert len(bench.store.layers()) == 1


async def test_leaving_cancels_what_nobody_else_wants(bench: Bench) -> None:
    """The last caller to leave ends the flight; no unfinished file is left, and a new pull begins anew."""
    bench.fake.put_image("demo", "1", [layer("a")])
    path = f"/v2/demo/blobs/{Digest.of(layer('a'))}"
    bench.fake.script(path, faults.stalled(after=100))
    first, second = (bench.images.pull(bench.name("demo:1")) for _ in range(2))
    while not (first.progress().layers and first.progress().layers[0].done):
        await asyncio.sleep(0)
    first.leave()
    with pytest.raises(asyncio.CancelledError):
        await first.wait()
    assert len(bench.unfinished()) == 1
    second.leave()
    with pytest.raises(asyncio.CancelledError):
        await second.wait()
    assert (bench.unfinished(), bench.store.layers()) == ([], ())
    await bench.images.pull(bench.name("demo:1")).wait()


async def test_a_chain_is_there_before_the_whole_image(bench: Bench) -> None:
    """Whoever follows a pull gets every prefix as soon as its layers are here; gc leaves it alone."""
    tars = [layer("a"), layer("b"), layer("c")]
    bench.fake.put_image("demo", "1", tars)
    chain = chain_ids([Digest.of(tar) for tar in tars])
    gate = asyncio.Event()
    bench.fake.script(f"/v2/demo/blobs/{Digest.of(tars[2])}", faults.gated(gate, after=100))
    pull = bench.images.pull(bench.name("demo:1"))
    await pull.chain(chain[1])
    await bench.store.gc()
    assert {snapshot.chain_id for snapshot in bench.store.snapshots()} == set(chain[:2])
    assert pull.progress().state == "fetching"
    gate.set()
    await pull.chain(chain[2])
    assert bench.store.image(bench.name("demo:1")) is not None
    assert {snapshot.chain_id for snapshot in bench.store.snapshots()} == set(chain)


async def test_a_chain_that_will_not_come(bench: Bench) -> None:
    """One that the image has not, and one of a pull that fails, are told at once."""
    bench.fake.put_image("demo", "1", [layer("a")])
    pull = bench.images.pull(bench.name("demo:1"))
    with pytest.raises(NotFound, match="no chain"):
        await pull.chain(Digest.of(b"another"))
    await pull.wait()
    with pytest.raises(NotFound, match="no chain"):
        await pull.chain(Digest.of(b"another"))
    bench.fake.put_image("demo", "2", [layer("b")])
    bench.fake.always(f"/v2/demo/blobs/{Digest.of(layer('b'))}", faults.status(403))
    with pytest.raises(AccessDenied):
        await bench.images.pull(bench.name("demo:2")).chain(Digest.of(layer("b")))


async def test_the_pace_of_a_pull(bench: Bench) -> None:
    """It stands still with a registry that is silent, and goes on while others have their turn before."""
    for name in "abcde":
        bench.fake.put_image(name, "1", [layer(name)])
        bench.fake.always(f"/v2/{name}/blobs/{Digest.of(layer(name))}", faults.stalled(after=100))
    pulls = [bench.images.pull(bench.name(f"{name}:1")) for name in "abcde"]
    while not all(pull.progress().layers and pull.progress().layers[0].done for pull in pulls[:4]):
        await asyncio.sleep(0)
    stuck, waiting = pulls[0].pace(), pulls[4].pace()
    assert bench.images.waiting() == (1, 0)
    gate = asyncio.Event()
    bench.fake.always(f"/v2/e/blobs/{Digest.of(layer('e'))}", faults.gated(gate, after=100))
    pulls[1].leave()
    while pulls[4].pace() == waiting:
        await asyncio.sleep(0)
    assert pulls[0].pace() == stuck
    gate.set()
    await pulls[4].wait()
    for pull in pulls:
        pull.leave()


async def test_what_waits_for_its_turn_is_counted(bench: Bench) -> None:
    """Layers beyond those fetched at once wait, and are counted as waiting."""
    bench.fake.put_image("demo", "1", [layer(name) for name in "abcdef"])
    gate = asyncio.Event()
    for name in "abcdef":
        bench.fake.always(f"/v2/demo/blobs/{Digest.of(layer(name))}", faults.gated(gate, after=100))
    pull = bench.images.pull(bench.name("demo:1"))
    while bench.images.waiting() != (0, 2):
        await asyncio.sleep(0)
    gate.set()
    await pull.wait()
    assert bench.images.waiting() == (0, 0)


@pytest.mark.parametrize("fault", [faults.corrupt(), faults.resized(7), faults.resized(-7)])
async def test_wrong_bytes_are_never_published(bench: Bench, fault: faults.Fault) -> None:
    """A layer that is not what its digest and size say fails the pull and leaves nothing."""
    bench.fake.put_image("demo", "1", [layer("good"), layer("bad")])
    bench.fake.always(f"/v2/demo/blobs/{Digest.of(layer('bad'))}", fault)
    with pytest.raises((Corrupt, Unavailable)):
        await bench.images.pull(bench.name("demo:1")).wait()
    assert bench.store.layer(Digest.of(layer("bad"))) is None
    assert (bench.store.images(), bench.unfinished()) == ((), [])


async def test_a_wrong_diff_id_is_corrupt(bench: Bench) -> None:
    """The config promises another tar than the layer holds."""
    lie = {"rootfs": {"type": "layers", "diff_ids": [Digest.of(b"something else")]}}
    bench.fake.put_image("demo", "1", [layer("a")], config=lie)
    with pytest.raises(Corrupt, match="sha256:"):
        await bench.images.pull(bench.name("demo:1")).wait()
    assert (bench.store.layers(), bench.unfinished()) == ((), [])


async def test_a_failed_pull_is_told_and_forgotten(bench: Bench) -> None:
    """The error reaches the caller, the events and the metrics; a later pull is not tainted by it."""
    with pytest.raises(NotFound):
        await bench.images.pull(bench.name("demo:1")).wait()
    bench.fake.put_image("demo", "1", [layer("a")])
    await bench.images.pull(bench.name("demo:1")).wait()
    assert [event.kind for event in bench.events.recent()] == ["pull_failed", "pulled"]
    text = bench.metrics.exposition()[0].decode()
    assert 'imagecached_pulls_total{reason="not_found",result="failed"} 1.0' in text
    assert 'imagecached_pulls_total{reason="none",result="ready"} 1.0' in text


@pytest.mark.parametrize("reference", ["", "demo/UPPER", "demo:", "a b"])
async def test_what_is_no_reference_is_refused_at_once(bench: Bench, reference: str) -> None:
    """No request is made for a name that cannot be one."""
    with pytest.raises(InvalidInput):
        bench.images.pull(reference)
    assert bench.fake.requests == []


class TestFullStore:
    """A quota that the image cannot fit."""

    @pytest.fixture
    def policy(self) -> StorePolicy:
        return StorePolicy(quota_bytes=20_000, free_bytes=0)

    async def test_what_cannot_fit_fails_before_it_is_fetched(self, bench: Bench) -> None:
        """The sizes in the manifest already tell."""
        bench.fake.put_image("demo", "1", [layer("a", 200_000)])
        with pytest.raises(OutOfSpace):
            await bench.images.pull(bench.name("demo:1")).wait()
        assert bench.blobs_asked() == 1  # the config
        assert bench.unfinished() == []

    async def test_what_turns_out_not_to_fit_leaves_nothing(self, bench: Bench) -> None:
        """Only the bytes themselves tell: the partial file is gone, the store as before."""
        bench.fake.put_image("demo", "1", [layer("a", 200_000)])
        manifest = bench.fake.manifest("demo", "1")
        packed = gzip.compress(layer("a", 200_000))
        digest = bench.fake.put_blob("demo", packed)
        manifest["layers"] = [descriptor(digest, len(packed), f"{LAYER}+gzip")]
        bench.fake.put_manifest("demo", "1", json.dumps(manifest).encode())
        with pytest.raises(OutOfSpace):
            await bench.images.pull(bench.name("demo:1")).wait()
        assert bench.blobs_asked() == 2
        assert (bench.unfinished(), bench.store.layers()) == ([], ())


class TestMirror:
    """Blobs that may come from a mirror first."""

    @pytest.fixture
    async def mirror(self, bench: Bench, certs: Path) -> AsyncIterator[FakeRegistry]:
        async with FakeRegistry() as served:
            folder = certs / bench.fake.address
            folder.mkdir(parents=True)
            (folder / "hosts.toml").write_text(
                f'server = "{bench.fake.url}"\n[host."{served.url}"]\ncapabilities = ["pull"]\n'
            )
            yield served

    async def test_what_a_mirror_got_wrong_is_asked_of_the_registry(
        self, bench: Bench, mirror: FakeRegistry
    ) -> None:
        """Wrong bytes from a mirror are never published, and do not fail the pull."""
        bench.fake.put_image("demo", "1", [layer("a")])
        path = f"/v2/demo/blobs/{mirror.put_blob('demo', layer('a'))}"
        mirror.always(path, faults.corrupt())
        pull = bench.images.pull(bench.name("demo:1"))
        await pull.wait()
        assert len(mirror.asked(path)) == len(bench.fake.asked(path)) == 1
        assert [each.done for each in pull.progress().layers] == [len(layer("a"))]
        assert bench.unfinished() == []
