"""Debian's docker-registry on a loopback port, with its storage in a folder."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.processes import await_true, running

_REQUEST: Final = re.compile(r'"((?:GET|HEAD|POST|PUT|PATCH|DELETE) \S+) HTTP/')


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry that answers: ``address`` is ``host:port``, ``storage`` where its blobs lie."""

    address: str
    storage: Path
    log: Path
    pid: int

    def reference(self, name: str) -> str:
        """``demo/hello:1`` → ``127.0.0.1:40123/demo/hello:1``."""
        return f"{self.address}/{name}"

    def stored_blob(self, digest: str) -> Path:
        """The file that holds a blob; tests damage it on purpose."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    @contextmanager
    def requests(self, repository: str = "") -> Iterator[list[str]]:
        """Fills the list, at the end of the block, with the requests for a repository: ``GET /v2/…``."""
        begin, found = self.log.stat().st_size, list[str]()
        yield found
        found += [line for line in self._logged(begin) if f"/v2/{repository}/" in line]

    def _logged(self, begin: int) -> Iterator[str]:
        """Requests since the log had that size; a last one of ours tells that all before it are written."""
        mark = f"/v2/?mark={secrets.token_hex(8)}"
        _get(self.address, mark)
        await_true(
            lambda: mark in self._log_from(begin), what="the log", deadline_seconds=10, alive=lambda: True
        )
        for line in self._log_from(begin).splitlines():
            if found := _REQUEST.search(line):
                yield found[1]

    def _log_from(self, begin: int) -> str:
        return self.log.read_bytes()[begin:].decode(errors="replace")


def free_port(host: str) -> int:
    """A port that nobody listens on right now."""
    with socket.create_server((host, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@contextmanager
def serve_registry(
    directory: Path, *, host: str = "127.0.0.1", port: int | None = None
) -> Iterator[Registry]:
    """Serve the images stored below ``directory`` until the block ends; it may be served again."""
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port(host)
    address = f"{host}:{port}"
    storage, log, config = directory / "storage", directory / "registry.log", directory / "registry.yml"
    config.write_text(_config(address, storage))
    with running(["docker-registry", "serve", config], log=log, ready=lambda: _answers(address)) as pid:
        yield Registry(address, storage, log, pid)


def _config(address: str, storage: Path) -> str:
    # JSON is YAML; the access log lets tests count requests.
    return json.dumps(
        {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(storage)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": {"addr": address},
        }
    )


def _answers(address: str) -> bool:
    try:
        return _get(address, "/v2/") == http.client.OK
    except OSError:
        return False


def _get(address: str, path: str) -> int:
    connection = http.client.HTTPConnection(address, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
