"""The webhook's certificates over the years: steps of renewal, overlap of authorities, what is unusable."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest

from imagecached.errors import InvalidInput
from imagecached.kube.webhook.authority import (
    AUTHORITY_LIFE,
    OVERLAP,
    SERVING_LIFE,
    Credentials,
    fresh,
    parse_credentials,
    renewed,
)
from imagecached.kube.webhook.certificates import load_into

NOW = datetime(2026, 11, 25, tzinfo=UTC)
NAMES = ("imagecached-webhook.imagecached-system.svc", "localhost", "127.0.0.1")
MADE = fresh(NAMES, NOW)
DAY = timedelta(days=1)


def verified(credentials: Credentials, bundle: bytes, name: str) -> str:
    """What a client that believes ``bundle`` says of a server called ``name``; empty when all is well."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.create_default_context(cadata=bundle.decode())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    load_into(server, credentials)
    ends = (
        client.wrap_bio(incoming, outgoing, server_hostname=name),
        server.wrap_bio(outgoing, incoming, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    return ""


def test_round_trip() -> None:
    """What is written into the Secret is read as the same certificates and keys."""
    again = parse_credentials(MADE.documents())
    assert again.documents() == MADE.documents()
    assert set(MADE.documents()) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_knows_the_authority(name: str) -> None:
    """Every name and address of the webhook passes the checks of a real TLS client; others do not."""
    now = fresh(NAMES, datetime.now(UTC))
    assert verified(now, now.bundle, name) == ""
    assert "mismatch" in verified(now, now.bundle, "elsewhere.svc")
    assert verified(now, fresh(NAMES, NOW).bundle, name) != ""


def test_nothing_to_do() -> None:
    """As long as nothing is due the very same value comes back, and nothing is written."""
    for days in (0, 1, 59):
        assert renewed(MADE, NAMES, NOW + days * DAY) is MADE
    assert renewed(MADE, NAMES[:1], NOW) is MADE


def test_the_serving_certificate_is_renewed_early() -> None:
    """At two thirds of its life, by the same authority: clients notice nothing."""
    later = NOW + SERVING_LIFE * 2 / 3 + DAY
    again = renewed(MADE, NAMES, later)
    assert again.bundle == MADE.bundle
    assert again.chain != MADE.chain
    assert again.serving.not_valid_after_utc == later + SERVING_LIFE
    assert renewed(again, NAMES, later) is again


def test_more_names() -> None:
    """A name that is missing is added at once; those that another version wants stay."""
    again = renewed(MADE, ("localhost", "10.0.0.1"), NOW)
    assert again.chain != MADE.chain
    assert renewed(again, NAMES, NOW) is again
    assert renewed(again, ("10.0.0.1",), NOW) is again


def test_a_new_authority_is_published_before_it_is_used() -> None:
    """Old and new are both believed for an hour on either side of the change; then the old one goes."""
    due = NOW + AUTHORITY_LIFE * 2 / 3 + DAY
    serving = renewed(MADE, NAMES, due - 2 * DAY)
    published = renewed(serving, NAMES, due)
    assert len(published.authorities) == 2
    assert published.chain == serving.chain
    assert published.authorities[1] == serving.authorities[0]
    assert renewed(published, NAMES, due + OVERLAP - timedelta(minutes=1)) is published
    used = renewed(published, NAMES, due + OVERLAP)
    assert len(used.authorities) == 2
    assert used.authorities[0].signed(used.serving)
    assert renewed(used, NAMES, due + 2 * OVERLAP - timedelta(minutes=1)) is used
    alone = renewed(used, NAMES, due + 2 * OVERLAP)
    assert alone.authorities == used.authorities[:1]
    assert alone.chain == used.chain


def test_steps_from_any_neglect() -> None:
    """However long nobody looked, a few steps lead to certificates that are valid."""
    now, known = NOW + timedelta(days=5000), MADE
    for _ in range(6):
        known = parse_credentials(renewed(known, NAMES, now).documents())
        now += OVERLAP
    assert renewed(known, NAMES, now).documents() == known.documents()
    assert len(known.authorities) == 1
    assert known.authorities[0].signed(known.serving)
    assert known.serving.not_valid_after_utc > now


OTHER = fresh(NAMES, NOW).documents()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ca.crt": None}, "certificates cannot be read"),
        ({"tls.key": None}, "certificates cannot be read"),
        ({"ca.crt": b""}, "certificates cannot be read"),
        (
            {"tls.crt": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
            "certificates cannot be read",
        ),
        ({"ca.key": b"nonsense"}, "certificates cannot be read"),
        ({"ca.key": OTHER["ca.key"]}, "ca.key is not the key of the first certificate in ca.crt"),
        ({"tls.key": OTHER["tls.key"]}, "tls.key is not the key of tls.crt"),
        (
            {"tls.crt": OTHER["tls.crt"], "tls.key": OTHER["tls.key"]},
            "no certificate in ca.crt has signed tls.crt",
        ),
    ],
)
def test_what_cannot_be_used(change: dict[str, bytes | None], message: str) -> None:
    """A Secret that somebody broke is refused by what does not fit, and never half used."""
    data = {name: text for name, text in {**MADE.documents(), **change}.items() if text is not None}
    with pytest.raises(InvalidInput) as caught:
        parse_credentials(data)
    assert str(caught.value).startswith(message)
    assert "PRIVATE" not in str(caught.value)
