"""Keeps the serving certificate in its Secret and in the server's TLS context, its authority in caBundle.

Every replica does this by itself: each step is written with the Secret's resourceVersion, so that two that
want the same step do it once, and all read what was written. Order of a step: Secret, then ``caBundle``, then
what this replica serves; a replica never serves a certificate whose authority is not published yet.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from imagecached import aio
from imagecached.errors import AlreadyExists, FailedPrecondition, ImagecachedError, InvalidInput, NotFound
from imagecached.kube.client import Cluster, Kind, kinds
from imagecached.kube.webhook.authority import Credentials, fresh, parse_credentials, renewed

log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 60.0
_RETRY_SECONDS: Final = 5.0
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are in the cluster, and under which ``names`` the webhook is reached.

    ``configurations``: the webhook configurations whose ``caBundle`` is ours to keep; one that does not exist
    is not made.
    """

    namespace: str = "imagecached-system"
    secret: str = "imagecached-webhook-tls"  # noqa: S105  a Secret's name, not its content
    service: str = "imagecached-webhook"
    extra_names: tuple[str, ...] = ("localhost", "127.0.0.1")
    configurations: tuple[tuple[Kind, str], ...] = (
        (kinds.MUTATING_WEBHOOKS, "imagecached"),
        (kinds.VALIDATING_WEBHOOKS, "imagecached"),
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Every name a client may check the certificate for."""
        inside = f"{self.service}.{self.namespace}"
        return inside, f"{inside}.svc", f"{inside}.svc.cluster.local", *self.extra_names


class Certificates:
    """:attr:`context` serves the newest certificate; ``problem`` says why there is none yet, or None."""

    def __init__(
        self,
        cluster: Cluster,
        place: Place,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._place, self._clock = cluster, place, clock
        self._served: Credentials | None = None
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.problem: str | None = "no certificate yet"
        self.ready = asyncio.Event()

    @property
    def served(self) -> bytes:
        """The certificate that new connections get, as PEM; empty if there is none."""
        return b"" if self._served is None else self._served.chain

    async def run(self) -> None:
        """Look after the certificates until cancelled."""
        while True:
            try:
                await self.look()
                pause = _LOOK_SECONDS
            except ImagecachedError as error:
                if self._served is None:
                    self.problem = str(error)
                log.warning("certificates of the webhook", extra={"error": str(error)})
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Take the steps that are due now, publish, and serve what the Secret holds."""
        credentials = await self._current()
        await self._publish(credentials.bundle)
        if self._served is None or credentials.chain != self._served.chain:
            await aio.finish(load_into, self.context, credentials)
            log.info(
                "serving certificate loaded", extra={"until": str(credentials.serving.not_valid_after_utc)}
            )
        self._served = credentials
        self.problem = None
        self.ready.set()

    async def _current(self) -> Credentials:
        """What the Secret holds once every step that is due has been written."""
        for _ in range(_ATTEMPTS):
            secret = await self._secret()
            known = None if secret is None else _read(secret)
            wanted = await aio.finish(self._wanted, known)
            if known is not None and wanted is known:
                return known
            try:
                await self._write(secret, wanted)
            except (AlreadyExists, FailedPrecondition):
                continue  # another replica was faster: read what it wrote
        raise FailedPrecondition(f"Secret {self._place.secret} is changed by somebody else all the time")

    def _wanted(self, known: Credentials | None) -> Credentials:
        names = self._place.names
        return fresh(names, self._clock()) if known is None else renewed(known, names, self._clock())

    async def _secret(self) -> dict[str, Any] | None:
        try:
            return await self._cluster.get(kinds.SECRETS, self._place.secret, namespace=self._place.namespace)
        except NotFound:
            return None

    async def _write(self, secret: Mapping[str, Any] | None, credentials: Credentials) -> None:
        place = self._place
        data = {name: base64.b64encode(text).decode() for name, text in credentials.documents().items()}
        if secret is None:
            document = kinds.SECRETS.named(place.secret, place.namespace)
            document |= {"type": "kubernetes.io/tls", "data": data}
            await self._cluster.create(kinds.SECRETS, document, namespace=place.namespace)
        else:
            version = secret["metadata"]["resourceVersion"]
            change = {"metadata": {"resourceVersion": version}, "data": data}
            await self._cluster.patch(kinds.SECRETS, place.secret, change, namespace=place.namespace)

    async def _publish(self, bundle: bytes) -> None:
        text = base64.b64encode(bundle).decode()
        for kind, name in self._place.configurations:
            try:
                found = await self._cluster.get(kind, name)
            except NotFound:
                continue
            webhooks = with_bundle(found.get("webhooks") or (), text)
            if webhooks is not None:
                version = found["metadata"]["resourceVersion"]
                change = {"metadata": {"resourceVersion": version}, "webhooks": webhooks}
                await self._cluster.patch(kind, name, change)


def with_bundle(webhooks: Sequence[Mapping[str, Any]], bundle: str) -> list[dict[str, Any]] | None:
    """The webhooks with this ``caBundle`` each, by Service or by URL; None if they have it already."""
    if all((webhook.get("clientConfig") or {}).get("caBundle") == bundle for webhook in webhooks):
        return None
    return [
        {**webhook, "clientConfig": {**(webhook.get("clientConfig") or {}), "caBundle": bundle}}
        for webhook in webhooks
    ]


def _read(secret: Mapping[str, Any]) -> Credentials | None:
    """What is in the Secret; what cannot be used is replaced, as nobody could use it."""
    try:
        data = {name: base64.b64decode(text) for name, text in (secret.get("data") or {}).items()}
        return parse_credentials(data)
    except (InvalidInput, binascii.Error, ValueError) as error:
        log.warning("certificates of the webhook are made anew", extra={"error": str(error)})
        return None


def load_into(context: ssl.SSLContext, credentials: Credentials) -> None:
    """New connections get this certificate, those that are open keep theirs.

    OpenSSL takes file names only: they are of memory, so that the key is on no disk.
    """
    files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("chain", "key")]
    try:
        for file, text in zip(files, (credentials.chain, credentials.private_key), strict=True):
            os.write(file, text)
        context.load_cert_chain(*(f"/proc/self/fd/{file}" for file in files))
    finally:
        for file in files:
            os.close(file)
