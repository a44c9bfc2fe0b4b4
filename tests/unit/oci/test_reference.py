"""References: the distribution grammar, Docker Hub's shorthands, round trips."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imagecached.errors import InvalidInput
from imagecached.oci.digest import Digest
from imagecached.oci.reference import MAX_REPOSITORY, Reference

HEX = "f" * 64

ALPHANUMERIC = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)
SEPARATOR = st.sampled_from([".", "_", "__", "-", "--"])
COMPONENT = st.builds(
    lambda first, rest: first + "".join(sep + word for sep, word in rest),
    ALPHANUMERIC,
    st.lists(st.tuples(SEPARATOR, ALPHANUMERIC), max_size=2),
)
REPOSITORY = st.lists(COMPONENT, min_size=1, max_size=4).map("/".join)
LABEL = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,6}[a-zA-Z0-9])?", fullmatch=True)
DOMAIN = st.lists(LABEL, min_size=2, max_size=4).map(".".join)
IPV6 = st.ip_addresses(v=6).map(lambda address: f"[{address}]").filter(lambda text: "." not in text)
IPV4 = st.ip_addresses(v=4).map(str)
PORT = st.integers(1, 65535).map(lambda port: f":{port}")
HOST = st.one_of(
    st.builds(str.__add__, st.one_of(DOMAIN, IPV4, IPV6, st.just("localhost")), st.one_of(st.just(""), PORT)),
    st.builds(str.__add__, LABEL, PORT),
)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
DIGEST = st.binary(max_size=4).map(Digest.of)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("grafana/grafana", "docker.io/grafana/grafana:latest"),
        ("test.com:5000", "docker.io/library/test.com:5000"),
        ("test.com:5000/repo", "test.com:5000/repo:latest"),
        ("localhost/repo", "localhost/repo:latest"),
        ("Localhost/repo:x", "Localhost/repo:x"),
        ("[2001:db8::1]:5000/repo:tag", "[2001:db8::1]:5000/repo:tag"),
        ("[::1]/repo", "[::1]/repo:latest"),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com"),
        (f"nginx@sha256:{HEX}", f"docker.io/library/nginx@sha256:{HEX}"),
        (f"nginx:1@sha256:{HEX}", f"docker.io/library/nginx:1@sha256:{HEX}"),
        (f"a.b/c@sha512:{HEX}{HEX}", f"a.b/c@sha512:{HEX}{HEX}"),
        ("a/" * 127 + "a:tag-puts-this-over-max", "docker.io/" + "a/" * 127 + "a:tag-puts-this-over-max"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    """Shorthands are expanded as Docker does, everything else stays as it is."""
    assert str(Reference.parse(text)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":justtag",
        f"@sha256:{HEX}",
        "repo@sha256:ffffffffffffffffffffffffffffffffff",
        f"validname@invaliddigest:{HEX}",
        f"validname@sha256:{HEX.upper()}",
        "Uppercase:tag",
        "test:5000/Uppercase/lowercase:tag",
        "domain/" + "a" * 256 + ":tag",
        "aa/asdf$$^/aa",
        "[2001:db8::1]",
        "[2001:db8::1]:5000",
        "[fe80::1%eth0]:5000/repo",
        "[:::]/repo",
        "[::1/repo",
        "a..b/c",
        "a.com//b",
        "a.com/",
        "/a",
        "a___b",
        "a-.b/c/d",
        "nginx:",
        "nginx:" + "t" * 129,
        "nginx:-x",
        "nginx\n",
        "nginx:1\n",
        " nginx",
        "ngïnx",
        "nginx@",
        f"nginx@sha256:{HEX}@sha256:{HEX}",
        "a.com:0/x",
        "a.com:65536/x",
        "a.com:99999999999999999999/x",
        "a.com:/x",
        "http://a.com/x",
        "user@a.com/x",
        HEX,
        "a" * 5000,
    ],
)
def test_refused(text: str) -> None:
    """What the grammar does not allow is InvalidInput, in one short line."""
    with pytest.raises(InvalidInput) as caught:
        Reference.parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


@settings(deadline=None)
@given(HOST, REPOSITORY, st.none() | TAG, st.none() | DIGEST)
def test_round_trip(host: str, repository: str, tag: str | None, digest: Digest | None) -> None:
    """A reference made of valid parts is read as these parts, and its canonical text is read as itself."""
    text = f"{host}/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    ref = Reference.parse(text)
    assert (ref.registry, ref.repository, ref.digest) == (host, repository, digest)
    assert ref.tag == (tag or (None if digest else "latest"))
    assert Reference.parse(str(ref)) == ref
    assert Reference.parse(ref.familiar) == ref
    assert ref.target == (digest or tag or "latest")


@settings(deadline=None)
@given(REPOSITORY, st.none() | TAG, st.none() | DIGEST)
def test_docker_hub_round_trip(repository: str, tag: str | None, digest: Digest | None) -> None:
    """The familiar spelling of a Docker Hub image names the same image."""
    text = f"docker.io/{repository}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    ref = Reference.parse(text)
    assert Reference.parse(ref.familiar) == ref == Reference.parse(str(ref))
    assert len(ref.familiar) <= len(str(ref))


@settings(deadline=None)
@given(st.text(max_size=300) | st.text(alphabet="ab.:/@[]_-A1", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but InvalidInput comes out, and what is accepted keeps the promises of the type."""
    try:
        ref = Reference.parse(text)
    except InvalidInput:
        return
    assert Reference.parse(str(ref)) == ref
    assert len(ref.repository) <= MAX_REPOSITORY
    assert ref.tag or ref.digest


def test_familiar() -> None:
    """Docker Hub's names are shortened as far as they still mean the same."""
    short = {
        "nginx": "nginx:latest",
        "docker.io/library/a.b": "a.b:latest",
        "docker.io/library/a/b": "library/a/b:latest",
        "docker.io/a.b/c": "docker.io/a.b/c:latest",
        "docker.io/localhost/c": "docker.io/localhost/c:latest",
        "quay.io/a/b": "quay.io/a/b:latest",
    }
    assert {text: Reference.parse(text).familiar for text in short} == short


def test_at() -> None:
    """The same repository, by digest alone."""
    digest = Digest.of(b"")
    assert str(Reference.parse("nginx:1").at(digest)) == f"docker.io/library/nginx@{digest}"
