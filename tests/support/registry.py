"""Debian's docker-registry on a loopback port, with its storage in a folder."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import running


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
    with running(["docker-registry", "serve", config], log=log, ready=lambda: _answers(host, port)) as pid:
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


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
