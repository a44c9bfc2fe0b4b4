"""The webhook's own certificate authority and serving certificate: made, judged and replaced, as values.

The API server believes the authorities in ``caBundle``. A new authority therefore stands there for a while
before the first certificate of it is served, and an old one stays until none of its certificates is served
any more: no connection fails while certificates change. All of it is one value, kept in one Secret.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from imagecached.errors import InvalidInput

AUTHORITY_LIFE: Final = timedelta(days=3650)
SERVING_LIFE: Final = timedelta(days=90)
OVERLAP: Final = timedelta(hours=1)
"""How long a new authority is in ``caBundle`` before it is used, and an old one after it was used last."""
_BACKDATED: Final = timedelta(minutes=10)  # clocks of API servers may be behind
_MAX_AUTHORITIES: Final = 4
_FILES: Final = ("ca.crt", "ca.key", "tls.crt", "tls.key")


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that signs, and since when it does."""

    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def begins(self) -> datetime:
        """When it was made."""
        return self.certificate.not_valid_before_utc + _BACKDATED

    def signed(self, certificate: x509.Certificate) -> bool:
        """Did this authority sign ``certificate``?"""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


@dataclass(frozen=True, slots=True)
class Credentials:
    """``authorities``: newest first; ``key`` is the newest one's. ``serving`` is signed by one of them."""

    authorities: tuple[Authority, ...]
    key: ec.EllipticCurvePrivateKey
    serving: x509.Certificate
    serving_key: ec.EllipticCurvePrivateKey

    @property
    def bundle(self) -> bytes:
        """For ``caBundle``: all authorities that may have signed what some replica serves."""
        return b"".join(authority.pem for authority in self.authorities)

    @property
    def chain(self) -> bytes:
        """The serving certificate, as PEM."""
        return self.serving.public_bytes(serialization.Encoding.PEM)

    @property
    def private_key(self) -> bytes:
        """The serving certificate's key, as PEM."""
        return _key_pem(self.serving_key)

    def documents(self) -> dict[str, bytes]:
        """The Secret's data."""
        return dict(zip(_FILES, (self.bundle, _key_pem(self.key), self.chain, self.private_key), strict=True))


def parse_credentials(data: Mapping[str, bytes]) -> Credentials:
    """What :meth:`Credentials.documents` wrote. InvalidInput: some of it is missing, broken or unfitting."""
    try:
        bundle, key, serving, serving_key = (data[name] for name in _FILES)
        certificates = x509.load_pem_x509_certificates(bundle)
        found = Credentials(
            tuple(Authority(certificate) for certificate in certificates),
            _key(key),
            x509.load_pem_x509_certificate(serving),
            _key(serving_key),
        )
    except (KeyError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"certificates cannot be read: {error}") from error
    if len(certificates) > _MAX_AUTHORITIES or not _belongs(found.authorities[0].certificate, found.key):
        raise InvalidInput("ca.key is not the key of the first certificate in ca.crt")
    if not _belongs(found.serving, found.serving_key):
        raise InvalidInput("tls.key is not the key of tls.crt")
    if not any(authority.signed(found.serving) for authority in found.authorities):
        raise InvalidInput("no certificate in ca.crt has signed tls.crt")
    return found


def fresh(names: Sequence[str], now: datetime) -> Credentials:
    """A new authority and a serving certificate of it for ``names`` (DNS names and addresses)."""
    authority, key = _authority(now)
    serving, serving_key = _serving(names, authority, key, now)
    return Credentials((authority,), key, serving, serving_key)


def renewed(known: Credentials, names: Sequence[str], now: datetime) -> Credentials:
    """``known`` with the one next step taken that ``names`` and the time ask for; itself if there is none.

    Steps: a new authority at two thirds of the present one's life; a new serving certificate at two thirds of
    its life, for other names, or once a new authority has been published long enough; old authorities go.
    """
    newest = known.authorities[0]
    if now >= _due(newest.certificate):
        authority, key = _authority(now)
        return replace(known, authorities=(authority, *known.authorities), key=key)
    published = now >= newest.begins + OVERLAP or newest.signed(known.serving)
    outdated = not newest.signed(known.serving) or now >= _due(known.serving)
    served = _names(known.serving)
    if (published and outdated) or not set(names) <= set(served):
        # Names are only added: during an upgrade two versions of us may want different ones.
        serving, serving_key = _serving([*served, *names], newest, known.key, now)
        return replace(known, serving=serving, serving_key=serving_key)
    needed = tuple(_still_needed(known, now))
    return known if len(needed) == len(known.authorities) else replace(known, authorities=needed)


def _still_needed(known: Credentials, now: datetime) -> Iterator[Authority]:
    newest = known.authorities[0]
    since = known.serving.not_valid_before_utc + _BACKDATED
    retired = newest.signed(known.serving) and now >= since + OVERLAP
    for authority in known.authorities:
        expired = now > authority.certificate.not_valid_after_utc
        if authority is newest or (not retired and not expired):
            yield authority


def _due(certificate: x509.Certificate) -> datetime:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins + (ends - begins) * 2 / 3


def _authority(now: datetime) -> tuple[Authority, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    title = f"imagecached webhook {now:%Y-%m-%dT%H:%M:%SZ}"
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(name, name, key, now, AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return Authority(builder.sign(key, hashes.SHA256())), key


def _serving(
    names: Sequence[str], authority: Authority, key: ec.EllipticCurvePrivateKey, now: datetime
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    serving_key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "imagecached webhook")])
    builder = _builder(subject, authority.certificate.subject, serving_key, now, SERVING_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_alternative(name) for name in sorted(set(names))]), critical=False
    )
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    signer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False
    )
    return builder.sign(key, hashes.SHA256()), serving_key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATED)
        .not_valid_after(now.astimezone(UTC) + life)
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> list[str]:
    """What the certificate is for, as given to :func:`_serving`."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    dns = names.get_values_for_type(x509.DNSName)
    return sorted([*dns, *(str(address) for address in names.get_values_for_type(x509.IPAddress))])


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a key that is not for an elliptic curve")  # noqa: TRY004  what a PEM holds is a value
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _belongs(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> bool:
    return certificate.public_key() == key.public_key()
