"""Content digests (OCI image-spec, descriptor.md § Digests)."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from imagecached.errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    from hashlib import _Hash

_HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)")


class Digest(str):
    """``algorithm:hex`` in its canonical form; a ``str``, so it compares and serialises as one.

    Construct only through :meth:`parse` or :meth:`of`; both give validated values.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Checked digest, or InvalidInput. Only sha256 and sha512, lower-case hex of the right length."""
        match = _DIGEST.fullmatch(text)
        if match is None or len(match[2]) != _HEX_LENGTH[match[1]]:
            raise InvalidInput(f"not a sha256 or sha512 digest: {text[:150]!r}")
        return cls(text)

    @classmethod
    def of(cls, data: bytes, algorithm: str = "sha256") -> Digest:
        """The digest of ``data``."""
        return cls(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    def hasher(self) -> _Hash:
        """A fresh hashlib object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def verify(self, data: bytes, what: str) -> bytes:
        """Return ``data`` if it has this digest, else raise Corrupt naming ``what``."""
        found = Digest.of(data, self.algorithm)
        if found != self:
            raise Corrupt(f"{what}: expected digest {self}, found {found}")
        return data
