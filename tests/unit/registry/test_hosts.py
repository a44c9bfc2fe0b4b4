"""hosts.toml: containerd's format, order and directories; complaints that name file and key."""

from __future__ import annotations

from pathlib import Path
from string import printable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from imagecached.errors import InvalidInput
from imagecached.registry import RegistryConfig
from imagecached.registry.endpoints import Endpoint, same_origin
from imagecached.registry.hosts import load_endpoints, parse_hosts

FILE = Path("/etc/containerd/certs.d/example.com/hosts.toml")
CONFIG = RegistryConfig(certs_dirs=())


def hosts(text: str, registry: str = "example.com", config: RegistryConfig = CONFIG) -> tuple[Endpoint, ...]:
    """The endpoints that this file gives."""
    return parse_hosts(text, FILE, registry, config)


def test_everything_that_can_be_said() -> None:
    """All keys of one mirror, and the server last."""
    mirror, server = hosts(
        """
        server = "https://origin.example.com"
        ca = "/abs/ca.pem"

        [host."https://mirror.example.com:8443/cache"]
          capabilities = ["pull", "push"]
          ca = ["a.pem", "b.pem"]
          client = [["c.pem", "c.key"], "both.pem"]
          skip_verify = true
          dial_timeout = "1m1.5s"
          [host."https://mirror.example.com:8443/cache".header]
            x-one = "1"
            x-many = ["2", "3"]
        """
    )
    assert mirror == Endpoint(
        base=URL("https://mirror.example.com:8443/cache/v2"),
        capabilities=frozenset({"pull"}),
        ca=(FILE.parent / "a.pem", FILE.parent / "b.pem"),
        client=((FILE.parent / "c.pem", FILE.parent / "c.key"), (FILE.parent / "both.pem", None)),
        skip_verify=True,
        header=(("x-one", "1"), ("x-many", "2"), ("x-many", "3")),
        dial_seconds=61.5,
        namespace="example.com",
        configured=True,
    )
    assert server.base == URL("https://origin.example.com/v2")
    assert server.ca == (Path("/abs/ca.pem"),)
    assert server.namespace == "example.com"


def test_order_is_the_files() -> None:
    """Mirrors are asked as they are written, whether their own table or a table inside comes first."""
    text = """
        [host."https://z"]
        [host."https://b".header]
        x = "1"
        [host."https://b"]
        [host."https://a"]
    """
    assert [endpoint.host for endpoint in hosts(text)] == ["z", "b", "a", "example.com"]


@pytest.mark.parametrize(
    ("server", "extra", "base"),
    [
        ("mirror", "", "https://mirror/v2"),
        ("http://mirror:5000", "", "http://mirror:5000/v2"),
        ("https://mirror/", "", "https://mirror/v2"),
        ("https://mirror/a//b/", "", "https://mirror/a/b/v2"),
        ("https://mirror/a/v2", "", "https://mirror/a/v2"),
        ("https://mirror/a/v2/", "", "https://mirror/a/v2"),
        ("https://mirror/a", "override_path = true", "https://mirror/a"),
        ("https://mirror", "override_path = true", "https://mirror"),
        ("https://[::1]:5000", "", "https://[::1]:5000/v2"),
    ],
)
def test_paths(server: str, extra: str, base: str) -> None:
    """``/v2`` is added unless it is there or override_path forbids it."""
    endpoint = hosts(f'[host."{server}"]\n{extra}')[0]
    assert str(endpoint.base).rstrip("/") == base
    assert str(endpoint.url("a/b", "blobs", "sha256:1")) == f"{base}/a/b/blobs/sha256:1?ns=example.com"


def test_without_server_the_registry_itself_is_last() -> None:
    """It may do everything, and the file's TLS settings are for it."""
    own = hosts('capabilities = ["pull"]\nca = "ca.pem"')[-1]
    assert (own.base, own.namespace) == (URL("https://example.com/v2"), "")
    assert own.capabilities == {"pull", "resolve"}
    assert own.ca == (FILE.parent / "ca.pem",)


