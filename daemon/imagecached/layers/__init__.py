"""Layers: a compressed blob becomes one file that the kernel mounts, and is read back.

Import names from the modules; nothing is imported here, so that a reader does not pay for the writer.
"""
