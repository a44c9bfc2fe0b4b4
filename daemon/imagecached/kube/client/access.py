"""How the cluster is reached: kubeconfig or service account, certificates, tokens that are renewed.

lightkube reads the files and re-reads a token file when the server says 401. Plugins (``exec``) are run
here: the version that plugins speak today, bounded in time and size, run again at 401 and before expiry.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import httpx2 as httpx
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import UserExec
from lightkube.core.exceptions import ConfigError

from imagecached import programs
from imagecached.errors import AccessDenied, InvalidInput, NotFound
from imagecached.kube.client.transport import Transport
from imagecached.registry.proxies import Proxies

_PLUGIN_SECONDS: Final = 60.0
_PLUGIN_APIS: Final = tuple(
    f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1")
)
_EARLY_SECONDS: Final = 30.0


def open_http(
    kubeconfig: Path | None, *, agent: str, environ: Mapping[str, str] = os.environ
) -> httpx.AsyncClient:
    """A session with the cluster; reads files, so call it in a thread.

    Without ``kubeconfig``: the pod's service account if we are in one, else ``KUBECONFIG``, else the user's.
    InvalidInput, NotFound: the configuration is wrong or missing, or names a proxy that is none.
    """
    config = _config(kubeconfig, environ)
    try:
        assert config.user is not None
        plugin = config.user.exec
        auth = PluginAuth(_found(plugin, config)) if plugin else user_auth(config.user)
        verify = verify_cluster(config.cluster, config.user, config.abs_file)
    except (ConfigError, OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise InvalidInput(f"{config.fname or 'service account'}: {error}") from error
    transport = Transport(verify, Proxies.from_environment(environ), partial(_renew, verify, config))
    return httpx.AsyncClient(
        base_url=config.cluster.server,
        auth=auth,
        transport=transport,
        headers={"User-Agent": agent},
        timeout=None,
        trust_env=False,
    )


def _config(kubeconfig: Path | None, environ: Mapping[str, str]) -> SingleConfig:
    in_pod = kubeconfig is None and "KUBERNETES_SERVICE_HOST" in environ
    file = kubeconfig or Path(environ.get("KUBECONFIG") or "~/.kube/config").expanduser()
    what = "service account" if in_pod else str(file)
    if not in_pod and not file.is_file():
        raise NotFound(f"kubeconfig {file} does not exist")
    try:
        config = (
            KubeConfig.from_service_account(SERVICE_ACCOUNT) if in_pod else KubeConfig.from_file(file)
        ).get()
    except (
        ConfigError,
        OSError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        yaml.YAMLError,
    ) as error:
        raise InvalidInput(f"{what}: cannot be used: {error}") from error
    if config is None or config.user is None:
        raise InvalidInput(f"{what}: the context names no user")
    return config


def _renew(context: ssl.SSLContext, config: SingleConfig) -> None:
    """Read authority and client certificate again, where they are files: both are renewed in place."""
    cluster, user = config.cluster, config.user
    with suppress(OSError):  # ssl.SSLError too: a file that is being written is read the next time
        if cluster.certificate_auth:
            context.load_verify_locations(cafile=config.abs_file(cluster.certificate_auth))
        if user is not None and user.client_cert and user.client_key:
            context.load_cert_chain(config.abs_file(user.client_cert), config.abs_file(user.client_key))


def _found(plugin: UserExec, config: SingleConfig) -> UserExec:
    """A command with a relative path lies beside the kubeconfig; one without a path is in PATH."""
    if "/" not in plugin.command:
        return plugin
    return msgspec.structs.replace(plugin, command=str(config.abs_file(plugin.command)))


class _PluginStatus(msgspec.Struct):
    token: str | None = None
    expires: str | None = msgspec.field(name="expirationTimestamp", default=None)


class _PluginAnswer(msgspec.Struct):
    status: _PluginStatus


class PluginAuth(httpx.Auth):
    """Bearer tokens of a credential plugin (client.authentication.k8s.io). Certificates are not taken."""

    def __init__(self, plugin: UserExec) -> None:
        if plugin.apiVersion not in _PLUGIN_APIS:
            raise ConfigError(
                f"exec: apiVersion {plugin.apiVersion}: expected one of {', '.join(_PLUGIN_APIS)}"
            )
        self._plugin = plugin
        self._token = ""
        self._until = 0.0
        self._turn = asyncio.Lock()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send with the token at hand; at 401 once more with a new one."""
        used = await self._current("")
        request.headers["Authorization"] = f"Bearer {used}"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {await self._current(used)}"
            yield request

    async def _current(self, refused: str) -> str:
        """A token that is not ``refused``; many requests at once run the plugin once."""
        async with self._turn:
            if not self._token or self._token == refused or time.time() > self._until:
                status = await _run(self._plugin)
                self._token, self._until = status.token or "", _moment(status.expires) - _EARLY_SECONDS
            return self._token


async def _run(plugin: UserExec) -> _PluginStatus:
    info = {"apiVersion": plugin.apiVersion, "kind": "ExecCredential", "spec": {"interactive": False}}
    environ = {
        **os.environ,
        "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode(),
        **{variable.name: variable.value for variable in plugin.env or ()},
    }
    argv = (plugin.command, *(plugin.args or ()))
    code, output = await programs.ask(*argv, seconds=_PLUGIN_SECONDS, environment=environ)
    what = f"credential plugin {plugin.command}"
    if code != 0:
        raise AccessDenied(f"{what}: ended with {code}")
    return _credential(what, output)


def _credential(what: str, output: bytes) -> _PluginStatus:
    try:
        status = msgspec.json.decode(output, type=_PluginAnswer).status
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise AccessDenied(f"{what}: its answer is no ExecCredential") from None  # it may hold a secret
    if not status.token:
        raise AccessDenied(f"{what}: gives no token")
    return status


def _moment(text: str | None) -> float:
    """Seconds since 1970 of an RFC 3339 time; for ever when it says none that can be read."""
    try:
        return datetime.fromisoformat(text).timestamp() if text else float("inf")
    except ValueError:
        return float("inf")
