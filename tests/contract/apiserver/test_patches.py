"""Merge patch, JSON patch, strategic merge patch, and server-side apply with its owners of fields."""

from __future__ import annotations

from typing import Any

from tests.contract.apiserver.api import APPLY, JSON_PATCH, MERGE, STRATEGIC, Answer, Api


async def test_merge_patch(api: Api) -> None:
    """RFC 7396: null removes, lists are replaced."""
    await api.made(api.configs(), api.config("one", a="1", b="2"))
    patched = await api("PATCH", api.configs("one"), {"data": {"a": None, "c": "3"}}, kind=MERGE)
    assert patched.body["data"] == {"b": "2", "c": "3"}


async def test_a_merge_patch_may_insist_on_a_version(api: Api) -> None:
    """With metadata.resourceVersion in it, a patch of a stale object is 409."""
    made = await api.made(api.configs(), api.config("one", a="1"))
    await api("PATCH", api.configs("one"), {"data": {"a": "2"}}, kind=MERGE)
    patch = {"metadata": {"resourceVersion": made.version}, "data": {"a": "3"}}
    assert (await api("PATCH", api.configs("one"), patch, kind=MERGE)).code == 409


async def test_json_patch(api: Api) -> None:
    """RFC 6902: operations in order, ``~1`` for a slash, and a failed test stops all."""
    await api.made(api.configs(), api.config("one", a="1"))
    operations: list[dict[str, Any]] = [
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "add", "path": "/metadata/annotations", "value": {}},
        {"op": "add", "path": "/metadata/annotations/x.io~1y", "value": "z"},
        {"op": "replace", "path": "/data/a", "value": "2"},
    ]
    patched = await api("PATCH", api.configs("one"), operations, kind=JSON_PATCH)
    assert patched.body["metadata"]["annotations"] == {"x.io/y": "z"}
    assert patched.body["data"] == {"a": "2"}
    again = await api("PATCH", api.configs("one"), operations, kind=JSON_PATCH)
    assert (again.code, again.body["reason"]) == (422, "Invalid")


async def test_strategic_merge_knows_list_keys(api: Api) -> None:
    """Containers are merged by name; a custom resource does not take this kind (415)."""
    containers = [{"name": "a", "image": "x:1"}, {"name": "b", "image": "y:1"}]
    template = {"metadata": {"labels": {"app": "one"}}, "spec": {"containers": containers}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "one"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "one"}}, "template": template},
    }
    await api.made(api.deployments(), deployment)
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "y:2"}]}}}}
    patched = await api("PATCH", api.deployments("one"), patch, kind=STRATEGIC)
    found = patched.body["spec"]["template"]["spec"]["containers"]
    assert {each["name"]: each["image"] for each in found} == {"a": "x:1", "b": "y:2"}
    await api.made(api.samples(), api.sample("one"))
    assert (await api("PATCH", api.samples("one"), {}, kind=STRATEGIC)).code == 415


async def test_writers_are_written_down(api: Api) -> None:
    """managedFields says who set what, by which operation, and through which subresource."""
    await api("POST", api.samples(), api.sample("one"), fieldManager="creator")
    await api("PATCH", api.samples("one"), {"spec": {"size": 30}}, kind=MERGE, fieldManager="resizer")
    answer = await api(
        "PATCH", f"{api.samples('one')}/status", {"status": {"count": 1}}, kind=MERGE, fieldManager="reporter"
    )
    entries = {entry["manager"]: entry for entry in answer.body["metadata"]["managedFields"]}
    assert {name: entry["operation"] for name, entry in entries.items()} == dict.fromkeys(
        ("creator", "resizer", "reporter"), "Update"
    )
    assert "f:size" in entries["resizer"]["fieldsV1"]["f:spec"]
    assert "f:size" not in entries["creator"]["fieldsV1"]["f:spec"]
    assert entries["reporter"]["subresource"] == "status"


async def _apply(api: Api, spec: dict[str, Any], manager: str, **query: str) -> Answer:
    return await api(
        "PATCH", api.samples("one"), api.sample("one", spec), kind=APPLY, fieldManager=manager, **query
    )


