"""Ways into a cluster: kubeconfig and service account, certificates, tokens that are renewed, plugins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from imagecached.errors import AccessDenied, ImagecachedError, InvalidInput, NotFound, Unavailable
from imagecached.kube.client import Cluster, kinds
from imagecached.kube.client.access import open_http
from tests.fakes.certificates import Authority, server_context
from tests.support.apiserver import ApiServer, User

_NOBODY = (
    "clusters: [{name: c, cluster: {}}]\ncontexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
)
_V1 = "client.authentication.k8s.io/v1"


def _kubeconfig(file: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Path:
    document = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file.write_text(yaml.safe_dump(document))
    return file


async def _list(kubeconfig: Path | None) -> None:
    async with Cluster.open(kubeconfig, manager="tester") as cluster:
        await cluster.list(kinds.NODES)


async def test_certificates_of_server_and_client(tmp_path: Path) -> None:
    """The server is verified by the kubeconfig's authority and sees our certificate; another is refused."""
    ours, other = Authority(tmp_path), Authority(tmp_path, "other")
    tls = server_context(ours.issue("server"), clients_of=ours)
    client = ours.issue("client")
    user = {"client-certificate": "client.pem", "client-key": str(client.key)}
    async with ApiServer(tls=tls) as server:
        cluster = {"server": server.url, "certificate-authority": ours.certificate.name}
        await _list(_kubeconfig(tmp_path / "good", cluster, user))
        stranger = {**cluster, "certificate-authority": str(other.certificate)}
        with pytest.raises(ImagecachedError, match="CERTIFICATE_VERIFY_FAILED"):
            await _list(_kubeconfig(tmp_path / "bad", stranger, user))


async def test_certificates_that_are_renewed(tmp_path: Path) -> None:
    """A new authority, and a new certificate of ours, count without a restart."""
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    authority, certificate, key = (tmp_path / name for name in ("ca.crt", "client.crt", "client.key"))

    def issue(by: Authority, name: str) -> None:
        pair = by.issue(name)
        authority.write_bytes(by.certificate.read_bytes())
        certificate.write_bytes(pair.certificate.read_bytes())
        key.write_bytes(pair.key.read_bytes())

    issue(old, "first")
    user = {"client-certificate": certificate.name, "client-key": key.name}
    async with ApiServer(tls=server_context(old.issue("one"), clients_of=old)) as server:
        port = int(server.url.rpartition(":")[2])
        file = _kubeconfig(
            tmp_path / "config", {"server": server.url, "certificate-authority": "ca.crt"}, user
        )
        opened = Cluster.open(file, manager="tester")
        cluster = await opened.__aenter__()
        await cluster.list(kinds.NODES)
    issue(new, "second")
    async with ApiServer(tls=server_context(new.issue("two"), clients_of=new), port=port):
        with pytest.raises(Unavailable):
            await cluster.list(kinds.NODES)
        await cluster.list(kinds.NODES)
    await opened.__aexit__(None, None, None)


async def test_a_token_file_is_read_again_when_it_was_renewed(tmp_path: Path) -> None:
    """The kubelet renews tokens: at 401 the file is read anew, without a failure to be seen."""
    token = tmp_path / "token"
    token.write_text("first")
    async with ApiServer(tokens={"first": User("node")}) as server:
        file = _kubeconfig(tmp_path / "config", {"server": server.url}, {"tokenFile": str(token)})
        async with Cluster.open(file, manager="tester") as cluster:
            await cluster.list(kinds.NODES)
            assert server.tokens is not None
            server.tokens.clear()
            server.tokens["second"] = User("node")
            token.write_text("second")
            await cluster.list(kinds.NODES)
            token.unlink()
            server.tokens.clear()
            with pytest.raises(AccessDenied, match="not found"):
                await cluster.list(kinds.NODES)


async def test_a_wrong_token_is_access_denied(tmp_path: Path) -> None:
    """401, with no token in the message."""
    async with ApiServer(tokens={"right": User("node")}) as server:
        file = _kubeconfig(tmp_path / "config", {"server": server.url}, {"token": "secret-thing"})
        with pytest.raises(AccessDenied, match="401") as raised:
            await _list(file)
    assert "secret-thing" not in str(raised.value)


