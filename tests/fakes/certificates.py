"""Certificates for tests, made by the ``openssl`` command: an authority, a server, a client."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

_DAYS = "30"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key; ``both`` holds the two in one file."""

    certificate: Path
    key: Path
    both: Path


class Authority:
    """Signs certificates; everything lies in ``directory``."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self.certificate, self._key = directory / f"{name}.pem", directory / f"{name}.key"
        _openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                _DAYS,
            ),
            *("-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,keyCertSign", "-keyout", self._key, "-out", self.certificate),
        )

    def issue(self, name: str, subject_alternative: str = "IP:127.0.0.1") -> Pair:
        """A certificate for a server at this address, or for a client."""
        pair = Pair(*(self._directory / f"{name}.{suffix}" for suffix in ("pem", "key", "both.pem")))
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(
            f"subjectAltName={subject_alternative}\nbasicConstraints=CA:FALSE\n"
            "keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
            "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n"
        )
        _openssl(
            *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", pair.key, "-out", request),
        )
        _openssl(
            *(
                "x509",
                "-req",
                "-in",
                request,
                "-CA",
                self.certificate,
                "-CAkey",
                self._key,
                "-CAcreateserial",
            ),
            *("-days", _DAYS, "-extfile", extensions, "-out", pair.certificate),
        )
        pair.both.write_bytes(pair.certificate.read_bytes() + pair.key.read_bytes())
        return pair


def server_context(pair: Pair, *, clients_of: Authority | None = None) -> ssl.SSLContext:
    """What a server needs; with ``clients_of`` it talks only to clients that this authority knows."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients_of is not None:
        context.load_verify_locations(cafile=clients_of.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
