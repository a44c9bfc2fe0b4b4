"""Derived names: stable for ever, spread well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagecached.imagecache import EVERYBODY, automatic_name, cache_id, is_cache_id, rollout_rank, uid_of_name


def test_ids_never_change() -> None:
    """Objects and pods carry these texts: another value in another version would orphan them."""
    assert cache_id("0c4f1f4e-8f5d-4d6b-9a53-4b1b7e0f3a11") == "imc-ykl7nhnbopof3fw112ku"
    assert rollout_rank("0c4f1f4e-8f5d-4d6b-9a53-4b1b7e0f3a11", 1, "node-1") == 15115
    assert automatic_name(["docker.io/library/nginx:1"]) == "auto-create-for-qn9srsdb4gjno3u8dihh"


@given(st.text(max_size=50))
def test_form(uid: str) -> None:
    """``imc-`` and 20 of a-z and 0-9, also for a name's uid."""
    assert is_cache_id(cache_id(uid))
    assert cache_id(uid_of_name(uid)) != cache_id(uid)


@pytest.mark.parametrize("text", ["", "imc-", "imc-2ze5tm5gehgtiiga000", "imc-2ZE5tm5gehgtiiga0000", "nginx"])
def test_not_an_id(text: str) -> None:
    """Names are told from ids by their form."""
    assert not is_cache_id(text)


def test_ids_are_apart() -> None:
    """Objects do not share an id."""
    assert len({cache_id(str(number)) for number in range(5000)}) == 5000


@given(st.lists(st.sampled_from(["a:1", "b:1", "c@x"]), min_size=1, max_size=6))
def test_an_image_set_has_one_name(images: list[str]) -> None:
    """Order and repetition do not matter to an automatic cache's name, which is a valid object name."""
    name = automatic_name(images)
    assert name == automatic_name(sorted(images, reverse=True)) == automatic_name([*images, images[0]])
    assert len(name) < 63
    assert name.replace("-", "").isalnum()


def test_ranks_spread_evenly() -> None:
    """A window of a quarter lets about a quarter of the nodes begin, others in the next generation."""
    first = {n for n in range(4000) if rollout_rank("u", 1, f"node-{n}") < EVERYBODY // 4}
    second = {n for n in range(4000) if rollout_rank("u", 2, f"node-{n}") < EVERYBODY // 4}
    assert 900 < len(first) < 1100
    assert 180 < len(first & second) < 320
    assert all(rollout_rank("u", 1, f"node-{n}") < EVERYBODY for n in range(100))
