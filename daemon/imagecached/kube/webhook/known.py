"""The caches as the API server has them → the candidates that pods are matched with, kept current.

Fed by a reflector, on the event loop; a decision between two changes sees all of the one and nothing of the
other. An object that cannot be read is no candidate, and is logged once per version.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from imagecached.errors import InvalidInput
from imagecached.imagecache import Candidate, Candidates, parse_object, parse_status
from imagecached.kube.client import Change

log = logging.getLogger(__name__)


class KnownCaches:
    """:attr:`candidates` is what is known now."""

    def __init__(self) -> None:
        self.candidates = Candidates()

    def on_change(self, change: Change) -> None:
        """An ImageCache came, changed or went."""
        name = change.key[1]
        candidate = None if change.new is None else _candidate(name, change.new)
        if candidate is None:
            self.candidates.remove(name)
        else:
            self.candidates.put(candidate)


def _candidate(name: str, document: Mapping[str, Any]) -> Candidate | None:
    if document.get("metadata", {}).get("deletionTimestamp"):
        return None
    try:
        return Candidate.of(parse_object(document), parse_status(document.get("status")))
    except InvalidInput as error:
        log.warning("image cache cannot be used", extra={"cache": name, "error": str(error)})
        return None
