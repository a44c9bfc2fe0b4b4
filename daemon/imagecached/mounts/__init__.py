"""Mounts: mount(2) and friends, the mount ladder, the kernel's table.

Knows nothing of images, the store or the registry. What is mounted must be seen by the container runtime, so
the process has to live in the host's mount namespace, or below a mount that is shared with it. A systemd unit
therefore sets none of the options that give it a namespace of its own (PrivateTmp, ProtectSystem,
ProtectHome, ReadOnlyPaths, PrivateMounts and their like: their mounts never reach the host, whatever
MountFlags says), and a container mounts the root with Bidirectional propagation.
"""

from imagecached.mounts.kernel import LADDER, Kernel, Method
from imagecached.mounts.mounter import Mounter

__all__ = ["LADDER", "Kernel", "Method", "Mounter"]