def test_docker_hub() -> None:
    """docker.io is served elsewhere, and that server is no mirror."""
    assert hosts("", "docker.io")[0].base == URL("https://registry-1.docker.io/v2")
    assert hosts('server = "https://registry-1.docker.io"', "docker.io")[0].namespace == ""


@pytest.mark.parametrize(
    ("registry", "base"),
    [
        ("example.com", "https://example.com/v2"),
        ("example.com:5000", "https://example.com:5000/v2"),
        ("localhost", "http://localhost/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("localhost:443", "https://localhost/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("127.9.9.9", "http://127.9.9.9/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("128.0.0.1:5000", "https://128.0.0.1:5000/v2"),
        ("localhost.example.com", "https://localhost.example.com/v2"),
        ("plain.example.com:80", "http://plain.example.com/v2"),
        ("port.example.com:81", "http://port.example.com:81/v2"),
        ("port.example.com:82", "https://port.example.com:82/v2"),
    ],
)
def test_plain_http(registry: str, base: str) -> None:
    """For loopback, and for hosts that are named, with any port or the one named."""
    config = RegistryConfig(certs_dirs=(), plain_http=("plain.example.com", "port.example.com:81"))
    assert same_origin(load_endpoints(registry, config)[0].base, URL(base))


def test_insecure() -> None:
    """Hosts that are named are not verified, with or without a file."""
    config = RegistryConfig(certs_dirs=(), insecure=("example.com", "mirror"))
    assert [
        each.skip_verify for each in hosts('[host."https://mirror"]\n[host."https://b"]', config=config)
    ] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("server = 1", "server: must be a string"),
        ('server = "ftp://x"', "server: must be http"),
        ('server = "https://"', "server: "),
        ('server = "https://x:99999"', "server: not a URL"),
        ('server = "https://user:secret@x"', "server: must be http"),
        ('server = "https://x/?q=1"', "server: must be http"),
        (
            '[host."https://m"]\ncapabilities = "pull"\n[host."https://n"]\ncapabilities = ["fly"]',
            "capabilities",
        ),
        ('[host."https://m"]\nca = 1', 'host."https://m".ca: must be a string or a list'),
        ('[host."https://m"]\nca = [1]', 'host."https://m".ca'),
        ('[host."https://m"]\nclient = [["a", "b", "c"]]', 'host."https://m".client'),
        ('[host."https://m"]\nclient = 1', 'host."https://m".client'),
        ('[host."https://m"]\nskip_verify = "yes"', 'host."https://m".skip_verify: must be true or false'),
        ('[host."https://m"]\noverride_path = 1', 'host."https://m".override_path'),
        ('[host."https://m"]\ndial_timeout = "soon"', 'host."https://m".dial_timeout: not a duration'),
        ('[host."https://m"]\ndial_timeout = 5', 'host."https://m".dial_timeout'),
        ('[host."https://m"]\nheader = "x"', 'host."https://m".header: must be a table'),
        ('[host."https://m".header]\nx = 1', 'host."https://m".header.x'),
        ('[host."https://m".header]\nx = "a\\nb"', 'host."https://m".header.x: not a header'),
        ('[host."https://m".header]\n"x y" = "a"', 'host."https://m".header.x y: not a header'),
        ("host = 1", "host: must be tables"),
        ("[host]\nx = 1", "host: must be tables"),
        ("server = ", "Invalid value"),
    ],
)
def test_complaints(text: str, key: str) -> None:
    """A broken file is refused with its path and the key, without secrets."""
    with pytest.raises(InvalidInput) as caught:
        hosts(text)
    assert str(caught.value).startswith(f"{FILE}: ")
    assert key in str(caught.value)
    assert "secret" not in str(caught.value)


def test_unknown_keys_are_for_others() -> None:
    """containerd's newer keys do not disturb."""
    assert len(hosts('new = 1\n[host."https://m"]\nnewer = [1]')) == 2


