"""A slow link: a network of this process's own in which loopback has the rate of a wire.

Client, daemon and registry share it, so that a server under test never listens on more than loopback. The
acknowledgements travel at the cost of the same rate; with loopback's packets of 64 KiB they are a
thousandth of it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from typing import Final

_CLONE_NEWNET: Final = 0x40000000


def enter(rate: str) -> None:
    """Leave the host's network for one whose loopback carries ``rate`` (as tc writes it: ``500mbit``).

    For this thread and every process it starts from now on; there is no way back.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"a network of our own: {os.strerror(number)}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    shape = ["rate", rate, "burst", "256kb", "latency", "50ms"]
    subprocess.run(["tc", "qdisc", "add", "dev", "lo", "root", "tbf", *shape], check=True)
