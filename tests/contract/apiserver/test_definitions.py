"""Custom resources: what their schema fills in, takes away and refuses; status apart from the rest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.apiserver.api import MERGE, Api
from tests.contract.apiserver.conftest import DEFINITIONS, definition

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


async def test_defaults_are_filled_in_and_strangers_taken_away(api: Api) -> None:
    """A default where nothing was said; fields that the schema does not name are dropped."""
    document = api.sample("one", {"images": ["a"], "unknown": 1, "parts": [{"name": "p", "odd": 2}]})
    made = await api.made(api.samples(), document)
    assert made.body["spec"] == {"images": ["a"], "size": 20, "parts": [{"name": "p"}]}


async def test_strict_validation_refuses_strangers(api: Api) -> None:
    """fieldValidation=Strict: 400 that names the field."""
    answer = await api(
        "POST", api.samples(), api.sample("one", {"images": ["a"], "odd": 1}), fieldValidation="Strict"
    )
    assert answer.code == 400
    assert 'unknown field "spec.odd"' in answer.body["message"]


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({}, "spec.images", "FieldValueRequired"),
        ({"images": []}, "spec.images", "FieldValueInvalid"),
        ({"images": ["a", "b", "c", "d"]}, "spec.images", "FieldValueTooMany"),
        ({"images": ["x" * 21]}, "spec.images[0]", "FieldValueTooLong"),
        ({"images": "a"}, "spec.images", "FieldValueTypeInvalid"),
        ({"images": ["a"], "size": 19}, "spec.size", "FieldValueInvalid"),
        ({"images": ["a"], "size": 101}, "spec.size", "FieldValueInvalid"),
        ({"images": ["a"], "size": "20"}, "spec.size", "FieldValueTypeInvalid"),
        ({"images": ["a"], "days": 0}, "spec", "FieldValueInvalid"),
        ({"images": ["a"], "parts": [{"name": "p"}, {"name": "p"}]}, "spec.parts[1]", "FieldValueDuplicate"),
    ],
)
async def test_what_the_schema_forbids(api: Api, spec: dict[str, Any], field: str, reason: str) -> None:
    """422 Invalid with the field and the reason; rules in CEL count like ranges."""
    answer = await api("POST", api.samples(), api.sample("one", spec))
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert answer.causes() == {field: reason, **_unchecked(reason)}


def _unchecked(reason: str) -> dict[str, str]:
    """Where rules could stumble over the mistake they are not tried, and that is one more cause."""
    tried = reason in ("FieldValueInvalid", "FieldValueDuplicate")
    return {} if tried else {"<nil>": "FieldValueInvalid"}


async def test_a_new_definition_is_not_served_yet(api: Api) -> None:
    """Its conditions are null at first, not a list."""
    made = await api.made(DEFINITIONS, definition(f"other.{api.group}"))
    await api("DELETE", f"{DEFINITIONS}/samples.other.{api.group}")
    assert made.body["status"]["conditions"] is None


async def test_null_where_null_is_not_allowed(api: Api) -> None:
    """A null in place of a field with a default gives the default; a nullable field keeps it."""
    made = await api.made(api.samples(), api.sample("one", {"images": ["a"], "size": None}))
    assert made.body["spec"] == {"images": ["a"], "size": 20}


async def test_transition_rules_compare_with_before(api: Api) -> None:
    """``self == oldSelf`` says nothing at first, and holds afterwards."""
    await api.made(api.samples(), api.sample("one", {"images": ["a"], "fixed": "x"}))
    changed = await api("PATCH", api.samples("one"), {"spec": {"fixed": "y"}}, kind=MERGE)
    assert changed.code == 422
    assert "is fixed" in changed.body["message"]
    other = await api("PATCH", api.samples("one"), {"spec": {"size": 30}}, kind=MERGE)
    assert other.code == 200


async def test_status_is_written_through_its_own_door(api: Api) -> None:
    """Create and update ignore status; the subresource ignores everything else."""
    made = await api.made(api.samples(), api.sample("one", status={"phase": "Ready"}))
    assert "status" not in made.body
    body = {"spec": {"size": 50}, "metadata": {"labels": {"a": "b"}}, "status": {"phase": "Ready"}}
    written = await api("PATCH", f"{api.samples('one')}/status", body, kind=MERGE)
    assert written.body["status"] == {"phase": "Ready"}
    assert written.body["spec"]["size"] == 20
    assert "labels" not in written.body["metadata"]
    elsewhere = await api("PATCH", api.samples("one"), {"status": {"phase": "Pending"}}, kind=MERGE)
    assert elsewhere.body["status"] == {"phase": "Ready"}
    wrong = await api("PATCH", f"{api.samples('one')}/status", {"status": {"phase": "Odd"}}, kind=MERGE)
    assert wrong.causes() == {
        "status.phase": "FieldValueNotSupported",
        **_unchecked("FieldValueNotSupported"),
    }


async def test_status_can_be_replaced(api: Api) -> None:
    """PUT on the subresource; a stale version is a conflict there, too."""
    made = await api.made(api.samples(), api.sample("one"))
    body = {**made.body, "status": {"count": 1}}
    first = await api("PUT", f"{api.samples('one')}/status", body)
    assert first.body["status"] == {"count": 1}
    assert (await api("PUT", f"{api.samples('one')}/status", body)).code == 409


async def test_generation_counts_changes_of_the_spec(api: Api) -> None:
    """Neither metadata nor status moves it."""
    made = await api.made(api.samples(), api.sample("one"))
    assert made.body["metadata"]["generation"] == 1
    labelled = await api("PATCH", api.samples("one"), {"metadata": {"labels": {"a": "b"}}}, kind=MERGE)
    assert labelled.body["metadata"]["generation"] == 1
    await api("PATCH", f"{api.samples('one')}/status", {"status": {"count": 1}}, kind=MERGE)
    resized = await api("PATCH", api.samples("one"), {"spec": {"size": 30}}, kind=MERGE)
    assert resized.body["metadata"]["generation"] == 2


async def test_tables_have_the_declared_columns(api: Api) -> None:
    """What kubectl prints: Name, then the columns in their order; wide ones have a priority."""
    await api.made(api.samples(), api.sample("one"))
    await api("PATCH", f"{api.samples('one')}/status", {"status": {"phase": "Ready"}}, kind=MERGE)
    table = (await api("GET", api.samples(), accept=TABLE)).body
    assert table["kind"] == "Table"
    columns = [(column["name"], column["priority"]) for column in table["columnDefinitions"]]
    assert columns == [("Name", 0), ("Age", 0), ("Phase", 0), ("Size", 1)]
    name, age, phase, size = table["rows"][0]["cells"]
    assert (name, phase, size) == ("one", "Ready", 20)
    assert age.endswith("s")


async def test_a_definition_that_is_gone_serves_nothing(api: Api) -> None:
    """Its objects go with it."""
    await api.made(api.samples(), api.sample("one"))
    path = f"{DEFINITIONS}/samples.{api.group}"
    start = await api("GET", path)
    async with api.watching(
        path.rpartition("/")[0],
        resourceVersion=start.version,
        fieldSelector=f"metadata.name=samples.{api.group}",
    ) as watch:
        await api("DELETE", path)
        while (await watch.next())["type"] != "DELETED":
            pass
    assert (await api("GET", api.samples("one"))).code == 404
