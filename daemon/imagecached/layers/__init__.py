"""Layers: a compressed blob becomes one file that the kernel mounts, and is read back."""
