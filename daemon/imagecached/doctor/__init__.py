"""Is this host able to do it, and what to do if not.

Gathering facts (:mod:`facts`, which tries mounts in a folder that it removes again) is apart from judging
them (:mod:`judge`, pure). Needs no running daemon and changes nothing that stays.
"""

from __future__ import annotations

from imagecached.config import Config
from imagecached.doctor.facts import gather
from imagecached.doctor.judge import Finding, judge

__all__ = ["Finding", "examine"]


def examine(config: Config) -> list[Finding]:
    """Every check, in order of importance. Takes a fraction of a second, blocks: call it in a thread."""
    return judge(gather(config))
