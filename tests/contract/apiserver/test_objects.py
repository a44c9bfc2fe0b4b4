"""Create, read, replace and delete, and what stands in the way of each."""

from __future__ import annotations

import pytest

from tests.contract.apiserver.api import APPLY, MERGE, Api


async def test_create_fills_in_what_identifies(api: Api) -> None:
    """uid, resourceVersion and creationTimestamp come from the server; a get gives the same."""
    made = await api.made(api.configs(), api.config("one", a="1"))
    assert made.body["metadata"]["uid"]
    assert made.body["metadata"]["namespace"] == api.name
    assert (await api("GET", api.configs("one"))).body == made.body


async def test_generated_names(api: Api) -> None:
    """generateName gets five characters."""
    document = api.config("")
    document["metadata"] = {"generateName": "some-"}
    made = await api.made(api.configs(), document)
    assert made.body["metadata"]["name"].startswith("some-")
    assert len(made.body["metadata"]["name"]) == len("some-") + 5


async def test_a_name_is_taken_once(api: Api) -> None:
    """A second create is 409 AlreadyExists with the details of what is there."""
    await api.made(api.configs(), api.config("one"))
    again = await api("POST", api.configs(), api.config("one"))
    assert (again.code, again.body["reason"]) == (409, "AlreadyExists")
    assert again.body["message"] == 'configmaps "one" already exists'
    assert again.body["details"] == {"name": "one", "kind": "configmaps"}


async def test_what_is_not_there(api: Api) -> None:
    """404 NotFound for get, replace, patch and delete; of a custom resource with its group."""
    for method in ("GET", "DELETE"):
        answer = await api(method, api.samples("none"))
        assert (answer.code, answer.body["reason"]) == (404, "NotFound")
        assert answer.body["message"] == f'samples.{api.group} "none" not found'
    patched = await api("PATCH", api.samples("none"), {}, kind="application/merge-patch+json")
    assert patched.code == 404
    document = api.sample("none")
    document["metadata"]["resourceVersion"] = "1"
    assert (await api("PUT", api.samples("none"), document)).code == 404


async def test_a_namespace_must_exist(api: Api) -> None:
    """Nothing is created in a namespace that is not there."""
    answer = await api("POST", f"/api/v1/namespaces/{api.name}-none/configmaps", api.config("one"))
    assert (answer.code, answer.body["details"]["kind"]) == (404, "namespaces")


async def test_names_and_labels_are_checked(api: Api) -> None:
    """422 Invalid names the fields."""
    document = api.config("Not_A_Name")
    document["metadata"]["labels"] = {"a": "not a value"}
    answer = await api("POST", api.configs(), document)
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert set(answer.causes()) == {"metadata.name", "metadata.labels"}


async def test_the_wrong_kind_is_refused(api: Api) -> None:
    """400 when the body is of another kind than the path."""
    wrong = {**api.config("one"), "kind": "Secret"}
    assert (await api("POST", api.configs(), wrong)).code == 400


async def test_a_stale_replacement_is_a_conflict(api: Api) -> None:
    """409 Conflict when somebody else wrote since; the newest version goes through."""
    first = (await api.made(api.configs(), api.config("one", a="1"))).body
    second = await api("PUT", api.configs("one"), {**first, "data": {"a": "2"}})
    assert second.code == 200
    stale = await api("PUT", api.configs("one"), {**first, "data": {"a": "3"}})
    assert (stale.code, stale.body["reason"]) == (409, "Conflict")
    assert (await api("PUT", api.configs("one"), {**second.body, "data": {"a": "3"}})).code == 200


async def test_a_replacement_of_a_custom_resource_needs_a_version(api: Api) -> None:
    """422 without metadata.resourceVersion; a ConfigMap may go without."""
    await api.made(api.samples(), api.sample("one"))
    answer = await api("PUT", api.samples("one"), api.sample("one"))
    assert (answer.code, list(answer.causes())) == (422, ["metadata.resourceVersion"])
    await api.made(api.configs(), api.config("one"))
    assert (await api("PUT", api.configs("one"), api.config("one", a="1"))).code == 200


async def test_nothing_changed_is_no_new_version(api: Api) -> None:
    """A replacement and a patch that change nothing leave the resourceVersion alone."""
    made = await api.made(api.configs(), api.config("one", a="1"))
    assert (await api("PUT", api.configs("one"), made.body)).version == made.version
    patch = {"data": {"a": "1"}}
    same = await api("PATCH", api.configs("one"), patch, kind="application/merge-patch+json")
    assert same.version == made.version


