"""config: who wins, what is refused and in which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagecached.config import Config, StoreSection, load, split_address
from imagecached.errors import InvalidInput, NotFound


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_flags_beat_environment_beat_file_beat_defaults(path: Path) -> None:
    """Each source overrides the one below it, key by key."""
    path.write_text('[daemon]\nroot = "/file"\nsocket = "/file.sock"\nsocket_group = "file"\n')
    environ = {"IMAGECACHED_DAEMON__ROOT": "/environment", "IMAGECACHED_DAEMON__SOCKET": "/environment.sock"}
    config = load(path, environ=environ, flags={"daemon.root": "/flag"})
    assert (config.daemon.root, config.daemon.socket) == (Path("/flag"), Path("/environment.sock"))
    assert config.daemon.socket_group == "file"
    assert config.http == Config().http


def test_a_named_file_must_exist(path: Path) -> None:
    """Only the default path may be missing."""
    with pytest.raises(NotFound, match=r"config\.toml does not exist"):
        load(path, environ={})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[store]\nquota_bytes = 'x'", "store.quota_bytes: expected an integer of at least 0, got 'x'"),
        ("[store]\nquota_bytes = -1", "store.quota_bytes: expected an integer of at least 0, got -1"),
        ("[registry]\nattempts = true", "registry.attempts: expected an integer from 1 to 100, got True"),
        ("[registry]\nattempts = 101", "registry.attempts: expected an integer from 1 to 100, got 101"),
        ("[registry]\ninsecure = [1]", "registry.insecure: expected a list of strings, got [1]"),
        (
            "[registry]\nauth_files = ['x']",
            "registry.auth_files: expected a list of absolute paths, got ['x']",
        ),
        ("[registry]\nread_timeout_seconds = nan", "expected a number from 0.1 to 3600, got nan"),
        ("[daemon]\nroot = 'relative'", "daemon.root: expected an absolute path, got 'relative'"),
        (
            f"[daemon]\nsocket = '/{'x' * 107}'",
            "daemon.socket: expected an absolute path of at most 107 bytes",
        ),
        (
            "[http]\naddress = 'localhost'",
            "expected host:port, [IPv6]:port or an empty string, got 'localhost'",
        ),
        ("[http]\naddress = '127.0.0.1:70000'", "got '127.0.0.1:70000'"),
        ("[pull]\nplatform = 'linux'", "expected os/architecture[/variant] or an empty string, got 'linux'"),
        ("[log]\nlevel = 'loud'", "log.level: expected one of debug, info, warning, error, got 'loud'"),
        ("[store]\nquota = 1", "store.quota: no such key"),
        ("[shop]", "shop: no such section; expected one of daemon, http,"),
        ("store = 1", "store: expected a table, got 1"),
        ("[store", "cannot be read: Expected ']'"),
        (
            "[store]\ngc_low_percent = 90",
            "store.gc_low_percent: expected at most store.gc_high_percent (85), got 90",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_file_key_and_reason(path: Path, text: str, words: str) -> None:
    """The message names the file, the key, what was expected and what was found."""
    path.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        load(path, environ={})
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused(path: Path) -> None:
    """Bytes that are not UTF-8, and a folder instead of a file, are refused by name."""
    path.write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match=r"config\.toml: cannot be read"):
        load(path, environ={})
    with pytest.raises(InvalidInput, match="Is a directory"):
        load(path.parent, environ={})


def test_text_of_environment_and_flags_is_converted() -> None:
    """Numbers are written plainly, lists with commas."""
    environ = {
        "IMAGECACHED_STORE__QUOTA_BYTES": "1000",
        "IMAGECACHED_REGISTRY__PLAIN_HTTP": "a:5000, b,",
        "IMAGECACHED_REGISTRY__AUTH_FILES": "",
        "IMAGECACHED_REGISTRY__READ_TIMEOUT_SECONDS": "2",
        "IMAGECACHED_PULL__PLATFORM": "linux/arm64/v8",
        "IMAGECACHED_SNAPSHOTTER__PULL_ON_MISS": "false",
    }
    config = load(environ=environ, flags={"log.level": "debug"})
    assert config.store.quota_bytes == 1000
    assert config.registry.plain_http == ("a:5000", "b")
    assert config.registry.auth_files == ()
    assert config.registry.read_timeout_seconds == 2.0
    assert config.snapshotter.pull_on_miss is False
    assert (config.pull.platform, config.log.level) == ("linux/arm64/v8", "debug")


@pytest.mark.parametrize(
    ("environ", "flags", "words"),
    [
        (
            {"IMAGECACHED_STORE__QUOTA_BYTES": "1k"},
            {},
            "IMAGECACHED_STORE__QUOTA_BYTES: expected an integer of",
        ),
        (
            {"IMAGECACHED_SNAPSHOTTER__PULL_ON_MISS": "perhaps"},
            {},
            "IMAGECACHED_SNAPSHOTTER__PULL_ON_MISS: expected true or false, got 'perhaps'",
        ),
        ({"IMAGECACHED_STORE__NOPE": "1"}, {}, "IMAGECACHED_STORE__NOPE: no such key"),
        ({"IMAGECACHED_NOPE__NOPE": "1"}, {}, "IMAGECACHED_NOPE__NOPE: no such key"),
        ({"IMAGECACHED_DAEMON__ROOT": "/\udcff"}, {}, "IMAGECACHED_DAEMON__ROOT: expected an absolute path"),
        ({}, {"daemon.root": "x"}, "--root: expected an absolute path, got 'x'"),
    ],
)
def test_a_wrong_text_is_refused_by_its_source(
    environ: dict[str, str], flags: dict[str, str], words: str
) -> None:
    """The variable or the flag is named as the user wrote it."""
    with pytest.raises(InvalidInput) as caught:
        load(environ=environ, flags=flags)
    assert words in str(caught.value)


def test_variables_of_kubernetes_are_no_error() -> None:
    """A Service called imagecached makes Kubernetes inject variables with our prefix."""
    environ = {"IMAGECACHED_SERVICE_HOST": "10.0.0.1", "IMAGECACHED_PORT_9273_TCP": "tcp://10.0.0.1:9273"}
    assert load(environ=environ) == load(environ={})


def test_the_greater_reserve_counts() -> None:
    """Bytes or share of the disk, whichever leaves more free."""
    store = StoreSection(free_bytes=100, free_percent=10)
    assert (store.free_of(500), store.free_of(5000)) == (100, 500)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", None),
        ("127.0.0.1:9273", ("127.0.0.1", 9273)),
        ("[::1]:0", ("::1", 0)),
        ("node.example:80", ("node.example", 80)),
    ],
)
def test_addresses_are_split(address: str, expected: tuple[str, int] | None) -> None:
    """Names, IPv4 and bracketed IPv6; empty means none."""
    assert split_address(address) == expected
