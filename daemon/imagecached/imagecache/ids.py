"""Names that are derived: a cache's id, its rank in a rollout, the name of an automatic cache. Arithmetic.

Invariant: the same input gives the same name on every machine and in every version; objects carry them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

ID_PREFIX: Final = "imc-"
AUTOMATIC_PREFIX: Final = "auto-create-for-"
EVERYBODY: Final = 1 << 16
"""A rollout window as wide as this has every node in it."""

_LENGTH: Final = 20
_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID: Final = re.compile(rf"imc-[a-z0-9]{{{_LENGTH}}}")


@lru_cache(maxsize=4096)  # the controller asks for it at every node
def cache_id(uid: str) -> str:
    """``imc-`` and 20 of ``[a-z0-9]``, for the object with this uid: the same for the object's whole life."""
    return ID_PREFIX + _letters("id", uid)


def is_cache_id(text: str) -> bool:
    """Has ``text`` the form of a cache's id?"""
    return _ID.fullmatch(text) is not None


def uid_of_name(name: str) -> str:
    """The uid of a cache that no API server gave one: from its name, and never a uid of Kubernetes."""
    return f"name/{name}"


def rollout_rank(uid: str, generation: int, node: str) -> int:
    """0 … 65535: a node may begin to fetch when its rank is below the rollout window.

    Every generation shuffles the nodes anew, so that no node is always first to find a broken image.
    """
    digest = hashlib.sha256("\0".join(("rollout", uid, str(generation), node)).encode()).digest()
    return int.from_bytes(digest[:2], "big")


def automatic_name(images: Iterable[str]) -> str:
    """The automatic cache's name for a set of canonical references, in whatever order and number."""
    return AUTOMATIC_PREFIX + _letters("images", *sorted(set(images)))


def build_key(*parts: str) -> str:
    """A short name for what a generation is built from: another one means another build."""
    return _letters("build", *parts)


def _letters(*parts: str) -> str:
    number = int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest(), "big")
    letters = []
    for _ in range(_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)
