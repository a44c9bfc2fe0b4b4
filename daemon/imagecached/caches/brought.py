"""Which names of images are in the store because an ImageCache brought them, and not because somebody pulled.

Rows of the shelf, written before the image comes, so that no crash makes a name nobody's. A name goes with
the last cache that needs it; a tag that somebody has moved since is theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec

from imagecached.errors import FailedPrecondition, NotFound
from imagecached.oci.digest import Digest
from imagecached.oci.reference import Reference
from imagecached.store import Store

log = logging.getLogger(__name__)

_KIND: Final = "brought"


class _Row(msgspec.Struct):
    digest: str


class Brought:
    """The names. ``forget`` is told of each that has gone: whoever else knows it lets go, too."""

    def __init__(self, store: Store, forget: Callable[[str], Awaitable[None]] | None = None) -> None:
        self._store = store
        self._forget = forget

    async def note(self, name: str, target: Digest) -> None:
        """``name`` will stand for ``target``; if it is here already and not noted, it is somebody else's."""
        noted = self._store.shelf.find(_KIND, name)
        document = msgspec.json.encode(_Row(str(target)))
        if noted == document or (noted is None and self._store.image(name) is not None):
            return
        await self._store.shelf.put(_KIND, name, document)

    async def sweep(self, needed: Collection[str]) -> int:
        """Forget the names that no cache needs; how many."""
        gone = 0
        for name, document in self._store.shelf.every(_KIND).items():
            if name in needed:
                continue
            gone += await self._drop(name, msgspec.json.decode(document, type=_Row).digest)
        return gone

    async def _drop(self, name: str, target: str) -> bool:
        record = self._store.image(name)
        ours = record is not None and (
            Reference.parse(name).digest is not None or record.target.digest == target
        )
        try:
            if ours:
                await self._store.remove_image(name)
                if self._forget is not None:
                    await self._forget(name)
        except NotFound:
            pass  # somebody was quicker
        except FailedPrecondition as error:
            log.info("image stays", extra={"image": name, "reason": str(error)})
            return False
        await self._store.shelf.remove(_KIND, name)
        return ours