async def test_apply_creates_and_then_changes_nothing(api: Api) -> None:
    """201 at first; the same again is 200 and no new version."""
    first = await _apply(api, {"images": ["a"]}, "one")
    assert first.code == 201
    again = await _apply(api, {"images": ["a"]}, "one")
    assert (again.code, again.version) == (200, first.version)


async def test_apply_needs_a_manager(api: Api) -> None:
    """422 that names the parameter fieldManager."""
    answer = await api("PATCH", api.samples("one"), api.sample("one"), kind=APPLY)
    assert answer.code == 422
    assert answer.causes() == {"fieldManager": "FieldValueRequired"}
    assert "PatchOptions.meta.k8s.io" in answer.body["message"]


async def test_apply_removes_what_it_does_not_say_any_more(api: Api) -> None:
    """A field only its applier owned goes; what others own stays."""
    await _apply(api, {"images": ["a"], "options": {"x": "1", "y": "2"}}, "one")
    await _apply(api, {"images": ["a"], "options": {"y": "2"}}, "two")
    left = await _apply(api, {"images": ["a"]}, "one")
    assert left.body["spec"]["options"] == {"y": "2"}


async def test_apply_does_not_take_from_others(api: Api) -> None:
    """409 that names field and owner; force takes it; an equal value is shared."""
    await _apply(api, {"images": ["a"], "size": 30}, "one")
    assert (await _apply(api, {"images": ["a"], "size": 30}, "two")).code == 200
    conflict = await _apply(api, {"images": ["a"], "size": 40}, "two")
    assert (conflict.code, conflict.body["reason"]) == (409, "Conflict")
    assert conflict.causes() == {".spec.size": "FieldManagerConflict"}
    assert 'conflict with "one"' in conflict.body["message"]
    forced = await _apply(api, {"images": ["a"], "size": 40}, "two", force="true")
    assert forced.body["spec"]["size"] == 40
    back = await _apply(api, {"images": ["a"], "size": 30}, "one")
    assert back.causes() == {".spec.size": "FieldManagerConflict"}


async def test_an_update_takes_without_asking(api: Api) -> None:
    """What an update changed belongs to the updater: the applier meets a conflict."""
    await _apply(api, {"images": ["a"], "size": 30}, "one")
    await api("PATCH", api.samples("one"), {"spec": {"size": 50}}, kind=MERGE, fieldManager="editor")
    conflict = await _apply(api, {"images": ["a"], "size": 30}, "one")
    assert conflict.code == 409
    assert 'conflict with "editor"' in conflict.body["message"]


async def test_lists_with_keys_are_merged_item_by_item(api: Api) -> None:
    """Two appliers own two items of one list; atomic lists belong to one as a whole."""
    await _apply(api, {"images": ["a"], "parts": [{"name": "p", "value": "1"}]}, "one")
    both = await _apply(api, {"images": ["a"], "parts": [{"name": "q", "value": "2"}]}, "two")
    assert [part["name"] for part in both.body["spec"]["parts"]] == ["p", "q"]
    conflict = await _apply(api, {"images": ["a"], "parts": [{"name": "p", "value": "9"}]}, "two")
    assert conflict.causes() == {'.spec.parts[name="p"].value': "FieldManagerConflict"}
    whole = await _apply(api, {"images": ["a", "b"]}, "two")
    assert whole.causes() == {".spec.images": "FieldManagerConflict"}


async def test_status_can_be_applied(api: Api) -> None:
    """Through the subresource; the fields of spec are not touched."""
    await _apply(api, {"images": ["a"]}, "one")
    body = {
        "apiVersion": f"{api.group}/v1",
        "kind": "Sample",
        "metadata": {"name": "one"},
        "status": {"count": 3},
    }
    answer = await api("PATCH", f"{api.samples('one')}/status", body, kind=APPLY, fieldManager="reporter")
    assert answer.body["status"] == {"count": 3}
    assert answer.body["spec"]["images"] == ["a"]
    assert (await _apply(api, {"images": ["a"]}, "one")).body["status"] == {"count": 3}
