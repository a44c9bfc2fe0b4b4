"""The proxy environment, as Go reads it."""

from __future__ import annotations

import pytest
from yarl import URL

from imagecached.errors import InvalidInput
from imagecached.registry.proxies import Proxies

PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(
    ("exception", "url", "direct"),
    [
        ("*", "https://a.com", True),
        ("a.com", "https://a.com", True),
        ("a.com", "https://b.a.com", True),
        ("a.com", "https://ba.com", False),
        (".a.com", "https://b.a.com", True),
        (".a.com", "https://a.com", False),
        ("*.a.com", "https://b.a.com", True),
        ("A.com", "https://a.COM", True),
        ("a.com:443", "https://a.com", True),
        ("a.com:443", "https://a.com:8443", False),
        ("10.0.0.0/8", "https://10.1.2.3:5000", True),
        ("10.0.0.0/8", "https://11.1.2.3", False),
        ("10.0.0.0/8", "https://name.com", False),
        ("10.1.2.3", "https://10.1.2.3", True),
        ("fd00::/8", "https://[fd00::1]:5000", True),
        ("b.com, a.com c.com", "https://a.com", True),
        ("", "https://a.com", False),
        ("", "http://localhost:5000", True),
        ("", "https://127.0.0.1", True),
    ],
)
def test_exceptions(exception: str, url: str, direct: bool) -> None:
    """NO_PROXY knows names, suffixes, ports and networks; loopback is never proxied."""
    proxies = Proxies.from_environment({"HTTPS_PROXY": PROXY, "HTTP_PROXY": PROXY, "NO_PROXY": exception})
    assert (proxies.of(URL(url)) is None) == direct


def test_by_scheme_and_case() -> None:
    """Each scheme has its proxy; lower case counts where upper case is not set."""
    proxies = Proxies.from_environment(
        {"http_proxy": "p:1", "HTTPS_PROXY": "https://q:2", "https_proxy": "r:3"}
    )
    assert proxies.of(URL("http://a.com")) == URL("http://p:1")
    assert proxies.of(URL("https://a.com")) == URL("https://q:2")
    assert Proxies.from_environment({}).of(URL("https://a.com")) is None


@pytest.mark.parametrize("text", ["socks5://p:1", "http://", "http://p:x", "http://user:secret@"])
def test_refused(text: str) -> None:
    """What cannot be used is refused by the name of the variable, without its text."""
    with pytest.raises(InvalidInput, match="HTTPS_PROXY") as caught:
        Proxies.from_environment({"HTTPS_PROXY": text})
    assert "secret" not in str(caught.value)


def test_passwords_stay_out_of_repr() -> None:
    """A proxy's password is a secret."""
    assert "secret" not in repr(Proxies.from_environment({"HTTP_PROXY": "http://u:secret@p:1"}))
