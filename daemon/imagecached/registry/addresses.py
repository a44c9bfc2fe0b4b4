"""Addresses that nobody may lead us to: link-local, metadata services, unspecified, multicast, loopback.

A registry chooses where its redirects and token realms point, so it could make this daemon, which often runs
with the node's identity, talk to services that trust the node. Literal addresses are judged before the
request; names are judged when they are resolved, by the same resolver call whose answer is connected to, so
that a name cannot change between check and use. Hosts the operator has named in the configuration may be
anywhere.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Place = tuple[str, int]  # host in lower case, port

# Services of cloud providers that answer for the node and lie outside the link-local ranges.
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOCALHOST: Final = "localhost"


class ForbiddenAddress(OSError):
    """A name leads only to addresses that it must not lead to."""


class GuardedResolver(AbstractResolver):
    """Resolves names and drops the addresses that :func:`refusal` names.

    ``configured`` hosts are the operator's word and may be anywhere; ``asked`` hosts come from references and
    may be on loopback, but not link-local.
    """

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner
        self.configured: set[Place] = set()
        self.asked: set[Place] = set()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """As the inner resolver; ForbiddenAddress when nothing allowed is left."""
        found = await self._inner.resolve(host, port, family)
        place = host.lower(), port
        if place in self.configured:
            return found
        loopback = place in self.asked or is_loopback(host)
        reasons = [refusal(result["host"], loopback=loopback) for result in found]
        allowed = [result for result, reason in zip(found, reasons, strict=True) if reason is None]
        if found and not allowed:
            raise ForbiddenAddress(f"{host} leads to {found[0]['host']}, {reasons[0]}")
        return allowed

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


def refusal(address: str, *, loopback: bool) -> str | None:
    """Why nobody may lead us to this literal address; None if it is fine or no literal.

    ``loopback`` says whether loopback addresses are fine.
    """
    parsed = _parse(address)
    if parsed is None:
        return None
    for judged in (parsed, *_embedded(parsed)):
        reason = _judge(judged, loopback=loopback)
        if reason is not None:
            return reason
    return None


def is_loopback(host: str) -> bool:
    """Does the name or literal itself say that it is this machine?"""
    if host.lower() == _LOCALHOST or host.lower().endswith(f".{_LOCALHOST}"):
        return True
    parsed = _parse(host)
    return parsed is not None and parsed.is_loopback


def _parse(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None


def _embedded(address: Address) -> tuple[Address, ...]:
    """IPv4 addresses that an IPv6 address is routed to by a translator or tunnel."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(each for each in found if each is not None)


def _judge(address: Address, *, loopback: bool) -> str | None:
    if address in _METADATA:
        return "a metadata service"
    if address.is_link_local:
        return "a link-local address"
    if address.is_unspecified or (address.version == 4 and address in ipaddress.IPv4Network("0.0.0.0/8")):
        return "an unspecified address"
    if address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        return "a multicast address"
    if address.is_loopback and not loopback:
        return "a loopback address"
    return None