@pytest.mark.parametrize(
    ("directory", "registry"),
    [
        ("example.com_5000_", "example.com:5000"),
        ("example.com:5000", "example.com:5000"),
        ("[::1]_5000_", "[::1]:5000"),
        ("docker.io", "docker.io"),
        ("_default", "anything.example.com"),
    ],
)
def test_directories(directory: str, registry: str, tmp_path: Path) -> None:
    """Names of directories are containerd's."""
    (tmp_path / directory).mkdir()
    (tmp_path / directory / "hosts.toml").write_text('[host."https://mirror"]')
    endpoints = load_endpoints(registry, RegistryConfig(certs_dirs=(tmp_path,)))
    assert endpoints[0].host == "mirror"


def test_own_directory_before_default_and_earlier_root_before_later(tmp_path: Path) -> None:
    """The first root that knows the registry at all decides."""
    for name, mirror in [("one/_default", "default"), ("two/example.com", "later"), ("one/a.com", "own")]:
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "hosts.toml").write_text(f'[host."https://{mirror}"]')
    config = RegistryConfig(certs_dirs=(tmp_path / "missing", tmp_path / "one", tmp_path / "two"))
    assert load_endpoints("a.com", config)[0].host == "own"
    assert load_endpoints("example.com", config)[0].host == "default"


def test_dockers_older_layout(tmp_path: Path) -> None:
    """Certificates lie beside each other when there is no hosts.toml."""
    directory = tmp_path / "example.com"
    directory.mkdir()
    for name in ["ca.crt", "one.cert", "one.key", "two.cert", "notes.txt"]:
        (directory / name).touch()
    (endpoint,) = load_endpoints("example.com", RegistryConfig(certs_dirs=(tmp_path,)))
    assert endpoint.ca == (directory / "ca.crt",)
    assert endpoint.client == (
        (directory / "one.cert", directory / "one.key"),
        (directory / "two.cert", None),
    )


def test_unreadable_files(tmp_path: Path) -> None:
    """What is there but cannot be read is refused, not skipped."""
    file = tmp_path / "example.com" / "hosts.toml"
    file.mkdir(parents=True)
    with pytest.raises(InvalidInput, match="directory"):
        load_endpoints("example.com", RegistryConfig(certs_dirs=(tmp_path,)))
    file.rmdir()
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="utf-8"):
        load_endpoints("example.com", RegistryConfig(certs_dirs=(tmp_path,)))
    file.write_bytes(b"#" * (2 << 20))
    with pytest.raises(InvalidInput, match="larger"):
        load_endpoints("example.com", RegistryConfig(certs_dirs=(tmp_path,)))


def test_secrets_stay_out_of_repr() -> None:
    """Headers may hold tokens."""
    assert "hunter2" not in repr(hosts('[host."https://m".header]\nauthorization = "Bearer hunter2"'))


KEYS = st.sampled_from(
    [
        "server",
        "host",
        "ca",
        "client",
        "skip_verify",
        "capabilities",
        "header",
        "dial_timeout",
        "override_path",
    ]
)
VALUES = st.sampled_from(
    [
        '"https://m"',
        '"x"',
        "1",
        "true",
        "[]",
        '["pull"]',
        '[["a","b"]]',
        "{}",
        '{a = "b"}',
        '"5s"',
        "1979-05-27",
        '""',
    ]
)
LINES = st.one_of(
    st.builds("{} = {}".format, KEYS, VALUES),
    st.builds('[host."{}"]'.format, st.sampled_from(["https://m", "", "m:x", "http://[::1", "//", "a b"])),
    st.sampled_from(["[host]", "[[host]]", '[host."https://m".header]', "[header]"]),
)


@settings(deadline=None)
@given(st.lists(LINES, max_size=6).map("\n".join) | st.text(alphabet=printable, max_size=60))
def test_any_file(text: str) -> None:
    """A file gives endpoints that can be asked, or is refused; nothing else comes out."""
    try:
        endpoints = hosts(text)
    except InvalidInput:
        return
    assert endpoints
    for endpoint in endpoints:
        assert endpoint.base.scheme in ("http", "https")
        assert endpoint.url("a", "manifests", "latest").host
