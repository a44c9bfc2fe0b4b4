"""HTTP over a unix socket. A module of its own: importing ``http.client`` takes as long as a command."""

from __future__ import annotations

import socket
from http.client import HTTPConnection, HTTPException, HTTPResponse

__all__ = ["HTTPException", "HTTPResponse", "UnixConnection"]


class UnixConnection(HTTPConnection):
    """A connection to the socket at ``path``."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)
