"""Lists in pages, and watches from where a list ended."""

from __future__ import annotations

import pytest

from tests.contract.apiserver.api import Api, Watch


async def _configs(api: Api, *names: str) -> None:
    for name in names:
        await api.made(
            api.configs(), {**api.config(name), "metadata": {"name": name, "labels": {"suite": "contract"}}}
        )


async def test_pages_are_one_consistent_list(api: Api) -> None:
    """Every page shows the state of the first, whatever was written meanwhile."""
    names = [f"page-{number}" for number in range(5)]
    await _configs(api, *names)
    first = await api("GET", api.configs(), limit="2", labelSelector="")
    token = first.body["metadata"]["continue"]
    await api("DELETE", api.configs("page-4"))
    await _configs(api, "page-9")
    found, version = list(first.body["items"]), first.version
    while token:
        page = await api("GET", api.configs(), **{"limit": "2", "continue": token})
        assert page.version == version
        found += page.body["items"]
        token = page.body["metadata"].get("continue", "")
    assert [
        item["metadata"]["name"] for item in found if item["metadata"]["name"].startswith("page")
    ] == names


async def test_list_forms(api: Api) -> None:
    """A list says its kind; items of built-in kinds do not repeat it, those of custom ones do."""
    await _configs(api, "one")
    await api.made(api.samples(), api.sample("one"))
    built_in, custom = await api("GET", api.configs()), await api("GET", api.samples())
    assert (built_in.body["kind"], custom.body["kind"]) == ("ConfigMapList", "SampleList")
    assert "kind" not in built_in.body["items"][0]
    assert custom.body["items"][0]["kind"] == "Sample"


async def test_selectors(api: Api) -> None:
    """Labels by equality, set and existence; fields by name; an unknown field is 400."""
    for name, labels in (("a", {"tier": "x"}), ("b", {"tier": "y"}), ("c", {})):
        document = api.config(name)
        document["metadata"]["labels"] = {"suite": "1", **labels}
        await api.made(api.configs(), document)

    async def names(labels: str = "suite=1", **query: str) -> list[str]:
        listed = await api("GET", api.configs(), labelSelector=labels, **query)
        return [item["metadata"]["name"] for item in listed.body["items"]]

    assert await names("suite=1,tier=x") == ["a"]
    assert await names("suite=1,tier!=x") == ["b", "c"]
    assert await names("suite,tier in (x,y)") == ["a", "b"]
    assert await names("suite=1,!tier") == ["c"]
    assert await names(fieldSelector="metadata.name=b") == ["b"]
    assert (await api("GET", api.configs(), fieldSelector="data.a=1")).code == 400


async def test_a_watch_tells_what_came_after_its_version(api: Api) -> None:
    """Created, changed and deleted, in order, each with its new version."""
    start = (await api("GET", api.configs())).version
    async with api.watching(api.configs(), resourceVersion=start) as watch:
        made = await api.made(api.configs(), api.config("one"))
        changed = await api(
            "PATCH", api.configs("one"), {"data": {"a": "1"}}, kind="application/merge-patch+json"
        )
        await api("DELETE", api.configs("one"))
        events = [await watch.next() for _ in range(3)]
    assert [event["type"] for event in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert [event["object"] for event in events[:2]] == [made.body, changed.body]
    assert int(events[2]["object"]["metadata"]["resourceVersion"]) > int(changed.version)


async def test_a_watch_without_a_version_begins_with_what_is_there(api: Api) -> None:
    """Every object as ADDED, then what happens."""
    await _configs(api, "one", "two")
    async with api.watching(api.configs(), labelSelector="suite=contract") as watch:
        assert await watch.names(2) == [("ADDED", "one"), ("ADDED", "two")]
        await _configs(api, "three")
        assert await watch.names(1) == [("ADDED", "three")]


async def test_leaving_a_selection_is_a_deletion(api: Api) -> None:
    """A watch with a selector sees objects come and go as they begin and cease to match."""
    await _configs(api, "one")
    start = (await api("GET", api.configs())).version
    async with api.watching(api.configs(), resourceVersion=start, labelSelector="tier=x") as watch:
        for labels in ({"tier": "x"}, {"tier": "x", "more": "1"}, {"tier": None}):
            patch = {"metadata": {"labels": labels}}
            await api("PATCH", api.configs("one"), patch, kind="application/merge-patch+json")
        assert await watch.names(3) == [("ADDED", "one"), ("MODIFIED", "one"), ("DELETED", "one")]


async def test_one_object_can_be_watched(api: Api) -> None:
    """By the field selector on its name."""
    start = (await api("GET", api.configs())).version
    async with api.watching(api.configs(), resourceVersion=start, fieldSelector="metadata.name=two") as watch:
        await _configs(api, "one", "two")
        assert await watch.names(1) == [("ADDED", "two")]


async def test_the_server_ends_a_watch_in_time(api: Api) -> None:
    """After timeoutSeconds the answer ends, without an error."""
    start = (await api("GET", api.configs())).version
    async with api.watching(api.configs(), resourceVersion=start, timeoutSeconds="1") as watch:
        assert all(event["type"] == "BOOKMARK" for event in await watch.rest())


async def test_bookmarks_say_how_far_it_is(api: Api) -> None:
    """A bookmark holds the kind and a resourceVersion and nothing else."""
    if api.real:
        pytest.skip("a real server sends one a minute")
    start = await api.made(api.samples(), api.sample("one"))
    async with api.watching(
        api.samples(), resourceVersion=start.version, allowWatchBookmarks="true"
    ) as watch:
        event = await watch.next()
    assert event["type"] == "BOOKMARK"
    assert event["object"]["kind"] == "Sample"
    assert int(event["object"]["metadata"]["resourceVersion"]) >= int(start.version)


@pytest.mark.parametrize("path", ["list", "watch"])
async def test_a_version_from_the_future(api: Api, path: str) -> None:
    """504 Timeout with a retry, at a list as at a watch."""
    far = str(10**15)
    if path == "list":
        answer = await api("GET", api.configs(), resourceVersion=far, resourceVersionMatch="NotOlderThan")
        assert (answer.code, answer.body["reason"]) == (504, "Timeout")
        assert answer.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    else:
        async with api.watching(api.configs(), resourceVersion=far, timeoutSeconds="1") as watch:
            assert watch.code == 504 or await _ends_in(watch, 504)


async def _ends_in(watch: Watch, code: int) -> bool:
    """An ERROR event, or nothing at all: servers with and without a watch cache differ."""
    events = await watch.rest()
    return not events or events[0]["object"].get("code") == code


async def test_an_exact_version_shows_the_past(api: Api) -> None:
    """resourceVersionMatch=Exact lists what was there then."""
    await _configs(api, "one")
    then = (await api("GET", api.configs())).version
    await _configs(api, "two")
    listed = await api("GET", api.configs(), resourceVersion=then, resourceVersionMatch="Exact")
    names = [item["metadata"]["name"] for item in listed.body["items"]]
    assert "one" in names
    assert "two" not in names


async def test_history_that_is_gone(api: Api) -> None:
    """410 Expired for a watch from the beginning of time."""
    if api.real and not await _has_forgotten(api):
        pytest.skip("this server is so young that it remembers everything")
    async with api.watching(api.configs(), resourceVersion="1", timeoutSeconds="1") as watch:
        assert watch.code == 410 or await _ends_in(watch, 410)


async def _has_forgotten(api: Api) -> bool:
    """Is a list of the beginning of time refused? Servers compact their history every five minutes."""
    answer = await api("GET", "/api/v1/namespaces", resourceVersion="1", resourceVersionMatch="Exact")
    return answer.code == 410
