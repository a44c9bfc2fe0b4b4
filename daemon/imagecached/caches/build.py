"""Building a generation: resolve, check what it takes, fetch exactly that, give it its names.

Owns one try of one build. It tells how far it is through :class:`Site` and raises what stops it; what that
means for the cache is decided by whoever called. Invariants: what was resolved is pinned before it is
fetched; the tag names of a generation change hands only when all of it is here; nothing that serves is
touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from imagecached.aio import leaves
from imagecached.caches.brought import Brought
from imagecached.caches.declared import Declared
from imagecached.caches.lives import Life
from imagecached.caches.wanted import Wanted, check_size, missing, name_of, progress, tag_of, unpacked
from imagecached.imagecache import ImageStatus, Status, phases
from imagecached.images import Images, Pull
from imagecached.oci.digest import Digest
from imagecached.registry import Access
from imagecached.store import Store

TICK_SECONDS: Final = 0.25
_RUNTIME_SECONDS: Final = 30.0

T = TypeVar("T")
U = TypeVar("U")


class Site(Protocol):
    """The cache that is being built."""

    @property
    def life(self) -> Life: ...
    @property
    def now(self) -> float: ...
    async def move(self, status: Status) -> None:
        """This is how far it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Builder:
    """What building needs. ``settled``: waits until the runtime knows of images, where there is one."""

    images: Images
    store: Store
    brought: Brought
    settled: Callable[..., Awaitable[None]] | None = None

    async def build(self, site: Site, declared: Declared, access: Access) -> None:
        """Make the generation of ``site`` present and let it serve. Errors as of a pull; TooLarge."""
        cache = declared.cache
        status = site.life.status
        wanted = await _each(cache.images, lambda image: self._look(status, declared, image, access))
        layers = {diff_id for one in wanted for diff_id in one.layers}
        with self.store.hold(f"imagecache {cache.name}", layers):
            await self._resolved(site, declared, wanted)
            check_size(cache, unpacked(wanted, self._size), at_least=True)
            await self._claim(site, wanted)
            await self.store.make_room(missing(wanted, self._size))
            await self._bring(site, declared, wanted, access)
            check_size(cache, unpacked(wanted, self._size), at_least=False)
            await self._finished(site, declared, wanted)

    async def _look(self, status: Status, declared: Declared, image: str, access: Access) -> Wanted:
        """What ``image`` is in this build; from the store alone if it is resolved and here."""
        platform = declared.cache.options.platform
        exactly = platform is not None
        resolved = next((one for one in status.images if one.image == image and one.digest), None)
        name = name_of(resolved, exactly=exactly) if resolved else None
        if resolved is not None and name is not None and (here := self._here(resolved, name)) is not None:
            return here
        reference = name or (image if declared.digests is None else declared.digests[image])
        text = str(platform) if platform is not None else None
        outlook = await self.images.look(reference, text, access, exactly=exactly)
        target = outlook.named if resolved is None or resolved.digest is None else resolved.digest
        manifest = outlook.resolved.manifest_digest
        return Wanted(image, outlook.name, target, manifest, outlook.layers, outlook)

    def _here(self, resolved: ImageStatus, name: str) -> Wanted | None:
        record = self.store.image(name)
        if record is None or record.damaged or resolved.digest is None:
            return None
        layers = {diff_id: self._size(diff_id) or 0 for diff_id in record.diff_ids}
        return Wanted(resolved.image, name, resolved.digest, record.manifest_digest, layers)

    async def _resolved(self, site: Site, declared: Declared, wanted: Sequence[Wanted]) -> None:
        """Fix what the generation is made of, once: from here on a tag may move."""
        status = site.life.status
        if status.phase == "Pending" or not all(image.digest for image in status.images):
            found = [one.status(self._size) for one in wanted]
            await site.move(phases.resolve(declared.cache, status, found, site.now))

    async def _claim(self, site: Site, wanted: Sequence[Wanted]) -> None:
        """Pin what will come, and remember which names were not here before."""
        owner = site.life.owner(site.life.status.generation)
        for one in wanted:
            await self.store.pin(owner, "image", one.name)  # first: what is pinned is not swept
            await self.brought.note(one.name, one.target)

    async def _bring(self, site: Site, declared: Declared, wanted: Sequence[Wanted], access: Access) -> None:
        platform = declared.cache.options.platform
        text = str(platform) if platform is not None else None
        pulls = [self._pull(one, text, access) for one in wanted]
        try:
            async with asyncio.TaskGroup() as group:
                waiting = {group.create_task(pull.wait(), name="image of a cache") for pull in pulls}
                while waiting:
                    _, waiting = await asyncio.wait(waiting, timeout=TICK_SECONDS)
                    await self._tell(site, declared, wanted, pulls)
        except ExceptionGroup as errors:
            raise next(leaves(errors)) from None
        finally:
            for pull in pulls:
                pull.leave()

    def _pull(self, one: Wanted, platform: str | None, access: Access) -> Pull:
        if one.outlook is None:
            return self.images.pull(one.name, platform, access)
        return self.images.bring(one.outlook, platform, access)

    async def _tell(
        self, site: Site, declared: Declared, wanted: Sequence[Wanted], pulls: Sequence[Pull]
    ) -> None:
        done = progress(wanted, (pull.progress() for pull in pulls))
        await site.move(phases.advance(declared.cache, site.life.status, site.now, moved=done))

    async def _finished(self, site: Site, declared: Declared, wanted: Sequence[Wanted]) -> None:
        names = [one.name for one in wanted]
        for one in wanted:
            tag = tag_of(one.image)
            if tag is not None and not declared.managed and declared.cache.options.platform is None:
                await self.brought.note(tag, one.target)
                await self.images.name(tag, of=one.name)
                names.append(tag)
        await self._known(names)
        exact = tuple(one.status(self._size) for one in wanted)
        status = replace(site.life.status, images=exact)
        await site.move(phases.finish(declared.cache, status, site.now))

    async def _known(self, names: Sequence[str]) -> None:
        """A pod that comes as soon as the cache is Ready must find its images; a runtime that does not answer
        is not waited for, the images are here.
        """
        if self.settled is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_RUNTIME_SECONDS):
                await self.settled(*names)

    def _size(self, diff_id: Digest) -> int | None:
        layer = self.store.layer(diff_id)
        return None if layer is None else layer.tar_bytes


async def _each(items: Sequence[T], act: Callable[[T], Awaitable[U]]) -> list[U]:
    """``act`` on all of them at once; the first error if one fails."""

    async def one(item: T) -> U:
        return await act(item)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item), name="image of a cache") for item in items]
    except ExceptionGroup as errors:
        raise next(leaves(errors)) from None
    return [task.result() for task in tasks]
