"""containerd's configuration: what must stand in it for pods to start from our snapshots.

:mod:`version` knows what each containerd understands, :mod:`written` reads the files that a node has,
:mod:`settings` decides what to add to them (pure), :mod:`document` prints it as TOML (pure).

Invariants: nothing that the node's own files say is lost. Light, because the client prints from here.
"""

from __future__ import annotations

from imagecached.dropin.settings import NAME, Mode, Places, explained
from imagecached.dropin.version import Version
from imagecached.dropin.written import Written, read

__all__ = ["NAME", "Mode", "Places", "Version", "Written", "explained", "read"]
