"""The index of caches: a pod meets those that share a repository with it, whatever came and went before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import Candidate, Candidates
from imagecached.oci.reference import Reference
from tests.unit.imagecache.building import cache, candidate, digest

NAMES = st.sampled_from(["a:1", "a:2", "b:1", f"b@{digest('x')}", "quay.io/a:1"])
SHAPES = st.tuples(
    st.lists(NAMES, min_size=1, max_size=3, unique=True), st.sampled_from(["Ready", "Creating"])
)


def build(name: str, shape: tuple[list[str], str]) -> Candidate:
    images, phase = shape
    return candidate(cache(name, *images), phase)


def test_a_pod_meets_few_of_many() -> None:
    """Of five hundred caches the one that shares a repository."""
    known = Candidates(candidate(cache(f"c{number}", f"team/{number}:1")) for number in range(500))
    found = known.sharing([Reference.parse("team/7:2"), Reference.parse("other")])
    assert [one.cache.name for one in found] == ["c7"]
    assert len(known) == 500


def test_found_by_name_and_id() -> None:
    """An id does not find a cache that goes by it as its name, unless no cache has that id."""
    one = candidate(cache("c", "a:1"))
    known = Candidates([one])
    assert known.named("c") is known.named(one.id) is one
    assert known.named("") is None


@given(st.lists(st.tuples(st.sampled_from("xyz"), SHAPES | st.none()), max_size=12))
def test_any_history(changes: list[tuple[str, tuple[list[str], str] | None]]) -> None:
    """After any changes the index is that of the caches that are there; what went leaves nothing behind."""
    known, there = Candidates(), dict[str, Candidate]()
    for name, shape in changes:
        if shape is None:
            known.remove(name)
            there.pop(name, None)
        else:
            there[name] = build(name, shape)
            known.put(there[name])
    fresh = Candidates(there.values())
    for text in ("a", "b", "quay.io/a"):
        references = [Reference.parse(text)]
        assert set(known.sharing(references)) == set(fresh.sharing(references))
    assert len(known) == len(there)
    for name in list(there):
        known.remove(name)
    assert (known._by_repository, known._by_key, known._by_id, known._by_cache_name) == ({}, {}, {}, {})


def test_groups_by_degree() -> None:
    """The caches that hold more of the pod's images come first, those that hold none last."""
    both, one, none = cache("both", "a:1", "b:1"), cache("one", "a:1"), cache("none", "a:2")
    known = Candidates(map(candidate, (none, one, both)))
    references = [Reference.parse("a:1"), Reference.parse("b:1")]
    keys = ["docker.io/library/a:1", "docker.io/library/b:1"]
    groups = known.by_degree(keys, known.sharing(references))
    assert [[found.cache.name for found in group] for group in groups] == [["both"], ["one"], ["none"]]
