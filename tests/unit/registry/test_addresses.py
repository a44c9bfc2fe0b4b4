"""Where nobody may lead us, by literal address and by name."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from imagecached.registry.addresses import ForbiddenAddress, GuardedResolver, is_loopback, refusal


class Names(AbstractResolver):
    """A resolver that knows these names."""

    def __init__(self, **names: list[str]) -> None:
        self.names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.closed = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of the name."""
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in self.names[host]
        ]

    async def close(self) -> None:
        """Nothing to close."""
        self.closed = True


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("169.254.169.254", "link-local"),
        ("169.254.0.1", "link-local"),
        ("[fe80::1]", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:a9fe:a9fe::", "link-local"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "multicast"),
        ("ff02::1", "multicast"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
    ],
)
def test_refused(address: str, reason: str) -> None:
    """Also where an IPv4 address hides in an IPv6 one."""
    assert reason in (refusal(address, loopback=False) or "")


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "192.168.1.1", "100.64.0.1", "8.8.8.8", "2001:db8::1", "fd00::1"]
)
def test_allowed(address: str) -> None:
    """Private networks are where private registries keep their blobs."""
    assert refusal(address, loopback=False) is None


def test_loopback_at_home() -> None:
    """A registry on this machine may lead to this machine, but not to a metadata service."""
    assert refusal("127.0.0.1", loopback=True) is None
    assert refusal("169.254.169.254", loopback=True) is not None
    assert refusal("registry.example.com", loopback=False) is None
    assert [
        is_loopback(host) for host in ("localhost", "a.LOCALHOST", "127.1.2.3", "[::1]", "localhost.com")
    ] == [
        True,
        True,
        True,
        True,
        False,
    ]


async def test_names_are_judged_by_their_addresses() -> None:
    """Only allowed addresses are given out, and a name without any is refused."""
    resolver = GuardedResolver(Names(mixed=["169.254.169.254", "10.0.0.1"], evil=["169.254.169.254", "::1"]))
    assert [found["host"] for found in await resolver.resolve("mixed", 443)] == ["10.0.0.1"]
    with pytest.raises(ForbiddenAddress, match=r"evil leads to 169.254.169.254, a link-local address"):
        await resolver.resolve("evil", 443)


async def test_trust_grows_with_the_operators_word() -> None:
    """A host named by a reference may be on loopback; one named in the configuration may be anywhere."""
    resolver = GuardedResolver(Names(home=["127.0.0.1"], link=["169.254.1.1"]))
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("home")
    resolver.asked |= {("home", 5000), ("link", 5000)}
    assert await resolver.resolve("home", 5000)
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("home", 5001)
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("link", 5000)
    resolver.configured.add(("link", 5000))
    assert await resolver.resolve("link", 5000)
    with pytest.raises(ForbiddenAddress):
        await resolver.resolve("link", 10250)


async def test_closes_what_it_wraps() -> None:
    """The inner resolver is closed too."""
    names = Names()
    await GuardedResolver(names).close()
    assert names.closed
