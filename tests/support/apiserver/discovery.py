"""Paths that are not resources: groups and their resources, version, health."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from tests.support.apiserver import refusals
from tests.support.apiserver.requests import Paths

_VERSION = {"major": "1", "minor": "33", "gitVersion": "v1.33.0-emulated", "platform": "linux/amd64"}
_HEALTH = ("/readyz", "/livez", "/healthz")


def answer(paths: Paths, request: web.BaseRequest, *, ready: bool) -> web.Response | None:
    """The answer to a path of this module; None for those of resources."""
    path = request.path.rstrip("/") or "/"
    if path in _HEALTH:
        return web.Response(status=200 if ready else 500, text="ok" if ready else "[-]etcd failed")
    if path == "/version":
        return _json(_VERSION)
    if path == "/api":
        return _json({"kind": "APIVersions", "versions": ["v1"]})
    if path == "/apis":
        return _json({"kind": "APIGroupList", "apiVersion": "v1", "groups": _groups(paths)})
    match path.strip("/").split("/"):
        case ["api", "v1"]:
            return _resources(paths, "", "v1")
        case ["apis", group]:
            return _json(_group(paths, group))
        case ["apis", group, version]:
            return _resources(paths, group, version)
    return None


def _json(document: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(document), content_type="application/json")


def _groups(paths: Paths) -> list[Any]:
    names = dict.fromkeys(resource.group for resource in paths.all() if resource.group)
    return [_group(paths, name) for name in names]


def _group(paths: Paths, group: str) -> Any:
    versions = dict.fromkeys(each.version for each in paths.all() if each.group == group)
    if not versions:
        raise refusals.no_such_path()
    known = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": group,
        "versions": known,
        "preferredVersion": known[0],
    }


def _resources(paths: Paths, group: str, version: str) -> web.Response:
    found = [each for each in paths.all() if (each.group, each.version) == (group, version)]
    if not found:
        raise refusals.no_such_path()
    entries = [entry for resource in found for entry in resource.discovery()]
    name = f"{group}/{version}" if group else version
    return _json({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": entries})
