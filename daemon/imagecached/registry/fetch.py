"""A blob as a stream of bytes in order: resumed where it broke, from the next server if need be.

Digests are checked by whoever consumes the bytes; since blobs are named by digest, a stream may begin at a
mirror and end at the registry. Invariant: never yields a byte beyond the range that was asked for, and each
byte once.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import aiohttp

from imagecached.errors import Corrupt, ImagecachedError, Unavailable
from imagecached.oci.documents import Descriptor
from imagecached.registry.answers import redacted
from imagecached.registry.endpoints import Endpoint
from imagecached.registry.exchange import Exchange
from imagecached.registry.resolve import OnSource

PROGRESS_BYTES: Final = 1 << 20  # a break after this much more was read is a new failure, not the same again
_PARTIAL: Final = 206
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)


class WholeOnly(Exception):
    """The server ignores Range where the caller needs it honoured."""


@dataclass(slots=True)
class BlobReader:
    """Reads byte ranges of ``blob``; the last of ``endpoints`` is asked with full patience.

    An endpoint that could not give one range is not asked for others.
    """

    exchange: Exchange
    endpoints: tuple[Endpoint, ...]
    repository: str
    blob: Descriptor
    on_source: OnSource

    async def read(self, start: int, stop: int, *, ranged: bool = False) -> AsyncGenerator[bytes, None]:
        """Bytes ``start`` to ``stop`` (exclusive). ``ranged``: WholeOnly if a server ignores Range.

        Unavailable: broken, stalled or short after all attempts. Corrupt: of another size than the descriptor
        says. NotFound and AccessDenied as the last server says.
        """
        turns = _Turns(self)
        position = mark = start
        while position < stop:
            endpoint = turns.endpoint
            try:
                async with aclosing(self._once(endpoint, position, stop, ranged=ranged)) as chunks:
                    async for data in chunks:
                        position += len(data)
                        self.on_source(endpoint.source, len(data))
                        yield data
                if position < stop:
                    raise Unavailable(f"{self._what(endpoint)}: ended at byte {position} of {self.blob.size}")
            except ImagecachedError as error:
                if position >= stop and isinstance(error, Unavailable):
                    return  # the connection broke when all was said
                await turns.after(error, progress=position - mark)
                mark = position

    async def _once(
        self, endpoint: Endpoint, start: int, stop: int, *, ranged: bool
    ) -> AsyncGenerator[bytes, None]:
        """What one answer brings of ``start`` to ``stop``, at most."""
        whole = start == 0 and stop == self.blob.size and not ranged
        headers = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        path = ("blobs", self.blob.digest)
        async with self.exchange.get(endpoint, self.repository, path, headers) as response:
            skip = self._skip(response, endpoint, start, ranged=ranged)
            wanted = stop - start
            async with aclosing(self.exchange.body(response)) as body:
                async for data in body:
                    fresh = data[skip:] if skip else data
                    skip = max(0, skip - len(data))
                    if len(fresh) > wanted:
                        raise Corrupt(f"{self._what(endpoint)}: sends more than its {self.blob.size} bytes")
                    wanted -= len(fresh)
                    if fresh:
                        yield fresh

    def _skip(self, response: aiohttp.ClientResponse, endpoint: Endpoint, start: int, *, ranged: bool) -> int:
        """How many bytes to drop from the beginning of this answer, once it is known to be about our blob."""
        size = self.blob.size
        if response.status != _PARTIAL:
            if ranged:
                raise WholeOnly
            if response.content_length not in (None, size):
                raise Corrupt(f"{self._what(endpoint)}: has {response.content_length} bytes, not {size}")
            return start
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != start:
            raise Corrupt(f"{self._what(endpoint)}: answers another range than the one asked for")
        if match[3] not in ("*", str(size)):
            raise Corrupt(f"{self._what(endpoint)}: has {match[3]} bytes, not {size}")
        return 0

    def _what(self, endpoint: Endpoint) -> str:
        return f"blob {redacted(endpoint.url(self.repository, 'blobs', self.blob.digest))}"


class _Turns:
    """Whom to ask next. A mirror that broke off in the middle of a body gets one more turn."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self._exchange = reader.exchange
        self._endpoints = list(reader.exchange.awake(reader.endpoints))
        self._failures = 0

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoints[0]

    async def after(self, error: ImagecachedError, *, progress: int) -> None:
        """Take note of a failure after ``progress`` bytes; return when to ask again or raise it."""
        last = len(self._endpoints) == 1
        if progress >= PROGRESS_BYTES:
            self._failures = 0
        self._failures += 1
        most = self._exchange.patience.attempts if last else 1 + (progress > 0)
        if isinstance(error, Unavailable) and self._failures < most:
            await self._exchange.pause(error, self._failures - 1)
        elif last:
            raise error
        else:
            self._next(error)

    def _next(self, error: ImagecachedError) -> None:
        failed = self._endpoints.pop(0)
        self._failures = 0
        self._exchange.passed_over(failed, error)
        self._reader.endpoints = tuple(each for each in self._reader.endpoints if each != failed)