async def test_dry_run_writes_nothing(api: Api) -> None:
    """dryRun=All answers as if, and nothing is there."""
    answer = await api("POST", api.configs(), api.config("one"), dryRun="All")
    assert answer.code == 201
    assert (await api("GET", api.configs("one"))).code == 404


async def test_delete_with_a_precondition(api: Api) -> None:
    """Another uid is 409; the right one deletes and is named in the answer."""
    made = await api.made(api.configs(), api.config("one"))
    options = {"apiVersion": "v1", "kind": "DeleteOptions"}
    wrong = await api("DELETE", api.configs("one"), {**options, "preconditions": {"uid": "other"}})
    assert (wrong.code, wrong.body["reason"]) == (409, "Conflict")
    uid = made.body["metadata"]["uid"]
    right = await api("DELETE", api.configs("one"), {**options, "preconditions": {"uid": uid}})
    assert (right.code, right.body["details"]["uid"]) == (200, uid)
    assert (await api("GET", api.configs("one"))).code == 404


async def test_finalizers_hold_an_object(api: Api) -> None:
    """Delete marks; the object goes with its last finalizer, and none can be added."""
    document = api.sample("one")
    document["metadata"]["finalizers"] = ["imagecached.dev/suite"]
    await api.made(api.samples(), document)
    marked = await api("DELETE", api.samples("one"))
    assert marked.body["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["imagecached.dev/suite", "imagecached.dev/more"]}}
    refused = await api("PATCH", api.samples("one"), more, kind="application/merge-patch+json")
    assert refused.code == 422
    freed: dict[str, dict[str, list[str]]] = {"metadata": {"finalizers": []}}
    assert (await api("PATCH", api.samples("one"), freed, kind="application/merge-patch+json")).code == 200
    assert (await api("GET", api.samples("one"))).code == 404


@pytest.mark.timeout(150)
async def test_dependents_go_with_their_owner(api: Api) -> None:
    """Background garbage collection of ownerReferences."""
    owner = (await api.made(api.samples(), api.sample("owner"))).body
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": "Sample",
        "name": "owner",
        "uid": owner["metadata"]["uid"],
    }
    dependent = api.sample("dependent")
    dependent["metadata"]["ownerReferences"] = [reference]
    made = await api.made(api.samples(), dependent)
    async with api.watching(api.samples(), resourceVersion=made.version) as watch:
        await api("DELETE", api.samples("owner"))
        assert await watch.names(2) == [("DELETED", "owner"), ("DELETED", "dependent")]


async def test_unknown_paths_and_methods(api: Api) -> None:
    """404 for a resource that is not served, 405 for a verb that it lacks, 415 for an unknown patch."""
    assert (await api("GET", "/apis/nobody.example/v1/things")).code == 404
    assert (await api("POST", api.configs("one"), api.config("one"))).code == 405
    assert (await api("PATCH", api.configs("one"), {}, kind="application/json")).code == 415


async def test_discovery(api: Api) -> None:
    """Groups, resources with short names and subresources, version and health."""
    listed = await api("GET", f"/apis/{api.group}/v1")
    names = {each["name"]: each for each in listed.body["resources"]}
    assert names.keys() == {"samples", "samples/status"}
    assert names["samples"]["shortNames"] == ["smp"]
    assert names["samples"]["namespaced"] is False
    groups = {group["name"] for group in (await api("GET", "/apis")).body["groups"]}
    assert {api.group, "apps", "coordination.k8s.io"} <= groups
    assert (await api("GET", "/version")).body["major"] == "1"
    assert (await api("GET", "/readyz")).body == {"text": "ok"}


async def test_a_namespace_is_labelled_with_its_name(api: Api) -> None:
    """So that selectors can name it."""
    found = await api("GET", f"/api/v1/namespaces/{api.name}")
    assert found.body["metadata"]["labels"]["kubernetes.io/metadata.name"] == api.name


@pytest.mark.parametrize("way", ["apply", "merge"])
async def test_a_binding_stays_with_its_role(api: Api, way: str) -> None:
    """It has to be deleted and made anew for another one."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{api.name}/rolebindings"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "one"}
    body = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "one"},
        "roleRef": role,
        "subjects": [],
    }
    await api.made(path, body)
    other = {**body, "roleRef": {**role, "name": "other"}}
    if way == "apply":
        told = await api("PATCH", f"{path}/one", other, kind=APPLY, fieldManager="suite", force="true")
    else:
        told = await api("PATCH", f"{path}/one", {"roleRef": other["roleRef"]}, kind=MERGE)
    assert (told.code, told.body["reason"]) == (422, "Invalid")
    assert "cannot change roleRef" in told.body["message"]
    assert told.causes() == {"roleRef": "FieldValueInvalid"}