async def test_in_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token, authority and address as the kubelet gives them to every pod."""
    ours = Authority(tmp_path)
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("of-the-pod")
    (account / "namespace").write_text("imagecached-system")
    (account / "ca.crt").write_bytes(ours.certificate.read_bytes())
    monkeypatch.setattr("imagecached.kube.client.access.SERVICE_ACCOUNT", str(account))
    tokens = {"of-the-pod": User.service_account("imagecached-system", "imagecached-node")}
    async with ApiServer(tls=server_context(ours.issue("server")), tokens=tokens) as server:
        host, port = server.url.removeprefix("https://").split(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        await _list(None)


def _plugin(tmp_path: Path, script: str) -> dict[str, Any]:
    file = tmp_path / "plugin"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return {
        "apiVersion": _V1,
        "command": "./plugin",
        "args": ["login"],
        "env": [{"name": "COLOUR", "value": "blue"}],
    }


def _credential(**status: str) -> str:
    return json.dumps({"apiVersion": _V1, "kind": "ExecCredential", "status": status})


async def test_a_plugin_is_run_again_when_its_token_is_refused(tmp_path: Path) -> None:
    """It gets its arguments, its environment and the version asked; once per token, not per request."""
    script = 'echo "$1 $COLOUR $KUBERNETES_EXEC_INFO" >> "$(dirname "$0")/runs"; cat "$(dirname "$0")/answer"'
    answer = tmp_path / "answer"
    answer.write_text(_credential(token="first"))
    async with ApiServer(tokens={"first": User("me")}) as server:
        file = _kubeconfig(tmp_path / "config", {"server": server.url}, {"exec": _plugin(tmp_path, script)})
        async with Cluster.open(file, manager="tester") as cluster:
            await cluster.list(kinds.NODES)
            await cluster.list(kinds.NODES)
            assert server.tokens is not None
            server.tokens.clear()
            server.tokens["second"] = User("me")
            answer.write_text(_credential(token="second"))
            await cluster.list(kinds.NODES)
    runs = (tmp_path / "runs").read_text().splitlines()
    assert len(runs) == 2
    assert runs[0].startswith("login blue ")
    assert json.loads(runs[0].removeprefix("login blue "))["apiVersion"] == _V1


async def test_a_plugins_token_is_renewed_before_it_expires(tmp_path: Path) -> None:
    """One that has expired is not even tried."""
    script = 'echo run >> "$(dirname "$0")/runs"; cat "$(dirname "$0")/answer"'
    (tmp_path / "answer").write_text(_credential(token="t", expirationTimestamp="2020-01-01T00:00:00Z"))
    async with ApiServer(tokens={"t": User("me")}) as server:
        file = _kubeconfig(tmp_path / "config", {"server": server.url}, {"exec": _plugin(tmp_path, script)})
        async with Cluster.open(file, manager="tester") as cluster:
            await cluster.list(kinds.NODES)
            await cluster.list(kinds.NODES)
    assert (tmp_path / "runs").read_text().split() == ["run", "run"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", "ended with 3"),
        ("echo secret-thing", "no ExecCredential"),
        ("echo '{\"status\": {}}'", "gives no token"),
        ("exec sleep 60", "did not answer"),
        ("head -c 2000000 /dev/zero", "answers without end"),
    ],
)
async def test_plugins_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    """AccessDenied that names the plugin and shows nothing of its output."""
    seconds = 0.2 if "sleep" in script else 30.0
    monkeypatch.setattr("imagecached.kube.client.access._PLUGIN_SECONDS", seconds)
    async with ApiServer() as server:
        file = _kubeconfig(tmp_path / "config", {"server": server.url}, {"exec": _plugin(tmp_path, script)})
        with pytest.raises(AccessDenied, match=message) as raised:
            await _list(file)
    assert "plugin" in str(raised.value)
    assert "secret-thing" not in str(raised.value)


async def test_a_plugin_that_is_not_there(tmp_path: Path) -> None:
    """AccessDenied with the reason of the kernel."""
    plugin = {"apiVersion": _V1, "command": "./missing"}
    file = _kubeconfig(tmp_path / "config", {"server": "http://127.0.0.1:1"}, {"exec": plugin})
    with pytest.raises(AccessDenied, match="No such file"):
        await _list(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be used"),
        ("[]", "cannot be used"),
        ("clusters: []\ncontexts: []\n", "cannot be used"),
        ("clusters: []\ncontexts: []\ncurrent-context: x\n", "cannot be used"),
        (_NOBODY, "names no user"),
    ],
)
def test_kubeconfigs_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    """InvalidInput with the file and what is wrong."""
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message) as raised:
        open_http(file, agent="tester")
    assert str(file) in str(raised.value)


def test_a_missing_authority_and_a_strange_plugin(tmp_path: Path) -> None:
    """Both are found when the session is opened, not at the first request."""
    cluster = {"server": "https://x", "certificate-authority": "/none.pem"}
    lost = _kubeconfig(tmp_path / "a", cluster, {"token": "t"})
    with pytest.raises(InvalidInput, match=r"none\.pem|No such file"):
        open_http(lost, agent="tester")
    old = {"apiVersion": "client.authentication.k8s.io/v0", "command": "x"}
    strange = _kubeconfig(tmp_path / "b", {"server": "https://x"}, {"exec": old})
    with pytest.raises(InvalidInput, match="v0"):
        open_http(strange, agent="tester")


def test_where_a_kubeconfig_is_looked_for(tmp_path: Path) -> None:
    """KUBECONFIG when none is given; NotFound names the file that is missing."""
    file = tmp_path / "none"
    with pytest.raises(NotFound, match=str(file)):
        open_http(None, agent="tester", environ={"KUBECONFIG": str(file)})
    with pytest.raises(NotFound, match=str(file)):
        open_http(file, agent="tester", environ={})
