"""A declared cache becomes Ready: what is fetched, what it is called, what is kept, what is shown."""

from __future__ import annotations

from imagecached.imagecache import cache_id
from imagecached.oci.digest import Digest
from tests.unit.caches.conftest import Node, cache, layer


async def test_a_declared_cache_becomes_ready(node: Node) -> None:
    """Its images are here by digest and by tag, pinned, and the status says how they came."""
    one = node.fake.put_image("one", "1", [layer("base"), layer("one")])
    two = node.fake.put_image("two", "1", [layer("base"), layer("two")])
    node.declare(cache("demo", node.name("one:1"), node.name("two:1")))
    status = await node.phase("demo", "Ready")
    view = node.caches.view("demo")
    assert view.id == cache_id("name/demo")
    assert node.caches.view(view.id) == view
    assert status.progress == "100%"
    whole = sum(len(layer(name)) for name in ("base", "one", "two"))
    assert (status.bytes.total, status.bytes.fetched, status.bytes.reused) == (whole, whole, 0)
    assert [image.digest for image in status.serving] == [one, two]
    assert view.names[node.name("one:1")] == node.name(f"one@{one}")
    assert {image.name for image in node.store.images()} == {
        node.name("one:1"), node.name("two:1"), node.name(f"one@{one}"), node.name(f"two@{two}"),
    }  # fmt: skip
    assert {pin.value for pin in node.store.pins()} == set(view.names.values())
    await node.until(lambda: node.kinds() == ["imagecache_building", "imagecache_ready"])


async def test_layers_that_are_here_are_reused(node: Node) -> None:
    """Counted apart from what was fetched, and not asked for again."""
    node.fake.put_image("one", "1", [layer("base"), layer("one")])
    node.fake.put_image("two", "1", [layer("base"), layer("two")])
    await node.images.pull(node.name("one:1")).wait()
    node.declare(cache("demo", node.name("two:1")))
    status = await node.phase("demo", "Ready")
    assert (status.bytes.reused, status.bytes.fetched) == (len(layer("base")), len(layer("two")))
    assert len(node.fake.asked(Digest.of(layer("base")))) == 1


async def test_unpacked_bytes_of_each_image(node: Node) -> None:
    """What the tars hold."""
    node.fake.put_image("one", "1", [layer("base"), layer("one")])
    node.declare(cache("demo", node.name("one:1")))
    status = await node.phase("demo", "Ready")
    assert [image.bytes for image in status.serving] == [len(layer("base")) + len(layer("one"))]


async def test_a_tag_that_moves_in_the_middle_of_a_build(node: Node) -> None:
    """The generation is what the tag named when it began."""
    first = node.fake.put_image("demo", "1", [layer("first")])

    def move() -> None:
        node.fake.put_image("demo", "1", [layer("second")])

    node.declare(cache("demo", node.name("demo:1")))
    await node.phase("demo", "Creating")
    move()
    status = await node.phase("demo", "Ready")
    assert [image.digest for image in status.serving] == [first]
    image = node.store.image(node.name("demo:1"))
    assert image is not None
    assert image.manifest_digest == first


async def test_applied_documents_outlive_a_restart(node: Node) -> None:
    """They are remembered whole, and so is how far they are: nothing is asked of the registry again."""
    node.fake.put_image("demo", "1", [layer("a")])
    given = cache("demo", node.name("demo:1"), retentionDays=3, annotations={"imagecached.dev/refresh": "x"})
    assert await node.caches.apply([given]) == {"demo": "created"}
    before = await node.phase("demo", "Ready")
    asked = len(node.fake.requests)
    await node.restart()
    view = node.caches.view("demo")
    assert (view.status, view.cache) == (before, given)
    assert await node.caches.apply([given]) == {"demo": "unchanged"}
    await node.until(lambda: node.calendar.next > 0)
    assert len(node.fake.requests) == asked


async def test_a_cache_is_ready_when_the_runtime_knows_its_images(node: Node) -> None:
    """A pod that comes then starts without a pull, whether it names the digest or the tag."""
    node.runtime.clear()
    one = node.fake.put_image("one", "1", [layer("one")])
    node.declare(cache("demo", node.name("one:1")))
    await node.until(lambda: node.settling == [node.name(f"one@{one}"), node.name("one:1")])
    assert node.caches.status("demo").phase == "Creating"
    node.runtime.set()
    await node.phase("demo", "Ready")
