"""kernel: versions as distributions write them, faults as kernel-support tells them."""

from __future__ import annotations

import pytest

from imagecached.mounts.kernel import FAULTS, LADDER, Kernel, Method, Version


@pytest.mark.parametrize(
    ("release", "build", "signature", "expected"),
    [
        ("6.18.44-fc-v595", "#1 SMP PREEMPT_DYNAMIC", "", (6, 18, 44)),
        ("6.12.107+deb13-amd64", "#1 SMP Debian 6.12.107-1 (2026-10-02)", "", (6, 12, 107)),
        ("6.1.0-56-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-1 (2026-09-11)", "", (6, 1, 192)),
        ("6.8.0-45-generic", "#45-Ubuntu SMP", "Ubuntu 6.8.0-45.45-generic 6.8.12\n", (6, 8, 12)),
        ("6.12.0-55.9.1.el10_0.x86_64", "#1 SMP", "", (6, 12, 0)),
        ("7.2-rc1", "", "", (7, 2, 0)),
        ("6.6.87.2-microsoft-standard-WSL2", "", "", (6, 6, 87)),
        ("strange", "", "", (0, 0, 0)),
    ],
)
def test_the_upstream_version(release: str, build: str, signature: str, expected: Version) -> None:
    """Debian and Ubuntu tell it beside the release, others in it."""
    assert Kernel.parse(release, build, signature).version == expected


@pytest.mark.parametrize(
    ("release", "barred"),
    [
        ("6.1.192", ""),
        ("6.11.11", ""),
        ("6.12.0", "directio buffered"),
        ("6.12.1", "directio buffered"),
        ("6.12.2", "directio"),
        ("6.12.62", "directio"),
        ("6.12.64", "directio buffered"),
        ("6.12.66", "directio"),
        ("6.12.71", "directio"),
        ("6.12.72", ""),
        ("6.14.0-33-generic", "directio"),
        ("6.17.13", "directio buffered"),
        ("6.18.1", "directio"),
        ("6.18.5", "directio buffered"),
        ("6.18.10", "directio"),
        ("6.18.11", ""),
        ("6.19.0", "directio"),
        ("6.19.1", ""),
        ("7.2.13", ""),
    ],
)
def test_known_faults(release: str, barred: str) -> None:
    """The methods that must not be tried, at the edges of every range."""
    assert set(Kernel.parse(release).faults()) == {Method(name) for name in barred.split()}


def test_the_loop_device_is_never_barred() -> None:
    """Some way must always be left to try."""
    assert all(Method.LOOP not in fault.methods for fault in FAULTS)
    assert LADDER == (Method.DIRECTIO, Method.BUFFERED, Method.LOOP)


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("5.15.0", False),
        ("6.1.112", False),
        ("6.1.113", True),
        ("6.2.0", False),
        ("6.3.13", False),
        ("6.4.0", True),
    ],
)
def test_small_blocks(release: str, expected: bool) -> None:
    """512-byte blocks came with 6.4, and to the 6.1 line with 6.1.113."""
    assert Kernel.parse(release).has_small_blocks is expected


def test_the_running_kernel_is_read() -> None:
    """Whatever it is, it has a version."""
    assert Kernel.running().version > (3, 0, 0)
