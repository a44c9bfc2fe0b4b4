"""api: the HTTP around the handlers: refusals, errors, streams, shutdown."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagecached.api.peers import Gate
from imagecached.api.routes import OPERATIONS
from imagecached.ctl.client import Daemon
from imagecached.errors import AccessDenied, ImagecachedError, Unavailable
from tests.fakes.ports import FakePorts, Served
from tests.support.unixhttp import UnixConnection


def ask(served: Served, method: str, path: str, body: bytes | None = None) -> tuple[int, dict[str, Any], Any]:
    """Status, JSON and headers of one raw request."""
    connection = UnixConnection(served.socket)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "words"),
    [
        ("GET", "/v1/nothing", None, 404, "not_found", "GET /v1/nothing: Not Found"),
        ("PUT", "/v1/images", None, 405, "invalid_input", "Method Not Allowed"),
        ("POST", "/v1/pulls", b"{", 400, "invalid_input", "POST /v1/pulls: "),
        ("POST", "/v1/pulls", b"\xff", 400, "invalid_input", "POST /v1/pulls: "),
        ("POST", "/v1/pulls", b"", 400, "invalid_input", "missing required field `images`"),
        ("POST", "/v1/pulls", b'{"images": []}', 400, "invalid_input", "length >= 1 - at `$.images`"),
        ("POST", "/v1/pulls", b'{"images": ["A B"]}', 400, "invalid_input", "A B"),
        ("POST", "/v1/pulls", b'{"images": ["a"], "platform": "x"}', 400, "invalid_input", "not a platform"),
        ("POST", "/v1/gc", b'{"dryrun": true}', 400, "invalid_input", "unknown field `dryrun`"),
        ("POST", "/v1/gc", b"x" * ((1 << 20) + 1), 413, "invalid_input", "Too Large"),
        ("GET", "/v1/images?x=1", None, 400, "invalid_input", "unknown field `x`"),
        ("GET", "/v1/images/describe", None, 400, "invalid_input", "missing required field `name`"),
        ("GET", "/v1/events?since=-1", None, 400, "invalid_input", "$.since"),
        ("DELETE", "/v1/containers/..%2Fx", None, 400, "invalid_input", "$.id"),
        ("POST", "/v1/mounts", b'{"image": "a", "target": "x"}', 400, "invalid_input", "$.target"),
    ],
)
def test_wrong_requests_are_refused_by_name(
    served: Served, method: str, path: str, body: bytes | None, status: int, kind: str, words: str
) -> None:
    """JSON with kind and message, whoever refuses."""
    found, answer, _ = ask(served, method, path, body)
    assert (found, answer["error"]["kind"]) == (status, kind)
    assert words in answer["error"]["message"]
    assert "\n" not in answer["error"]["message"]


def test_a_stranger_is_denied(served: Served, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's credentials are asked for on every request."""
    monkeypatch.setattr(Gate, "admits", lambda *_: False)
    with pytest.raises(AccessDenied, match=r"user \d+ may not use this socket"):
        daemon.get("/v1/version")
    assert ask(served, "GET", "/v1/nothing")[0] == 403


def test_the_wish_to_wait_is_a_header_too(
    served: Served, fakes: FakePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry-After, for clients that know HTTP only."""

    def refuse() -> None:
        raise Unavailable("busy", retry_after=2.6)

    monkeypatch.setattr(fakes.store, "images", refuse)
    status, answer, headers = ask(served, "GET", "/v1/images")
    assert (status, headers["Retry-After"]) == (503, "3")
    assert answer["error"] == {"kind": "unavailable", "message": "busy", "retry_after_seconds": 2.6}


def test_the_unforeseen_is_told_calmly(
    served: Served, fakes: FakePorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No traceback and no text of the exception."""
    monkeypatch.setattr(fakes.store, "images", lambda: 1 / 0)
    status, answer, _ = ask(served, "GET", "/v1/images")
    message = "internal error; the daemon's log has the details"
    assert (status, answer["error"]) == (500, {"kind": "failed", "message": message})


def test_a_stream_that_fails_ends_with_the_error(daemon: Daemon, fakes: FakePorts) -> None:
    """After the first line the status can no longer tell."""
    fakes.store.fsck_error = ImagecachedError("disk on fire")
    with pytest.raises(ImagecachedError, match="disk on fire"):
        list(daemon.work("/v1/fsck", {}))


def test_stopping_tells_the_followers(served: Served, daemon: Daemon, fakes: FakePorts) -> None:
    """A follower does not keep the daemon from stopping, and hears why its stream ends."""
    fakes.events.emit("pulled", "a")
    lines = daemon.follow("/v1/events", follow=True)
    assert next(lines)["kind"] == "pulled"
    served.stop()
    with pytest.raises(Unavailable, match="the daemon is stopping"):
        next(lines)


def test_a_client_that_goes_away_in_silence_harms_nobody(served: Served, daemon: Daemon) -> None:
    """Half a request, then nothing."""
    with socket.socket(socket.AF_UNIX) as rude:
        rude.connect(str(served.socket))
        rude.sendall(b"POST /v1/gc HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert daemon.get("/v1/version")["api"] == "v1"


def test_streams_are_one_json_object_per_line(served: Served, fakes: FakePorts) -> None:
    """Readable without this project's client."""
    fakes.store.steps = [(10, 20)]
    connection = UnixConnection(served.socket)
    connection.request("POST", "/v1/fsck", b"{}")
    response: http.client.HTTPResponse = connection.getresponse()
    assert response.headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line)["type"] for line in response.read().splitlines()][-1] == "done"
    connection.close()


FIELDS = sorted({name for operation in OPERATIONS for name in operation.request.__struct_fields__})
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=10) | st.sampled_from(["a", "/a", "x/Y"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4) | VALUES
POSTS = sorted(operation.path for operation in OPERATIONS if operation.method == "POST")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(POSTS), body=BODIES)
def test_no_body_makes_the_api_fail(served: Served, path: str, body: Any) -> None:
    """Whatever is sent is done or refused; nothing is unforeseen."""
    connection = UnixConnection(served.socket)
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    last = json.loads(response.read().splitlines()[-1])
    connection.close()
    assert response.status in (200, 400, 404)
    assert ("error" in last) == (response.status != 200)
